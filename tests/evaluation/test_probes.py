"""Probes against scikit-learn's classifiers and known features."""

from itertools import batched
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.evaluation import probes
from torchgeo_msssl.evaluation.features import band_statistics
from torchgeo_msssl.evaluation.probes import classified, knn_probe, knn_scores, linear_probe, linear_scores


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


@pytest.mark.parametrize('distance', ['cosine', 'euclidean'])
def test_equal_votes_are_scikit_learns(distance: str) -> None:
    rng = np.random.default_rng(1)
    train, labels = blobs(rng, 300, 0.6)
    test, test_labels = blobs(rng, 200, 0.6)
    neighbours = KNeighborsClassifier(7, metric=distance).fit(train, labels)
    found = knn_scores(train, labels, test, 7, distance=distance)  # type: ignore[arg-type]
    np.testing.assert_array_equal(found.values, neighbours.predict_proba(test))
    accuracy = knn_probe(train, labels, test, test_labels, 7, distance=distance).accuracy  # type: ignore[arg-type]
    assert accuracy == neighbours.score(test, test_labels)


def test_weighted_votes_are_those_of_dino() -> None:
    """Transcribed from eval_knn.py of https://github.com/facebookresearch/dino."""
    rng = np.random.default_rng(4)
    train, labels = blobs(rng, 150, 0.5)
    test, test_labels = blobs(rng, 60, 0.5)
    k, temperature = 20, 0.07
    unit = [torch.nn.functional.normalize(torch.from_numpy(x), dim=1) for x in (train, test)]
    similarity, indices = (unit[1] @ unit[0].T).topk(k, largest=True, sorted=True)
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(labels)[indices], 3)
    votes = (one_hot * similarity.div(temperature).exp()[..., None]).sum(dim=1)
    found = knn_scores(train, labels, test, k, temperature)
    np.testing.assert_allclose(found.values, (votes / votes.sum(dim=1, keepdim=True)).numpy(), rtol=1e-9)
    result = knn_probe(train, labels, test, test_labels, k, temperature)
    assert result.accuracy == (votes.argmax(dim=1).numpy() == test_labels).mean()
    # as the temperature falls the nearest neighbour alone decides, and nothing underflows
    coldest = knn_scores(train, labels, test, k, 1e-6)
    np.testing.assert_array_equal(coldest.values.argmax(1), knn_scores(train, labels, test, 1).values.argmax(1))


def test_temperature_is_above_zero() -> None:
    with pytest.raises(ConfigurationError, match='temperature'):
        knn_scores(np.eye(3), np.arange(3), np.eye(3), 1, 0.0)


def test_a_class_that_was_not_learnt_is_never_found() -> None:
    found = classified(knn_scores(np.eye(3)[:2], np.array([1, 4]), np.eye(3), 1), np.array([1, 4, 3]))
    assert found.labels.tolist() == [0, 2, 1]  # of the classes 1, 3, 4
    assert found.scores[:, 1].tolist() == [0, 0, 0]


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


def test_probabilities_are_scikit_learns() -> None:
    rng = np.random.default_rng(2)
    train, labels = blobs(rng, 300, 0.6)
    test, _ = blobs(rng, 200, 0.6)
    mean, std = train.mean(axis=0), train.std(axis=0)
    model = LogisticRegression(C=0.1, max_iter=3000).fit((train - mean) / std, labels)
    found = linear_scores(train, labels, test, strengths=(0.1,))
    np.testing.assert_allclose(found.values, model.predict_proba((test - mean) / std), atol=1e-6)


def test_regularisation_is_chosen_by_cross_validation_over_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every fit of the choice sees some blocks whole and is scored on the others, each once; the last one sees all."""
    blocks = np.repeat(np.arange(10), 6)
    labels = np.tile([0, 1], 30)
    features = np.stack([labels + 0.1 * blocks, blocks], axis=1).astype(float)  # the second column tells the block
    seen: list[set[float]] = []

    class Spy(Pipeline):
        def fit(self, x: np.ndarray, y: np.ndarray) -> Any:
            seen.append(set(x[:, 1].tolist()))
            return super().fit(x, y)

        def predict(self, x: np.ndarray) -> Any:
            seen.append(set(x[:, 1].tolist()))
            return super().predict(x)

    logistic = probes._logistic
    monkeypatch.setattr(probes, '_logistic', lambda strength: Spy(logistic(strength).steps))
    linear_scores(features, labels, features, (0.1, 1.0), groups=blocks)
    *folds, last = seen
    assert len(folds) == 2 * 2 * 5
    assert all(fitted | held == set(range(10)) and not fitted & held for fitted, held in batched(folds, 2))
    assert sorted(block for held in folds[1:10:2] for block in held) == list(range(10))
    assert last == set(range(10))


def test_a_strength_is_not_chosen_on_blocks_of_one_class() -> None:
    """Blocks of one class each: a single held-out block is classified best by a constant."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 0, 0, 0, 1, 1], 10)
    features = labels[:, None] + rng.normal(0, 0.1, (60, 4))
    found = linear_scores(features, labels, features, (1e-6, 1.0), groups=np.repeat(np.arange(6), 10))
    assert (found.classes[found.values.argmax(axis=1)] == labels).all()


@pytest.mark.parametrize('counts', [(3,) * 14, (1, 5), (1, 1, 1), (2, 2)])
def test_linear_probe_with_few_labels(counts: tuple[int, ...]) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    features = np.eye(len(counts))[labels]
    assert linear_probe(features, labels, features, labels).accuracy == 1.0


def test_linear_probe_needs_two_classes() -> None:
    with pytest.raises(ConfigurationError, match='at least 2 classes'):
        linear_probe(np.eye(3), np.zeros(3, int), np.eye(3), np.zeros(3, int))
