"""Class-balanced samples of pixels from a stream of images, in bounded memory."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ('PixelReservoir', 'PixelSample')


@dataclass(frozen=True)
class PixelSample:
    """Feature vectors of labelled pixels.

    Attributes:
        features: float32, (pixel, feature).
        labels: Class of each pixel, (pixel,).
        weights: Weight of each pixel, 1 on average, which restores the frequencies of the classes, (pixel,).
        counts: Pixels of each class in the whole stream, (class,).
    """

    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    weights: NDArray[np.float64]
    counts: NDArray[np.int64]

    def first_features(self, count: int) -> 'PixelSample':
        """Return the same pixels with their first features only."""
        return replace(self, features=self.features[:, :count])


class PixelReservoir:
    """Uniform samples without replacement of the pixels of each class.

    Every pixel gets a random key, and of each class those with the smallest keys are kept (Efraimidis & Spirakis 2006,
    https://doi.org/10.1016/j.ipl.2005.11.003).
    """

    def __init__(self, num_classes: int, max_pixels: int, seed: int) -> None:
        """Start empty.

        Args:
            num_classes: Number of classes.
            max_pixels: Maximum number of pixels, shared equally by the classes.
            seed: Seed of the choice.
        """
        self.per_class = max(1, max_pixels // num_classes)
        self.generator = torch.Generator().manual_seed(seed)
        self.counts = np.zeros(num_classes, dtype=np.int64)
        self._keys: list[Tensor] = [torch.empty(0, dtype=torch.float64) for _ in range(num_classes)]
        self._vectors: list[Tensor | None] = [None] * num_classes

    def add(self, features: Tensor, labels: Tensor) -> None:
        """Add the pixels of images.

        Args:
            features: (batch, feature, height, width).
            labels: Classes (batch, height, width); pixels with any other value are left out.
        """
        pixels, known = features.movedim(1, -1).flatten(0, -2), labels.flatten().cpu()
        for value in range(len(self.counts)):
            positions = (known == value).nonzero()[:, 0]
            self.counts[value] += len(positions)
            keys = torch.rand(len(positions), generator=self.generator, dtype=torch.float64)
            if len(self._keys[value]) == self.per_class:
                better = keys < self._keys[value].max()
                positions, keys = positions[better], keys[better]
            self._keep(value, keys, pixels[positions.to(pixels.device)].float().cpu())

    def _keep(self, value: int, keys: Tensor, vectors: Tensor) -> None:
        before = self._vectors[value]
        keys = torch.cat([self._keys[value], keys])
        vectors = vectors if before is None else torch.cat([before, vectors])
        kept = keys.argsort()[: self.per_class]
        self._keys[value], self._vectors[value] = keys[kept], vectors[kept]

    def sample(self) -> PixelSample:
        """Return the pixels that are kept, class by class."""
        kept = np.array([len(keys) for keys in self._keys])
        labels = np.repeat(np.arange(len(kept)), kept)
        share = self.counts / max(int(self.counts.sum()), 1) / np.maximum(kept, 1)
        vectors = [part for part in self._vectors if part is not None]
        return PixelSample(
            torch.cat(vectors).numpy() if vectors else np.zeros((0, 0), dtype=np.float32),
            labels,
            share[labels] * kept.sum(),
            self.counts.copy(),
        )
