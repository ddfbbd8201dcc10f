"""The kNN probe against scikit-learn's classifier and known features."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.evaluation import band_statistics, knn_probe


def blobs(rng: np.random.Generator, n: int, spread: float) -> tuple[np.ndarray, np.ndarray]:
    labels = rng.integers(0, 3, n)
    return np.eye(3)[labels] + spread * rng.standard_normal((n, 3)), labels


def test_separable_blobs_are_found() -> None:
    rng = np.random.default_rng(0)
    result = knn_probe(*blobs(rng, 200, 0.01), *blobs(rng, 100, 0.01))
    assert result.accuracy == result.balanced_accuracy == 1.0


def test_shuffled_labels_are_at_chance() -> None:
    rng = np.random.default_rng(0)
    train, labels = blobs(rng, 600, 0.3)
    test, test_labels = blobs(rng, 600, 0.3)
    result = knn_probe(train, rng.permutation(labels), test, rng.permutation(test_labels))
    assert result.accuracy == pytest.approx(1 / 3, abs=0.07)
    assert result.chance == pytest.approx(1 / 3, abs=0.07)


def test_equals_scikit_learn_on_unit_vectors() -> None:
    rng = np.random.default_rng(1)
    train, labels = blobs(rng, 300, 0.6)
    test, test_labels = blobs(rng, 200, 0.6)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (train, test)]
    # on unit vectors the order of Euclidean distances is that of cosines
    expected = KNeighborsClassifier(7).fit(unit[0], labels).score(unit[1], test_labels)
    assert knn_probe(train, labels, test, test_labels, k=7).accuracy == expected


def test_more_neighbours_than_chips_is_refused() -> None:
    with pytest.raises(ConfigurationError, match='k: expected 1 to the 3'):
        knn_probe(np.eye(3), np.arange(3), np.eye(3), np.arange(3), k=4)


def test_band_statistics() -> None:
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert band_statistics(image).tolist() == [[7.5, pytest.approx(np.arange(16).std(ddof=1))]]


def test_chance_is_the_best_constant_answer() -> None:
    test_labels = np.array([0, 1, 1, 1])
    result = knn_probe(np.eye(3), np.arange(3), np.eye(3)[test_labels], test_labels, k=1)
    assert result.chance == 0.75
    assert result.accuracy == 1
