"""Probes of frozen features."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from torchgeo_msssl.errors import ConfigurationError


@dataclass(frozen=True)
class ProbeResult:
    """Scores of a probe on held-out chips.

    Attributes:
        accuracy: Share of chips whose class was found.
        balanced_accuracy: Mean over classes of that share.
        chance: Accuracy of the best constant answer, the share of the most frequent test class.
    """

    accuracy: float
    balanced_accuracy: float
    chance: float


def knn_probe(
    train_features: NDArray[np.floating],
    train_labels: NDArray[np.integer],
    test_features: NDArray[np.floating],
    test_labels: NDArray[np.integer],
    k: int = 5,
) -> ProbeResult:
    """Classify each test vector by its k nearest training vectors (cosine distance, equal votes).

    Args:
        train_features: Shape (n, features).
        train_labels: Shape (n,).
        test_features: Shape (m, features).
        test_labels: Shape (m,).
        k: Neighbours, at most n.

    Returns:
        Scores on the test vectors.

    Raises:
        ConfigurationError: If there are fewer training vectors than neighbours, or nothing to test.
    """
    if not 1 <= k <= len(train_labels) or len(test_labels) == 0:
        msg = f'k: expected 1 to the {len(train_labels)} training chips with {len(test_labels)} to test, got k={k}.'
        raise ConfigurationError(msg)
    classifier = KNeighborsClassifier(n_neighbors=k, metric='cosine', algorithm='brute')
    return _scores(classifier.fit(train_features, train_labels).predict(test_features), test_labels)


def linear_probe(
    train_features: NDArray[np.floating],
    train_labels: NDArray[np.integer],
    test_features: NDArray[np.floating],
    test_labels: NDArray[np.integer],
    strengths: Sequence[float] = (1e-3, 1e-2, 1e-1, 1.0, 10.0),
) -> ProbeResult:
    """Classify by logistic regression on standardised features, fitted with L-BFGS.

    The strength of the regularisation is chosen on a fifth of the training vectors, stratified by class; the final fit
    is on all of them. Where classes have too few vectors for that, scikit-learn's default strength of 1 is taken.

    Args:
        train_features: Shape (n, features).
        train_labels: Shape (n,), two classes or more.
        test_features: Shape (m, features).
        test_labels: Shape (m,).
        strengths: Inverse strengths of the regularisation to choose from, scikit-learn's ``C``.

    Returns:
        Scores on the test vectors.

    Raises:
        ConfigurationError: If there is one class only, or nothing to test.
    """
    classes, counts = np.unique(train_labels, return_counts=True)
    if len(classes) < 2 or len(test_labels) == 0:
        msg = f'labels: expected 2 classes or more and chips to test, got {len(classes)} and {len(test_labels)}.'
        raise ConfigurationError(msg)
    # a class with one chip can be on one side only
    both = np.isin(train_labels, classes[counts > 1])
    several = int((counts > 1).sum())
    if several < 2 or int(0.2 * both.sum()) < several:
        return _scores(_logistic(1.0).fit(train_features, train_labels).predict(test_features), test_labels)
    fitted, held = train_test_split(
        np.flatnonzero(both), test_size=0.2, stratify=train_labels[both], random_state=0
    )  # fmt: skip
    chosen = max(
        strengths,
        key=lambda c: _logistic(c).fit(train_features[fitted], train_labels[fitted]).score(
            train_features[held], train_labels[held]
        ),
    )  # fmt: skip
    return _scores(_logistic(chosen).fit(train_features, train_labels).predict(test_features), test_labels)


def _logistic(strength: float) -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=500))


def _scores(predicted: NDArray[np.integer], test_labels: NDArray[np.integer]) -> ProbeResult:
    return ProbeResult(
        accuracy=float(accuracy_score(test_labels, predicted)),
        balanced_accuracy=float(balanced_accuracy_score(test_labels, predicted)),
        chance=float(np.unique(test_labels, return_counts=True)[1].max() / len(test_labels)),
    )
