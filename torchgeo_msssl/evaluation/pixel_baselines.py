"""Classifiers of hand-made pixel features, trained and tested on the chips of a network."""

from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass
from itertools import product
from typing import cast, get_args

import torch
from torch import Tensor

from torchgeo_msssl.contract import LabelledData
from torchgeo_msssl.evaluation.baseline_names import baseline_key
from torchgeo_msssl.models.pixel_classifiers import ClassifierName, PixelClassifier, create_classifier
from torchgeo_msssl.models.pixel_reservoir import PixelReservoir
from torchgeo_msssl.tasks.confusion import confusion_matrix
from torchgeo_msssl.tasks.pixel_classification import PixelClassification
from torchgeo_msssl.tasks.pixel_network import check_classes
from torchgeo_msssl.transforms.normalize import valid_pixels
from torchgeo_msssl.transforms.texture import FeatureKind, PixelFeatures

__all__ = ('BaselineLimits', 'pixel_baselines')

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class BaselineLimits:
    """Bounds of the cost of baselines.

    Attributes:
        max_chips: Maximum number of training chips; of more, every second, third, … batch is used.
        max_pixels: Maximum number of training pixels, shared equally by the classes.
        max_test_pixels: Maximum number of test pixels, on average; of more, a random part is classified.
        seed: Seed of the choice of pixels and of the forests.
    """

    max_chips: int = 256
    max_pixels: int = 20_000
    max_test_pixels: int = 200_000
    seed: int = 0


@torch.no_grad()
def pixel_baselines(
    task: PixelClassification, data: LabelledData, limits: BaselineLimits | None = None
) -> dict[str, Tensor]:
    """Train logistic regression and random forests on the training chips of a task, and apply them to its test chips.

    Each is trained on the spectral features of pixels, and on these with texture, see
    :class:`~torchgeo_msssl.transforms.texture.PixelFeatures`. Chips are not augmented. Test chips of scenes are read
    with all pixels that features depend on, since the network has context too.

    Args:
        task: A tested task, whose normalization, labels and counts are used.
        data: Its data module.
        limits: Bounds of the cost.

    Returns:
        Counts (label, prediction) of each baseline, by the keys of :data:`.baseline_names.BASELINES`.

    Raises:
        ConfigurationError: If the training chips have labelled pixels of fewer than two classes.
    """
    limits = limits or BaselineLimits()
    features = PixelFeatures('texture', task.normalize.in_channels, data.wavelengths).to(task.device)
    features.set_statistics(task.normalize.mean, task.normalize.std)
    classifiers = _train(task, features, data, limits)
    generator = torch.Generator().manual_seed(limits.seed)
    share = limits.max_test_pixels / max(int(task.confusion.sum()), 1)
    counts = {name: torch.zeros(task.num_classes, task.num_classes, dtype=torch.int64) for name in classifiers}
    for batch in _on_device(data.region_loader('test', features.receptive_radius), task):
        for values, labels in _chips(task, features, batch):
            kept = labels.flatten().cpu() != task.ignore_index
            if share < 1:
                kept &= torch.rand(len(kept), generator=generator) < share
            places = kept.to(values.device)
            vectors, known = values[0].flatten(1).T[places], labels.flatten()[places]
            for name, (classifier, width) in classifiers.items():
                predicted = classifier(vectors[:, :width]).argmax(dim=1)
                counts[name] += confusion_matrix(predicted, known, task.num_classes, task.ignore_index).cpu()
    return counts


def _train(
    task: PixelClassification, features: PixelFeatures, data: LabelledData, limits: BaselineLimits
) -> dict[str, tuple[PixelClassifier, int]]:
    """Fit the classifiers; return each with the number of features that it uses, the first ones."""
    reservoir = PixelReservoir(task.num_classes, limits.max_pixels, limits.seed)
    for batch in _on_device(_thinned(data.region_loader('train'), data.batch_size, limits.max_chips), task):
        for values, labels in _chips(task, features, batch):
            reservoir.add(values, labels)
    sample = reservoir.sample()
    check_classes(sample, task.class_names)
    widths: dict[FeatureKind, int] = {'spectral': features.spectral_count, 'texture': features.count}
    found = {}
    for name, kind in product(get_args(ClassifierName), widths):
        classifier = create_classifier(cast(ClassifierName, name), widths[kind], task.num_classes)
        classifier.fit(sample.first_features(widths[kind]), limits.seed)
        found[baseline_key(name, kind)] = classifier.to(task.device), widths[kind]
    return found


def _thinned(batches: Iterable[Batch], batch_size: int, max_chips: int) -> Iterator[Batch]:
    """Leave batches out at equal distances until no more chips than the maximum remain."""
    count = len(batches) if isinstance(batches, Sized) else 0
    step = max(1, -(-count * batch_size // max_chips))
    yield from (batch for index, batch in enumerate(batches) if index % step == 0)


def _on_device(batches: Iterable[Batch], task: PixelClassification) -> Iterator[Batch]:
    for batch in batches:
        yield {key: value.to(task.device) for key, value in batch.items() if isinstance(value, Tensor)}


def _chips(task: PixelClassification, features: PixelFeatures, batch: Batch) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield features (1, feature, height, width) and labels (1, height, width), chip by chip to save memory."""
    labels = task.labels(batch)
    valid = valid_pixels(batch['image'], batch.get('valid')).expand(len(labels), -1, -1, -1)
    image = task.normalize(batch['image'], valid, batch.get('scale'), batch.get('offset'))
    for index in range(len(labels)):
        yield features(image[index, None], valid[index, None]), labels[index, None]
