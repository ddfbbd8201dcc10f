"""Scores of classified chips, for many weightings of the chips at once.

A bootstrap varies the weight of each chip, so every score is a function of weights (resample, chip); a row of ones
gives the plain score, which equals that of scikit-learn.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from torchgeo_msssl.errors import ConfigurationError

Metric = Literal['accuracy', 'balanced_accuracy', 'precision', 'recall', 'f1', 'average_precision']
Average = Literal['micro', 'macro', 'weighted']

#: Scores that are means over classes, and so depend on the kind of mean.
_AVERAGED = ('precision', 'recall', 'f1', 'average_precision')


@dataclass(frozen=True)
class Classified:
    """Held-out chips with the scores of a probe.

    Attributes:
        labels: Class of each chip, shape (chip,), 0 to class − 1.
        scores: Scores, higher for likelier classes, shape (chip, class).
    """

    labels: NDArray[np.int64]
    scores: NDArray[np.float64]

    @property
    def predicted(self) -> NDArray[np.int64]:
        """Class with the highest score of each chip, shape (chip,); the first one of equals."""
        return self.scores.argmax(axis=1)

    @property
    def confusion(self) -> NDArray[np.int64]:
        """Counts (label, prediction)."""
        count = self.scores.shape[1]
        return np.bincount(self.labels * count + self.predicted, minlength=count**2).reshape(count, count)


def metric_name(metric: str, average: Average = 'macro', top_k: int = 1) -> str:
    """Name a score in tables.

    Args:
        metric: One of :data:`Metric`.
        average: Kind of mean over classes, for scores that are one.
        top_k: For accuracy: a chip is correct if its class is among this many.

    Returns:
        Such as ``accuracy``, ``top2_accuracy``, ``f1_macro``.

    Raises:
        ConfigurationError: If there is no such score.
    """
    if metric not in get_args(Metric) or average not in get_args(Average):
        msg = (
            f'metric, average: expected one of {", ".join(get_args(Metric))} and one of {", ".join(get_args(Average))}'
            f', got {metric} and {average}.'
        )
        raise ConfigurationError(msg)
    if metric in _AVERAGED:
        return f'{metric}_{average}'
    return f'top{top_k}_{metric}' if top_k > 1 and metric == 'accuracy' else metric


def score(
    found: Classified,
    metric: str,
    weights: NDArray[np.float64] | None = None,
    average: Average = 'macro',
    top_k: int = 1,
) -> NDArray[np.float64]:
    """Compute a score for each weighting of the chips.

    Classes without weight in a resample are excluded from the mean over classes.

    Args:
        found: The chips.
        metric: One of :data:`Metric`.
        weights: Weight of each chip, shape (resample, chip); None for one row of ones.
        average: Kind of mean over classes: ``micro`` counts chips, ``macro`` classes, ``weighted`` classes by their
            chips.
        top_k: For accuracy: a chip is correct if its class is among this many.

    Returns:
        Shape (resample,).

    Raises:
        ConfigurationError: If there is no such score.
    """
    metric_name(metric, average, top_k)  # raises for unknown names
    weights = np.ones((1, len(found.labels))) if weights is None else weights
    if metric == 'average_precision':
        return _average_precision(found, weights, average)
    if metric == 'accuracy':
        return weights @ _among(found, top_k) / weights.sum(axis=1)
    count = found.scores.shape[1]
    pairs = np.eye(count**2)[found.labels * count + found.predicted]
    return _from_confusion((weights @ pairs).reshape(-1, count, count), metric, average)


def _among(found: Classified, top_k: int) -> NDArray[np.float64]:
    """Whether the class of each chip is among the ``top_k`` with the highest scores."""
    own = found.scores[np.arange(len(found.labels)), found.labels][:, None]
    earlier = np.arange(found.scores.shape[1]) < found.labels[:, None]  # of equal scores the first class comes first
    before = (found.scores > own) | ((found.scores == own) & earlier)
    return (before.sum(axis=1) < top_k).astype(np.float64)


def _from_confusion(counts: NDArray[np.float64], metric: str, average: Average) -> NDArray[np.float64]:
    """A score of each matrix (resample, label, prediction)."""
    right, labelled, guessed = np.einsum('rcc->rc', counts), counts.sum(axis=2), counts.sum(axis=1)
    if metric == 'balanced_accuracy':
        return _mean(_divide(right, labelled), labelled > 0)
    quotients = {
        'precision': (right, guessed),
        'recall': (right, labelled),
        'f1': (2 * right, labelled + guessed),
    }
    above, below = quotients[metric]
    if average == 'micro':
        return above.sum(axis=1) / below.sum(axis=1)
    values = _divide(above, below)
    if average == 'weighted':
        return (values * labelled).sum(axis=1) / labelled.sum(axis=1)
    return _mean(values, labelled + guessed > 0)


def _average_precision(found: Classified, weights: NDArray[np.float64], average: Average) -> NDArray[np.float64]:
    truth = np.eye(found.scores.shape[1])[found.labels]
    if average == 'micro':
        return _one_precision(truth.ravel(), found.scores.ravel(), np.repeat(weights, truth.shape[1], axis=1))
    values = np.stack([_one_precision(truth[:, c], found.scores[:, c], weights) for c in range(truth.shape[1])], axis=1)
    support = weights @ truth
    if average == 'weighted':
        return (values * support).sum(axis=1) / support.sum(axis=1)
    return _mean(values, support > 0)


def _one_precision(
    truth: NDArray[np.float64], scores: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Σ (R_n − R_n₋₁) P_n over the different thresholds n, from the highest one down."""
    order = np.argsort(-scores, kind='stable')
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # the last of equal scores
    hits = (weights * truth)[:, order].cumsum(axis=1)[:, last]
    taken = weights[:, order].cumsum(axis=1)[:, last]
    steps = np.diff(hits, axis=1, prepend=0)
    return _divide((steps * _divide(hits, taken)).sum(axis=1), hits[:, -1])


def _divide(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    """Quotients, 0 for 0 / 0."""
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def _mean(values: NDArray[np.float64], counted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean over the classes that count, shape (resample,)."""
    return np.where(counted, values, 0).sum(axis=1) / counted.sum(axis=1)
