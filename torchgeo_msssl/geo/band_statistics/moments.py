"""Per-band statistics of scenes over valid pixels, in a stream.

Moments are combined with the pairwise update of Chan, Golub & LeVeque (1979), in float64, so that neither size
nor order of the blocks matters.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from torchgeo_msssl.errors import ValidDataError
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.radiometry import Radiometry
from torchgeo_msssl.geo.scene import Scene

#: Pixels (of all bands together) that are enough for a mean and a standard deviation of a collection.
ENOUGH_PIXELS = 64_000_000

#: Side of the windows that are read, in pixels, about.
_SIDE = 512


@dataclass(frozen=True)
class BandStatistics:
    """Moments of each band.

    Attributes:
        count: Pixels seen.
        mean: Shape (band,).
        m2: Sum of squared distances from the mean, shape (band,).
    """

    count: int
    mean: NDArray[np.float64]
    m2: NDArray[np.float64]

    @property
    def std(self) -> NDArray[np.float64]:
        """Standard deviation of the population, shape (band,)."""
        return np.sqrt(self.m2 / max(self.count, 1))

    def merge(self, other: 'BandStatistics') -> 'BandStatistics':
        """Moments of both sets of pixels together."""
        count = self.count + other.count
        if count == 0:
            return self
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.count / count)
        m2 = self.m2 + other.m2 + delta**2 * (self.count * other.count / count)
        return BandStatistics(count, mean, m2)

    def to_reflectance(self, how: Radiometry) -> 'BandStatistics':
        """Moments of ``(DN + offset) * scale``."""
        scale, offset = np.asarray(how.scale), np.asarray(how.offset)
        return BandStatistics(self.count, (self.mean + offset) * scale, self.m2 * scale**2)


def block_statistics(image: NDArray[np.generic], valid: NDArray[np.bool_]) -> BandStatistics:
    """Moments of one block.

    Args:
        image: Shape (band, height, width), any real dtype.
        valid: Shape (height, width).

    Returns:
        Moments over the valid pixels.
    """
    return pixel_statistics(valid_pixels(image, valid))


def valid_pixels(image: NDArray[np.generic], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The valid pixels of a block, shape (band, pixel)."""
    # picking pixels out costs more than what is done with them
    pixels = image.reshape(len(image), -1) if valid.all() else image[:, valid]
    return pixels.astype(np.float64)


def pixel_statistics(pixels: NDArray[np.float64]) -> BandStatistics:
    """Moments of pixels.

    Args:
        pixels: Shape (band, pixel).

    Returns:
        Moments over all pixels, zeros without any.
    """
    count = pixels.shape[1]
    if count == 0:
        return BandStatistics(0, np.zeros(len(pixels)), np.zeros(len(pixels)))
    mean = pixels.sum(axis=1) / count
    distance = pixels - mean[:, None]
    return BandStatistics(count, mean, np.einsum('bp,bp->b', distance, distance))


def scene_statistics(
    scenes: Sequence[Scene],
    bands: Sequence[str],
    radiometries: Sequence[Radiometry],
    pixels: int = ENOUGH_PIXELS,
    seed: int = 0,
    on_progress: Callable[[float], None] | None = None,
) -> BandStatistics:
    """Reflectance statistics of a collection of scenes.

    Every block is read while all of them hold no more than ``pixels`` values; of larger collections a seeded
    draw of blocks is read, each with the same chance, so that large scenes weigh as much as their area.

    Args:
        scenes: Scenes.
        bands: Canonical names.
        radiometries: Scale and offset of each scene.
        pixels: Values (pixels × bands) to read at most, about.
        seed: Of the draw.
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
    if total > pixels:
        keep = max(1, int(len(blocks) * pixels / total))
        order = np.random.default_rng(seed).permutation(len(blocks)).tolist()
        # in file order: neighbouring reads share decoded blocks
        order[:keep] = sorted(order[:keep])
    merged = BandStatistics(0, np.zeros(len(bands)), np.zeros(len(bands)))
    for done, k in enumerate(order, start=1):
        if done > keep and merged.count > 0:  # beyond the draw only where that met no data at all
            break
        i, window = blocks[k]
        block = block_statistics(*scenes[i].read(window, bands))
        merged = merged.merge(block.to_reflectance(radiometries[i]))
        if on_progress:
            on_progress(min(1.0, done / keep))
    if merged.count == 0:
        msg = (
            f'bands: no pixel of the {len(scenes)} scene(s) (the first is {scenes[0].path}) has data in all of '
            f'{", ".join(bands)}; leave out with `bands` what is empty, or correct the nodata value.'
        )
        raise ValidDataError(msg)
    return merged


def _blocks(scene: Scene) -> list[Window]:
    """Windows of about 512 × 512 pixels, of whole blocks where these are smaller."""
    grid, (block_height, block_width) = scene.grid, scene.block_shape
    width = min(grid.width, max(block_width, _SIDE // block_width * block_width))
    rows = max(1, _SIDE * _SIDE // width)
    height = min(grid.height, rows // block_height * block_height or rows)
    return [
        Window(row, col, min(height, grid.height - row), min(width, grid.width - col))
        for row in range(0, grid.height, height)
        for col in range(0, grid.width, width)
    ]
