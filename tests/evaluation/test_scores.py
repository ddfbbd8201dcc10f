"""Scores against scikit-learn's, plain and weighted."""

import numpy as np
import pytest
from sklearn import metrics

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.evaluation.scores import Classified, metric_name, score

RNG = np.random.default_rng(0)
LABELS = np.append(RNG.integers(0, 4, 200), 0)
VALUES = RNG.random((201, 4)).round(2) + 0.5 * np.eye(4)[LABELS]  # with ties
FOUND = Classified(LABELS, VALUES)
WEIGHTS = RNG.integers(0, 4, (3, 201)).astype(float)


def theirs(metric: str, average: str, weight: np.ndarray | None) -> float:
    given = {'sample_weight': weight}
    if metric == 'accuracy':
        return metrics.accuracy_score(LABELS, FOUND.predicted, **given)
    if metric == 'balanced_accuracy':
        return metrics.balanced_accuracy_score(LABELS, FOUND.predicted, **given)
    if metric == 'average_precision':
        return metrics.average_precision_score(np.eye(4)[LABELS], VALUES, average=average, **given)
    function = getattr(metrics, f'{metric}_score')
    return function(LABELS, FOUND.predicted, average=average, **given)


@pytest.mark.parametrize('average', ['micro', 'macro', 'weighted'])
@pytest.mark.parametrize('metric', ['accuracy', 'balanced_accuracy', 'precision', 'recall', 'f1', 'average_precision'])
def test_scores_are_scikit_learns(metric: str, average: str) -> None:
    assert score(FOUND, metric, average=average) == pytest.approx([theirs(metric, average, None)], rel=1e-12)
    expected = [theirs(metric, average, weight) for weight in WEIGHTS]
    assert score(FOUND, metric, WEIGHTS, average) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize('top_k', [1, 2, 3])
def test_top_k_is_scikit_learns(top_k: int) -> None:
    smooth = Classified(LABELS, VALUES + 1e-3 * RNG.random(VALUES.shape))  # it breaks ties another way
    expected = metrics.top_k_accuracy_score(LABELS, smooth.scores, k=top_k)
    assert score(smooth, 'accuracy', top_k=top_k) == pytest.approx([expected])
    assert metric_name('accuracy', top_k=top_k) == ('accuracy' if top_k == 1 else f'top{top_k}_accuracy')


def test_of_equal_scores_the_first_class_counts_everywhere() -> None:
    tied = Classified(np.array([0, 1, 2]), np.ones((3, 3)))
    assert tied.predicted.tolist() == [0, 0, 0]
    assert [score(tied, 'accuracy', top_k=k)[0] for k in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 1])


def test_confusion_is_scikit_learns() -> None:
    np.testing.assert_array_equal(FOUND.confusion, metrics.confusion_matrix(LABELS, FOUND.predicted))


def test_a_class_without_chips_takes_no_part() -> None:
    """Class 2 has no chips and no predictions."""
    found = Classified(np.array([0, 0, 1]), np.array([[2, 1, 0], [1, 2, 0], [1, 2, 0]], dtype=float))
    assert score(found, 'balanced_accuracy')[0] == 0.75
    assert score(found, 'f1')[0] == metrics.f1_score([0, 0, 1], [0, 1, 1], average='macro')
    each = [metrics.average_precision_score(found.labels == c, found.scores[:, c]) for c in (0, 1)]
    assert score(found, 'average_precision')[0] == pytest.approx(np.mean(each))


@pytest.mark.parametrize(('metric', 'average'), [('auc', 'macro'), ('f1', 'median')])
def test_what_does_not_exist_is_refused(metric: str, average: str) -> None:
    with pytest.raises(ConfigurationError, match='expected one of accuracy'):
        score(FOUND, metric, average=average)  # type: ignore[arg-type]
