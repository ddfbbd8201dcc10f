"""Mean and standard deviation of bands over the valid pixels of scenes, in a stream.

Moments are combined with the pairwise update of Chan, Golub & LeVeque (1979) in float64, so that neither size nor order
of the blocks matters.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from torchgeo_msssl.errors import ValidDataError
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.radiometry import Radiometry
from torchgeo_msssl.geo.scene import Scene

#: Number of values (pixels × bands) that are enough for the mean and the standard deviation of a collection.
ENOUGH_VALUES = 64_000_000

#: Approximate side of the windows that are read, in pixels.
_SIDE = 512


@dataclass(frozen=True)
class BandStatistics:
    """Moments of each band.

    Attributes:
        count: Number of pixels.
        mean: Mean, shape (band,).
        m2: Sum of squared differences from the mean, shape (band,).
    """

    count: int
    mean: NDArray[np.float64]
    m2: NDArray[np.float64]

    @property
    def std(self) -> NDArray[np.float64]:
        """Standard deviation of the population, shape (band,)."""
        return np.sqrt(self.m2 / max(self.count, 1))

    def merge(self, other: 'BandStatistics') -> 'BandStatistics':
        """Return the moments of both sets of pixels together."""
        count = self.count + other.count
        if count == 0:
            return self
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.count / count)
        m2 = self.m2 + other.m2 + delta**2 * (self.count * other.count / count)
        return BandStatistics(count, mean, m2)

    def to_reflectance(self, radiometry: Radiometry) -> 'BandStatistics':
        """Return the moments of ``(DN + offset) * scale``."""
        scale, offset = np.asarray(radiometry.scale), np.asarray(radiometry.offset)
        return BandStatistics(self.count, (self.mean + offset) * scale, self.m2 * scale**2)


def no_statistics(bands: int) -> BandStatistics:
    """Return the moments of no pixel."""
    return BandStatistics(0, np.zeros(bands), np.zeros(bands))


def block_statistics(image: NDArray[np.generic], valid: NDArray[np.bool_]) -> BandStatistics:
    """Return the moments of the valid pixels of a block.

    Args:
        image: Block of any real dtype, shape (band, height, width).
        valid: Mask of valid pixels, shape (height, width).
    """
    return pixel_statistics(valid_pixels(image, valid))


def valid_pixels(image: NDArray[np.generic], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the valid pixels of a block, shape (band, pixel)."""
    # selecting pixels costs more than the computation
    pixels = image.reshape(len(image), -1) if valid.all() else image[:, valid]
    return pixels.astype(np.float64)


def pixel_statistics(pixels: NDArray[np.float64]) -> BandStatistics:
    """Return the moments of pixels, shape (band, pixel)."""
    count = pixels.shape[1]
    if count == 0:
        return no_statistics(len(pixels))
    mean = pixels.sum(axis=1) / count
    distance = pixels - mean[:, None]
    return BandStatistics(count, mean, np.einsum('bp,bp->b', distance, distance))


def scene_statistics(
    scenes: Sequence[Scene],
    bands: Sequence[str],
    radiometries: Sequence[Radiometry],
    values: int = ENOUGH_VALUES,
    seed: int = 0,
    on_progress: Callable[[float], None] | None = None,
) -> BandStatistics:
    """Compute the reflectance statistics of a collection of scenes.

    All blocks are read if they have at most ``values`` values. Otherwise a random sample of the blocks is read, so that
    every scene counts in proportion to its area.

    Args:
        scenes: Scenes.
        bands: Canonical names.
        radiometries: Scale and offset of each scene.
        values: Approximate number of values (pixels × bands) to read at most.
        seed: Seed of the sample.
        on_progress: Called with the fraction done after each block.

    Returns:
        Moments in reflectance.

    Raises:
        ValidDataError: If no pixel is valid in all bands.
        SceneReadError: If a scene is damaged.
    """
    blocks = [(i, window) for i, scene in enumerate(scenes) for window in _blocks(scene)]
    total = sum(window.area for _, window in blocks) * len(bands)
    order, keep = list(range(len(blocks))), len(blocks)
    if total > values:
        keep = max(1, int(len(blocks) * values / total))
        order = np.random.default_rng(seed).permutation(len(blocks)).tolist()
        # in file order, so that neighbouring reads share decoded blocks
        order[:keep] = sorted(order[:keep])
    merged = no_statistics(len(bands))
    for done, k in enumerate(order, start=1):
        if done > keep and merged.count > 0:  # beyond the sample only if that has no data at all
            break
        i, window = blocks[k]
        block = block_statistics(*scenes[i].read(window, bands))
        merged = merged.merge(block.to_reflectance(radiometries[i]))
        if on_progress:
            on_progress(min(1.0, done / keep))
    if merged.count == 0:
        raise no_valid_pixel_error(scenes, bands)
    return merged


def no_valid_pixel_error(scenes: Sequence[Scene], bands: Sequence[str], reason: str = '') -> ValidDataError:
    """Return the error for scenes without a pixel that has data in all bands."""
    return ValidDataError(
        f'bands: no pixel of the {len(scenes)} scene(s) (such as {scenes[0].path}) has data in all of '
        f'{", ".join(bands)}{reason}; leave empty bands out of `bands`, or correct the nodata value.'
    )


def _blocks(scene: Scene) -> list[Window]:
    """Return windows of about 512 × 512 pixels, made of whole blocks if these are smaller."""
    grid, (block_height, block_width) = scene.grid, scene.block_shape
    width = min(grid.width, max(block_width, _SIDE // block_width * block_width))
    rows = max(1, _SIDE * _SIDE // width)
    height = min(grid.height, rows // block_height * block_height or rows)
    return [
        Window(row, col, min(height, grid.height - row), min(width, grid.width - col))
        for row in range(0, grid.height, height)
        for col in range(0, grid.width, width)
    ]
