"""Scale and offset from digital numbers to reflectance.

Reflectance is ``(DN + offset) * scale``. The values that a file declares come first, then those of its product.
Those of Sentinel-2 are in :mod:`~torchgeo_msssl.geo.sentinel2`.
"""

import itertools
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchgeo_msssl.bands import Sensor
from torchgeo_msssl.errors import ConfigurationError, SceneReadError
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.scene import Scene
from torchgeo_msssl.geo.sentinel2 import GUESSED, product_metadata, sentinel2_offset
from torchgeo_msssl.geo.valid_counts import streaming_windows

log = logging.getLogger(__name__)

#: Float rasters with brighter pixels hold digital numbers, as reflectance stays below about 2.
_LARGEST_REFLECTANCE = 10.0


@dataclass(frozen=True)
class Radiometry:
    """Scale and offset from digital numbers to reflectance.

    Attributes:
        scale: Reflectance per digital number of each band.
        offset: Offset of each band, which is added to the digital number first.
        reason: Source of the values, for the log.
    """

    scale: tuple[float, ...]
    offset: tuple[float, ...]
    reason: str


def radiometry(scene: Scene, bands: Sequence[str], sensor: Sensor | None, offset: float | str = 'auto') -> Radiometry:
    """Find scale and offset of a scene's bands.

    Args:
        scene: Scene.
        bands: Canonical names.
        sensor: Its sensor, or None if unknown.
        offset: Offset of all bands in digital numbers, or ``auto`` for that of metadata or date.

    Returns:
        Scale, offset and their source. Without a sensor, digital numbers are used as they are.

    Raises:
        ConfigurationError: If ``offset`` is text other than ``auto``.
        SceneReadError: If the file declares an invalid scale, or is damaged.
    """
    if isinstance(offset, str) and offset != 'auto':
        raise ConfigurationError(f"offset: expected a number in digital numbers, or 'auto', got {offset!r}.")
    declared = [_declared(scene, band) for band in bands]
    if all(declared):
        how = Radiometry((1.0,) * len(bands), (0.0,) * len(bands), 'scale and offset declared in the file')
    else:
        how = _known(scene, bands, sensor)
        if any(declared):
            names = ', '.join(band for band, pair in zip(bands, declared, strict=True) if pair)
            how = replace(how, reason=f'scale and offset of {names} declared in the file; {how.reason}')
    scale = tuple(pair[0] if pair else known for pair, known in zip(declared, how.scale, strict=True))
    found = tuple(pair[1] if pair else known for pair, known in zip(declared, how.offset, strict=True))
    if not isinstance(offset, str):
        return Radiometry(scale, (float(offset),) * len(bands), f'{how.reason}; offset {offset:g} as configured')
    return Radiometry(scale, found, how.reason)


def _known(scene: Scene, bands: Sequence[str], sensor: Sensor | None) -> Radiometry:
    """Return scale and offset by sensor, metadata and date."""
    ones, zeros = (1.0,) * len(bands), (0.0,) * len(bands)
    if sensor is None:
        return Radiometry(ones, zeros, 'unknown sensor: digital numbers are used as they are')
    spectral = [band for band in bands if sensor.find(band)]
    if np.issubdtype(scene.dtype, np.floating) and spectral and not _holds_digital_numbers(scene, spectral[0]):
        return Radiometry(ones, zeros, f'{sensor.name}: the values are already reflectance')
    if sensor.name in ('rgb', 'rgbn') and scene.dtype != np.uint8:
        return Radiometry(ones, zeros, f'{sensor.name}: {scene.dtype} instead of uint8, used as it is')
    known = [sensor.find(band) for band in bands]
    foreign = [band for band, found in zip(bands, known, strict=True) if found is None]
    unscaled = f'; {", ".join(foreign)}: no band of the sensor, used as it is' if foreign and spectral else ''
    scale = tuple(band.scale if band else 1.0 for band in known)
    offsets = tuple(band.offset if band else 0.0 for band in known)
    if any(offsets):
        return Radiometry(scale, offsets, f'{sensor.name}: scale and offset of the sensor{unscaled}')
    value, why = 0.0, 'no offset'
    if sensor.name.startswith('sentinel2'):
        value, why = sentinel2_offset(scene)
        product = product_metadata(scene)
        if product is not None and product.quantification != 1e4:
            scale = tuple(1 / product.quantification if band else 1.0 for band in known)
    if value < 0 and spectral and _contradicts(scene, spectral[0], value):
        log.warning(
            '%s: %s, but many of its values are below %g, so the offset may have been applied before (harmonised '
            'products); if so, set `offset: 0`.',
            scene.path,
            why,
            -value,
        )
    return Radiometry(scale, tuple(value if band else 0.0 for band in known), f'{sensor.name}: {why}{unscaled}')


def _declared(scene: Scene, band: str) -> tuple[float, float] | None:
    """Return the scale and the offset (to be added first) that a file declares for a band, or None."""
    file = scene.file_of(band)
    scale, offset = file.scales[file.index(band) - 1], file.offsets[file.index(band) - 1]
    if (scale, offset) == (1.0, 0.0):
        return None
    if scale == 0 or not math.isfinite(scale) or not math.isfinite(offset):
        msg = f'{file.path}: has invalid scale {scale:g} or offset {offset:g} of band {band}; correct them in the file.'
        raise SceneReadError(msg)
    return scale, offset / scale


def _sample(scene: Scene, band: str) -> NDArray[Any]:
    """Return valid values of a band in the middle of a scene, or else in the first window with data, if any."""
    grid, side = scene.grid, 256
    middle = Window(max((grid.height - side) // 2, 0), max((grid.width - side) // 2, 0), side, side)
    for window in itertools.chain([middle], streaming_windows(scene)):
        image, valid = scene.read(window, [band])
        if valid.any():
            return image[0][valid]
    return np.empty(0)


def _holds_digital_numbers(scene: Scene, band: str) -> bool:
    """Whether floats are digital numbers rather than reflectance."""
    values = _sample(scene, band)
    return len(values) > 0 and bool(np.percentile(values, 98) > _LARGEST_REFLECTANCE)


def _contradicts(scene: Scene, band: str, offset: float) -> bool:
    """Whether an offset would make the reflectance of one pixel in twenty negative."""
    values = _sample(scene, band)
    return len(values) > 0 and bool(np.percentile(values, 5) + offset < 0)


def warn_of_guesses(radiometries: Sequence[Radiometry]) -> None:
    """Warn once if offsets follow from dates alone, which reprocessed and harmonised products contradict.

    Args:
        radiometries: Scale and offset of each scene.
    """
    guessed = sum(GUESSED in how.reason and 'as configured' not in how.reason for how in radiometries)
    if guessed:
        log.warning(
            'The offset of %d Sentinel-2 scene(s) is guessed from the date: reprocessed products (Collection 1) have '
            'one before 2022-01-25 too, harmonised ones have none; keep MTD_MSIL2A.xml by the bands, or set `offset`.',
            guessed,
        )
