"""Pixel classifiers: probabilities of scikit-learn, saved and loaded; samples of a stream."""

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from torchgeo_msssl.models.pixel_classifiers import ForestClassifier, LogisticClassifier, create_classifier
from torchgeo_msssl.models.pixel_reservoir import PixelReservoir, PixelSample


def make_sample(classes: list[int], size: int = 400, features: int = 6) -> PixelSample:
    rng = np.random.default_rng(0)
    labels = rng.choice(classes, size)
    vectors = (rng.normal(size=(size, features)) * [1, 10, 0.1, 1, 1, 1] + labels[:, None]).astype(np.float32)
    weights = rng.uniform(0.5, 2, size)
    return PixelSample(vectors, labels, weights, np.bincount(labels, minlength=5))


@pytest.mark.parametrize('classes', [[0, 1], [1, 3], [0, 1, 2, 4]])
def test_logistic_regression_is_scikit_learns(classes: list[int]) -> None:
    sample = make_sample(classes)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.5, max_iter=500))
    model.fit(sample.features.astype(np.float64), sample.labels, logisticregression__sample_weight=sample.weights)
    own = LogisticClassifier(6, 5, inverse_regularization=0.5)
    own.fit(sample)
    found = own(torch.from_numpy(sample.features)).numpy()
    np.testing.assert_allclose(found[:, classes], model.predict_proba(sample.features), atol=1e-6)
    assert (np.delete(found, classes, axis=1) == 0).all()


@pytest.mark.parametrize('classes', [[0, 1], [0, 1, 2, 4]])
def test_the_forest_is_scikit_learns(classes: list[int]) -> None:
    sample = make_sample(classes)
    model = RandomForestClassifier(7, max_depth=5, random_state=0).fit(sample.features, sample.labels)
    own = ForestClassifier(6, 5)
    own.convert(model)
    # also values on the thresholds, where the comparison decides
    tree = model.estimators_[0].tree_
    edges = np.repeat(sample.features[:1], tree.node_count, axis=0)
    edges[np.arange(tree.node_count), tree.feature.clip(0)] = tree.threshold
    vectors = np.concatenate([sample.features, edges])
    found = own(torch.from_numpy(vectors)).numpy()
    np.testing.assert_allclose(found[:, classes], model.predict_proba(vectors), atol=1e-6)
    assert (np.delete(found, classes, axis=1) == 0).all()


@pytest.mark.parametrize('name', ['logistic', 'forest'])
def test_a_fitted_classifier_is_saved_and_loaded(name: str) -> None:
    sample = make_sample([0, 1, 2])
    vectors = torch.from_numpy(sample.features)
    fitted, loaded = (create_classifier(name, count, 5) for count in (6, 2))  # type: ignore[arg-type]
    torch.testing.assert_close(fitted(vectors), torch.full((400, 5), 0.2))
    fitted.fit(sample)
    accuracy = (fitted(vectors).argmax(dim=1).numpy() == sample.labels).mean()
    assert accuracy > 0.7
    loaded.load_state_dict(fitted.state_dict())
    assert torch.equal(loaded(vectors), fitted(vectors))
    assert not list(fitted.parameters())


def test_a_reservoir_keeps_a_uniform_sample_of_each_class() -> None:
    labels = torch.tensor([0] * 600 + [1] * 100 + [255] * 100).reshape(1, 20, 40)
    features = torch.arange(800.0).reshape(1, 1, 20, 40)
    taken = np.zeros(600)
    for seed in range(200):
        reservoir = PixelReservoir(3, 150, seed)
        for half in (slice(0, 10), slice(10, 20)):
            reservoir.add(features[:, :, half], labels[:, half])
        sample = reservoir.sample()
        assert sample.counts.tolist() == [600, 100, 0]
        assert np.bincount(sample.labels).tolist() == [50, 50]
        np.testing.assert_allclose(sample.weights[[0, -1]], [12 / 7, 2 / 7])
        assert (sample.features[sample.labels == 1] >= 600).all()
        taken[sample.features[sample.labels == 0, 0].astype(int)] += 1
    # 200 draws of 50 of 600: each pixel 16.7 times, with a standard deviation of 3.9
    assert taken.min() > 3
    assert taken.max() < 36
    assert abs(taken[:400].mean() - taken[400:].mean()) < 1


def test_a_reservoir_depends_on_its_seed_alone() -> None:
    def draw(seed: int) -> np.ndarray:
        reservoir = PixelReservoir(2, 20, seed)
        reservoir.add(torch.arange(200.0).reshape(1, 1, 10, 20), torch.arange(200).reshape(1, 10, 20) % 2)
        return reservoir.sample().features

    assert np.array_equal(draw(1), draw(1))
    assert not np.array_equal(draw(1), draw(2))
