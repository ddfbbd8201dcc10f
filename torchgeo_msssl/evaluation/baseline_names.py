"""Names of the classifiers that networks are compared with."""

__all__ = ('BASELINES', 'baseline_key', 'baseline_of')

#: Names in tables, by the keys in ``metrics_test.json`` and by the prefix of metrics.
BASELINES = {
    'logistic_spectral': 'logistic regression on bands',
    'logistic_texture': 'logistic regression on texture',
    'forest_spectral': 'random forest on bands',
    'forest_texture': 'random forest on texture',
}


def baseline_key(classifier: str, features: str) -> str:
    """Return the key of a classifier (``logistic``, ``forest``) of features (``spectral``, ``texture``)."""
    return f'{classifier}_{features}'


def baseline_of(metric: str) -> tuple[str, str] | None:
    """Split the name of a baseline's metric.

    Args:
        metric: Name of a metric, such as ``forest_texture_iou_vine``.

    Returns:
        Name of the baseline in tables and the metric of networks to compare it with, such as ``('random forest on
        texture', 'test_iou_vine')``; None for any other metric.
    """
    for key, name in BASELINES.items():
        if metric.startswith(f'{key}_'):
            return name, f'test_{metric.removeprefix(f"{key}_")}'
    return None
