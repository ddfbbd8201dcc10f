"""Probes against scikit-learn's classifiers and known features."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.evaluation import band_statistics, knn_probe, linear_probe


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


def test_linear_probe_finds_what_is_separable_and_nothing_in_noise() -> None:
    rng = np.random.default_rng(0)
    assert linear_probe(*blobs(rng, 200, 0.01), *blobs(rng, 100, 0.01)).accuracy == 1.0
    train, labels = blobs(rng, 600, 0.3)
    test, test_labels = blobs(rng, 600, 0.3)
    shuffled = linear_probe(train, rng.permutation(labels), test, rng.permutation(test_labels))
    assert shuffled.accuracy == pytest.approx(1 / 3, abs=0.07)


def test_linear_probe_is_scikit_learns_logistic_regression() -> None:
    rng = np.random.default_rng(2)
    train, labels = blobs(rng, 300, 0.6)
    test, test_labels = blobs(rng, 200, 0.6)
    mean, std = train.mean(axis=0), train.std(axis=0)
    expected = LogisticRegression(C=0.1).fit((train - mean) / std, labels).score((test - mean) / std, test_labels)
    assert linear_probe(train, labels, test, test_labels, strengths=(0.1,)).accuracy == expected


def test_regularisation_is_chosen_on_training_chips() -> None:
    """Hundreds of useless features: the strong one is better, and the test labels have no say."""
    rng = np.random.default_rng(3)
    (train, labels), (test, test_labels) = blobs(rng, 90, 0.7), blobs(rng, 300, 0.7)
    train, test = (np.hstack([x, rng.standard_normal((len(x), 400))]) for x in (train, test))
    scores = {c: linear_probe(train, labels, test, test_labels, strengths=(c,)).accuracy for c in (1e-4, 1e-2, 10.0)}
    assert linear_probe(train, labels, test, test_labels, strengths=(1e-4, 1e-2, 10.0)).accuracy in scores.values()
    labels_of_one = np.append(labels, 7)  # a class with one chip takes no part in the choice
    assert linear_probe(np.vstack([train, train[:1]]), labels_of_one, test, test_labels).accuracy > 1 / 3


@pytest.mark.parametrize('counts', [(3,) * 14, (1, 5), (1, 1, 1), (2, 2)])
def test_linear_probe_with_few_labels(counts: tuple[int, ...]) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    features = np.eye(len(counts))[labels]
    assert linear_probe(features, labels, features, labels).accuracy == 1.0


def test_linear_probe_needs_two_classes() -> None:
    with pytest.raises(ConfigurationError, match='2 classes or more'):
        linear_probe(np.eye(3), np.zeros(3, int), np.eye(3), np.zeros(3, int))
