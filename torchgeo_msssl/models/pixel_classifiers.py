"""Classifiers of feature vectors that scikit-learn fits and torch applies.

All parameters are buffers, so that a fitted classifier is saved and loaded like any other module.
"""

from abc import ABC, abstractmethod
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from torchgeo_msssl.models.pixel_reservoir import PixelSample

__all__ = ('ClassifierName', 'ForestClassifier', 'LogisticClassifier', 'PixelClassifier', 'create_classifier')

ClassifierName = Literal['logistic', 'forest']

#: Iterations of L-BFGS; it converges in far fewer on standardized features.
_ITERATIONS = 500
#: Vectors that a forest classifies at a time: as many as fit into the cache of a processor.
_CHUNK = 2**15
#: Options of the forest: enough trees for stable probabilities, and leaves that do not hold single pixels.
_TREES, _DEPTH, _LEAF = 50, 12, 5


class PixelClassifier(nn.Module, ABC):
    """A classifier from feature vectors to probabilities; before it is fitted, all classes are equally probable."""

    def __init__(self, num_features: int, num_classes: int) -> None:
        """Start without knowledge.

        Args:
            num_features: Number of features.
            num_classes: Number of classes.
        """
        super().__init__()
        self.num_classes = num_classes
        self.reset(num_features)

    @abstractmethod
    def reset(self, num_features: int) -> None:
        """Make all classes equally probable.

        Args:
            num_features: Number of features.
        """

    @abstractmethod
    def fit(self, sample: PixelSample, seed: int = 0) -> None:
        """Fit the classifier.

        Args:
            sample: Feature vectors of two classes or more; a class without any has the probability 0.
            seed: Seed of everything random.
        """

    @abstractmethod
    def forward(self, features: Tensor) -> Tensor:
        """Compute probabilities.

        Args:
            features: (vector, feature).

        Returns:
            Probabilities (vector, class).
        """

    def _set(self, **buffers: NDArray[Any] | Tensor) -> None:
        device = next((buffer.device for buffer in self.buffers()), None)
        for name, value in buffers.items():
            tensor = torch.as_tensor(value, device=device)
            self.register_buffer(name, tensor.float() if tensor.is_floating_point() else tensor)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        """Allocate buffers of the size that the state has, which depends on the fit."""
        for name, buffer in list(self.named_buffers(recurse=False)):
            saved = state_dict.get(prefix + name)
            if saved is not None:
                self.register_buffer(name, buffer.new_empty(saved.shape))
        super()._load_from_state_dict(state_dict, prefix, *arguments)


class LogisticClassifier(PixelClassifier):
    """Multinomial logistic regression on standardized features.

    Attributes:
        mean: Mean of each feature, (feature,).
        scale: Standard deviation of each feature, (feature,).
        weight: Coefficients, (class, feature).
        bias: Intercepts, (class,); minus infinity for a class without feature vectors.
    """

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, num_features: int, num_classes: int, inverse_regularization: float = 0.01) -> None:
        """Start without knowledge.

        Args:
            num_features: Number of features.
            num_classes: Number of classes.
            inverse_regularization: scikit-learn's ``C``: smaller values give smoother classifiers.
        """
        self.inverse_regularization = inverse_regularization
        super().__init__(num_features, num_classes)

    def reset(self, num_features: int) -> None:
        """Make all classes equally probable."""
        self._set(
            mean=torch.zeros(num_features),
            scale=torch.ones(num_features),
            weight=torch.zeros(self.num_classes, num_features),
            bias=torch.zeros(self.num_classes),
        )

    def fit(self, sample: PixelSample, seed: int = 0) -> None:
        """Fit with L-BFGS, which is deterministic."""
        vectors = sample.features.astype(np.float64)
        mean, scale = vectors.mean(axis=0), vectors.std(axis=0)
        scale[scale < 1e-6] = 1.0  # a constant feature
        model = LogisticRegression(C=self.inverse_regularization, max_iter=_ITERATIONS)
        model.fit((vectors - mean) / scale, sample.labels, sample_weight=sample.weights)
        coefficients, intercepts = model.coef_, model.intercept_
        if len(model.classes_) == 2:  # one row stands for both
            coefficients, intercepts = (np.concatenate([0 * one, one]) for one in (coefficients, intercepts))
        weight, bias = np.zeros((self.num_classes, len(mean))), np.full(self.num_classes, -np.inf)
        weight[model.classes_], bias[model.classes_] = coefficients, intercepts
        self._set(mean=mean, scale=scale, weight=weight, bias=bias)

    def forward(self, features: Tensor) -> Tensor:
        """Compute probabilities (vector, class) of features (vector, feature)."""
        scores = ((features - self.mean) / self.scale) @ self.weight.T + self.bias
        return scores.softmax(dim=1)


class ForestClassifier(PixelClassifier):
    """Random forest (Breiman 2001, https://doi.org/10.1023/A:1010933404324).

    The nodes of all trees follow each other. A leaf is its own child, so that every vector takes the same number of
    steps.

    Attributes:
        roots: Root of each tree, (tree,).
        depth: Steps from the root to the deepest leaf, ().
        feature: Feature that a node compares, (node,).
        threshold: Vectors up to this value continue to the left, (node,).
        branches: Left and right child of a node, (node, 2).
        value: Probabilities at a node, (node, class).
    """

    roots: Tensor
    depth: Tensor
    feature: Tensor
    threshold: Tensor
    branches: Tensor
    value: Tensor

    def reset(self, num_features: int) -> None:
        """Make all classes equally probable: a tree of one leaf."""
        self._set(
            roots=torch.zeros(1, dtype=torch.int64),
            depth=torch.zeros((), dtype=torch.int64),
            feature=torch.zeros(1, dtype=torch.int64),
            threshold=torch.zeros(1),
            branches=torch.zeros(1, 2, dtype=torch.int64),
            value=torch.full((1, self.num_classes), 1 / self.num_classes),
        )

    def fit(self, sample: PixelSample, seed: int = 0) -> None:
        """Grow the trees with scikit-learn, and convert them."""
        model = RandomForestClassifier(
            _TREES, max_depth=_DEPTH, min_samples_leaf=_LEAF, random_state=seed % 2**32, n_jobs=1
        )
        model.fit(sample.features, sample.labels, sample_weight=sample.weights)
        self.convert(model)

    def convert(self, model: RandomForestClassifier) -> None:
        """Take over the trees of a fitted forest, whose classes are integers below ``num_classes``."""
        trees = [estimator.tree_ for estimator in model.estimators_]
        roots = np.cumsum([0, *(tree.node_count for tree in trees[:-1])])
        children, values = [], []
        for root, tree in zip(roots, trees, strict=True):
            own = np.arange(tree.node_count)
            both = np.stack([tree.children_left, tree.children_right], axis=1)
            children.append(np.where(both < 0, own[:, None], both) + root)
            probabilities = np.zeros((tree.node_count, self.num_classes))
            counts = tree.value[:, 0]
            probabilities[:, model.classes_.astype(np.int64)] = counts / counts.sum(axis=1, keepdims=True)
            values.append(probabilities)
        self._set(
            roots=roots,
            depth=np.array(max(tree.max_depth for tree in trees)),
            feature=np.concatenate([tree.feature for tree in trees]).clip(0),
            threshold=_round_down(np.concatenate([tree.threshold for tree in trees])),
            branches=np.concatenate(children),
            value=np.concatenate(values),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Compute probabilities (vector, class) of features (vector, feature)."""
        return torch.cat([self._classify(part) for part in features.split(_CHUNK)])

    def _classify(self, features: Tensor) -> Tensor:
        total = features.new_zeros(len(features), self.num_classes)
        children = self.branches.flatten()
        for root in self.roots:
            node = root.expand(len(features))
            for _ in range(int(self.depth)):
                compared = features.gather(1, self.feature[node][:, None])[:, 0]
                node = children[2 * node + (compared > self.threshold[node])]
            total += self.value[node]
        return total / len(self.roots)


def _round_down(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Round to float32 towards minus infinity: float32 numbers compare with the result as with the value itself."""
    rounded = values.astype(np.float32)
    return np.where(rounded > values, np.nextafter(rounded, np.float32(-np.inf)), rounded)


def create_classifier(
    name: ClassifierName, num_features: int, num_classes: int, inverse_regularization: float = 0.01
) -> PixelClassifier:
    """Create a classifier.

    Args:
        name: ``logistic`` or ``forest``.
        num_features: Number of features.
        num_classes: Number of classes.
        inverse_regularization: Option of logistic regression.

    Returns:
        The classifier, not fitted yet.
    """
    if name == 'logistic':
        return LogisticClassifier(num_features, num_classes, inverse_regularization)
    return ForestClassifier(num_features, num_classes)
