"""Comparison of scenes with the training data before they are mapped or restored."""

import itertools
import logging
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from torchgeo_msssl.bands import Sensor
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.ground_size import pixel_size
from torchgeo_msssl.geo.radiometry import Radiometry, radiometry
from torchgeo_msssl.geo.scene import Scene
from torchgeo_msssl.models.metadata import EncoderMetadata
from torchgeo_msssl.prediction.scenes import check_bands

__all__ = ('check_reflectance', 'compare_with_training')

log = logging.getLogger(__name__)

#: Sampled blocks along each axis, and the side of a block in pixels.
_BLOCKS, _SIDE = 5, 64
#: Percentile of absolute reflectance that is compared, beyond which are glints and defects.
_PERCENTILE = 98
#: Units differ by 255 (bytes and fractions), 10,000 (Sentinel-2) or more. Clouds over ground that was dark in training,
#: and water where it was bright, differ by up to about 30.
_LARGEST_FACTOR = 60.0
#: Objects of this many times the size look different to a network.
_LARGEST_SIZE_FACTOR = 1.5


def compare_with_training(
    scene: Scene,
    bands: Sequence[str],
    sensor: Sensor | None,
    offset: float | Literal['auto'],
    metadata: EncoderMetadata,
    check: bool = True,
) -> Radiometry:
    """Find the radiometry of a scene, and compare its reflectance and pixel size with those of the training.

    Args:
        scene: Scene to predict.
        bands: Canonical names of the bands of the network.
        sensor: Sensor of the scene, or None if unknown.
        offset: Digital number added before scaling; ``auto`` reads it from metadata or date.
        metadata: What the network was trained on.
        check: Whether a scene of another unit is refused.

    Returns:
        Its scale and offset.

    Raises:
        ConfigurationError: If its reflectance has another unit than that of the training.
        MSSSLError: If it lacks a band or is damaged.
    """
    check_bands(scene, bands)
    how = radiometry(scene, bands, sensor, offset)
    log.info('%s: reflectance by %s.', scene.path, how.reason)
    if check and metadata.mean:
        check_reflectance(scene, bands, how, metadata.mean, metadata.std)
    _compare_pixel_size(scene, metadata.pixel_size)
    return how


def check_reflectance(
    scene: Scene, bands: Sequence[str], how: Radiometry, mean: Sequence[float], std: Sequence[float]
) -> None:
    """Check that the reflectance of a scene has the unit of the training.

    The 98th percentile of absolute reflectance in up to 25 blocks is compared with ``|mean| + 2 std`` of the training.
    Only a factor that no ground explains is refused: brighter in most bands, or darker in all of them, since water is
    dark in near and short-wave infrared only.

    Args:
        scene: The scene.
        bands: Canonical names.
        how: Its scale and offset.
        mean: Mean reflectance of each band in training.
        std: Standard deviation of each band in training.

    Raises:
        ConfigurationError: If the units differ.
        SceneReadError: If the scene is damaged.
    """
    values = _sample(scene, bands, how)
    if not values.shape[1]:
        log.warning('%s: the sampled blocks hold no data, so its reflectance was not compared.', scene.path)
        return
    level = np.percentile(np.abs(values), _PERCENTILE, axis=1)
    expected = np.abs(mean) + 2 * np.asarray(std)
    bright, dark = level > expected * _LARGEST_FACTOR, level < expected / _LARGEST_FACTOR
    if 2 * bright.sum() <= len(bands) and not dark.all():
        return
    band = int(np.argmax(np.abs(np.log((level + 1e-12) / expected))))
    raise ConfigurationError(
        f'predict_paths: {scene.path} has another unit than the training: its band {bands[band]} reaches '
        f'{level[band]:.4g} ({how.reason}), and the network was trained on {mean[band]:.4g} ± {std[band]:.4g}; set '
        'data.sensor, write scale and offset into the file, or map it anyway with --check_radiometry false.'
    )


def _sample(scene: Scene, bands: Sequence[str], how: Radiometry) -> NDArray[np.float64]:
    """Reflectance of pixels with data in blocks all over a scene, shape (band, pixel)."""
    grid = scene.grid
    rows, cols = ({int(place) for place in _places(extent)} for extent in (grid.height, grid.width))
    parts = []
    for row, col in itertools.product(sorted(rows), sorted(cols)):
        image, valid = scene.read(Window(row, col, min(_SIDE, grid.height), min(_SIDE, grid.width)), bands)
        # borders whose nodata value is not declared are 0 in all bands
        parts.append(image[:, valid & (image != 0).any(axis=0)])
    digital = np.concatenate(parts, axis=1).astype(np.float64)
    reflectance: NDArray[np.float64] = (digital + np.array(how.offset)[:, None]) * np.array(how.scale)[:, None]
    return reflectance


def _places(extent: int) -> NDArray[np.float64]:
    """First pixels of blocks along an axis."""
    return np.linspace(0, max(extent - _SIDE, 0), _BLOCKS)


def _compare_pixel_size(scene: Scene, trained: float | None) -> None:
    """Warn of pixels that are much larger or smaller on the ground than those of the training."""
    own = pixel_size(scene.grid)
    if own is None or trained is None or max(own / trained, trained / own) <= _LARGEST_SIZE_FACTOR:
        return
    log.warning(
        '%s has pixels of %.3g m, and the network was trained on pixels of %.3g m: objects look different to it; '
        'map it with `--data.res` set to the pixel size of the training, or train with `res` set to that of the map.',
        scene.path,
        own,
        trained,
    )
