"""Probes of frozen features."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.evaluation.probe_settings import STRENGTHS, Distance
from torchgeo_msssl.evaluation.scores import Classified, score

#: Folds of groups on which the strength of the regularization is chosen.
_FOLDS = 5


@dataclass(frozen=True)
class ProbeResult:
    """Scores of a probe on held-out chips.

    Attributes:
        accuracy: Fraction of correctly classified chips.
        balanced_accuracy: Mean over classes of that fraction.
        chance: Accuracy of the best constant answer, the fraction of the most frequent test class.
    """

    accuracy: float
    balanced_accuracy: float
    chance: float


@dataclass(frozen=True)
class ClassScores:
    """Scores of a probe by class.

    Attributes:
        classes: Classes of the training vectors in rising order, shape (class,).
        values: Scores, higher for likelier classes, shape (m, class).
    """

    classes: NDArray[np.int64]
    values: NDArray[np.float64]


def knn_scores(
    train_features: NDArray[np.floating],
    train_labels: NDArray[np.integer],
    test_features: NDArray[np.floating],
    k: int = 5,
    temperature: float | None = None,
    distance: Distance = 'cosine',
) -> ClassScores:
    """Classify test vectors by a vote of their k nearest training vectors.

    With a temperature τ, a neighbour at distance d has exp(−d / τ) votes. With cosine distance these equal, up to a
    factor that all neighbours of a vector share, the exp(similarity / τ) of Wu et al. 2018
    (https://arxiv.org/abs/1805.01978) and DINO (https://arxiv.org/abs/2104.14294), who use τ = 0.07.

    Args:
        train_features: Shape (n, features).
        train_labels: Shape (n,).
        test_features: Shape (m, features).
        k: Number of neighbours, at most n.
        temperature: τ, above 0; None for equal votes.
        distance: ``cosine`` or ``euclidean``.

    Returns:
        Fractions of the votes.

    Raises:
        ConfigurationError: If there are fewer training vectors than neighbours, no test vector, or the temperature is
            not above 0.
    """
    if not 1 <= k <= len(train_labels) or len(test_features) == 0:
        chips = f'{len(train_labels)} training chips, with {len(test_features)} test chips'
        msg = f'k: expected 1 to the {chips}, got {k}.'
        raise ConfigurationError(msg)
    if temperature is not None and not temperature > 0:
        raise ConfigurationError(f'temperature: expected a number above 0, or null for equal votes, got {temperature}.')
    weights = 'uniform' if temperature is None else partial(_votes, temperature=temperature)
    classifier = KNeighborsClassifier(n_neighbors=k, metric=distance, algorithm='brute', weights=weights)
    shares = classifier.fit(train_features, train_labels).predict_proba(test_features)
    return ClassScores(classifier.classes_, shares)


def standardized(
    train_features: NDArray[np.floating], test_features: NDArray[np.floating]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Give every feature mean 0 and standard deviation 1 over the training vectors.

    Args:
        train_features: Shape (n, features).
        test_features: Shape (m, features).

    Returns:
        Both, with the mean and the standard deviation of the first; constant features become 0.
    """
    mean, spread = train_features.mean(axis=0), train_features.std(axis=0)
    scale = np.where(spread > 0, spread, np.inf)
    return ((train_features - mean) / scale).astype(np.float32), ((test_features - mean) / scale).astype(np.float32)


def linear_scores(
    train_features: NDArray[np.floating],
    train_labels: NDArray[np.integer],
    test_features: NDArray[np.floating],
    strengths: Sequence[float] = STRENGTHS,
    groups: NDArray[np.integer] | None = None,
) -> ClassScores:
    """Classify by logistic regression on standardized features, fitted with L-BFGS.

    The regularization strength is the one with the highest accuracy on held-out training vectors, and the strongest of
    equals: by five-fold cross-validation over the groups if they are given, otherwise on a random fifth, stratified by
    class. The final fit uses all of them. If there are too few vectors for that, scikit-learn's default of 1 is used.

    Args:
        train_features: Shape (n, features).
        train_labels: Shape (n,), two classes or more.
        test_features: Shape (m, features).
        strengths: Inverse regularization strengths to choose from, scikit-learn's ``C``.
        groups: Group of each training vector, such as its ground block, shape (n,).

    Returns:
        Probabilities.

    Raises:
        ConfigurationError: If there is one class only, or no test vector.
    """
    classes = np.unique(train_labels)
    if len(classes) < 2 or len(test_features) == 0:
        msg = f'labels: expected at least 2 classes and 1 test chip, got {len(classes)} and {len(test_features)}.'
        raise ConfigurationError(msg)
    folds, chosen = _validation_folds(train_labels, groups), 1.0
    if folds:

        def correct(strength: float) -> int:
            count = 0
            for fitted, held in folds:
                model = _logistic(strength).fit(train_features[fitted], train_labels[fitted])
                count += int((model.predict(train_features[held]) == train_labels[held]).sum())
            return count

        chosen = max(sorted(strengths), key=correct)
    model = _logistic(chosen).fit(train_features, train_labels)
    return ClassScores(model.classes_, model.predict_proba(test_features))


def knn_probe(
    train_features: NDArray[np.floating],
    train_labels: NDArray[np.integer],
    test_features: NDArray[np.floating],
    test_labels: NDArray[np.integer],
    k: int = 5,
    temperature: float | None = None,
    distance: Distance = 'cosine',
) -> ProbeResult:
    """Classify each test vector by its k nearest training vectors, see :func:`knn_scores`.

    Returns:
        Scores on the test vectors.

    Raises:
        ConfigurationError: If there are fewer training vectors than neighbours, or no test vector.
    """
    return _result(knn_scores(train_features, train_labels, test_features, k, temperature, distance), test_labels)


def linear_probe(
    train_features: NDArray[np.floating],
    train_labels: NDArray[np.integer],
    test_features: NDArray[np.floating],
    test_labels: NDArray[np.integer],
    strengths: Sequence[float] = STRENGTHS,
    groups: NDArray[np.integer] | None = None,
) -> ProbeResult:
    """Classify by logistic regression on standardized features, see :func:`linear_scores`.

    Returns:
        Scores on the test vectors.

    Raises:
        ConfigurationError: If there is one class only, or no test vector.
    """
    return _result(linear_scores(train_features, train_labels, test_features, strengths, groups), test_labels)


def classified(found: ClassScores, test_labels: NDArray[np.integer]) -> Classified:
    """Join scores with labels, with a column for every class of either.

    Args:
        found: Scores of the test vectors.
        test_labels: Their classes, shape (m,).

    Returns:
        Labels and scores by the position of the class among all classes; classes without training vectors score 0.
    """
    every = np.union1d(found.classes, test_labels)
    scores = np.zeros((len(test_labels), len(every)))
    scores[:, np.searchsorted(every, found.classes)] = found.values
    return Classified(np.searchsorted(every, test_labels), scores)


def _votes(distances: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    # the nearest neighbour has one vote, because exp(−d / τ) may underflow
    return np.exp((distances.min(axis=1, keepdims=True) - distances) / temperature)


def _validation_folds(
    labels: NDArray[np.integer], groups: NDArray[np.integer] | None
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Indices of the vectors to fit on and to validate on, for each fold; none if there are too few."""
    if groups is not None and len(np.unique(groups)) >= _FOLDS:
        # one fold of few blocks may hold one class only, for which any strength is good enough
        splitter = GroupKFold(_FOLDS, shuffle=True, random_state=0)
        folds = [(fitted, held) for fitted, held in splitter.split(labels, groups=groups)]
        folds = [fold for fold in folds if len(np.unique(labels[fold[0]])) >= 2]
        if folds:
            return folds
    classes, counts = np.unique(labels, return_counts=True)
    # a class with a single vector can be on one side only
    both = np.isin(labels, classes[counts > 1])
    several = int((counts > 1).sum())
    if several < 2 or int(0.2 * both.sum()) < several:
        return []
    fitted, held = train_test_split(np.flatnonzero(both), test_size=0.2, stratify=labels[both], random_state=0)
    return [(fitted, held)]


def _logistic(strength: float) -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=3000))


def _result(found: ClassScores, test_labels: NDArray[np.integer]) -> ProbeResult:
    chips = classified(found, test_labels)
    return ProbeResult(
        accuracy=float(score(chips, 'accuracy')[0]),
        balanced_accuracy=float(score(chips, 'balanced_accuracy')[0]),
        chance=float(np.unique(test_labels, return_counts=True)[1].max() / len(test_labels)),
    )
