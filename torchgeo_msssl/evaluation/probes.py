"""Probes of frozen features."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier

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
    predicted = classifier.fit(train_features, train_labels).predict(test_features)
    return ProbeResult(
        accuracy=float(accuracy_score(test_labels, predicted)),
        balanced_accuracy=float(balanced_accuracy_score(test_labels, predicted)),
        chance=float(np.unique(test_labels, return_counts=True)[1].max() / len(test_labels)),
    )
