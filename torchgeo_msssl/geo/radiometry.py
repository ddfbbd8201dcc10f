"""Scale and offset from digital numbers to reflectance.

Reflectance is ``(DN + offset) * scale``. The values that a file declares come first, then those of its product.
Sentinel-2 products of processing baseline 04.00 and later (from 2022-01-25) carry an offset of -1000
(https://sentinels.copernicus.eu/web/sentinel/-/copernicus-sentinel-2-major-products-upgrade-upcoming).
"""

import itertools
import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchgeo_msssl.bands import SENTINEL2_OFFSET, SENTINEL2_OFFSET_SINCE, Sensor
from torchgeo_msssl.errors import ConfigurationError, SceneReadError
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.scene import Scene
from torchgeo_msssl.geo.valid_counts import streaming_windows

log = logging.getLogger(__name__)

_BASELINE_TAGS = ('PROCESSING_BASELINE', 'processing_baseline', 's2:processing_baseline')
_PRODUCT = re.compile(r'S2[A-D]_MSIL(?:1C|2A)_\d{8}T\d{6}_(N\d{4})_')
_OFFSET_TAGS = ('BOA_ADD_OFFSET', 'RADIO_ADD_OFFSET', 'BOA_ADD_OFFSET_VALUES_LIST', 'RADIO_ADD_OFFSET_VALUES_LIST')

#: Float rasters with brighter pixels hold digital numbers, as reflectance stays below about 2.
_LARGEST_REFLECTANCE = 10.0

#: Reason of a Sentinel-2 offset of 0 that neither metadata nor date confirm.
UNKNOWN_OFFSET = 'offset 0: neither metadata nor date give another (set `offset` if there is one)'


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
    scale = tuple(band.scale if band else 1.0 for band in known)
    value, why = sentinel2_offset(scene) if sensor.name.startswith('sentinel2') else (0.0, 'no offset')
    if value < 0 and spectral and _contradicts(scene, spectral[0], value):
        log.warning(
            '%s: %s, but many of its values are below %g, so the offset may have been applied before (harmonised '
            'products); if so, set `offset: 0`.',
            scene.path,
            why,
            -value,
        )
    return Radiometry(scale, tuple(value if band else 0.0 for band in known), f'{sensor.name}: {why}')


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


def sentinel2_offset(scene: Scene) -> tuple[float, str]:
    """Find the offset of a Sentinel-2 scene from its tags, or else its processing baseline, or else its date.

    Args:
        scene: Scene.

    Returns:
        The offset in digital numbers, and its source. No pixel is read.
    """
    tags = {key: value for file in scene.files for key, value in file.tags.items()}
    for tag in _OFFSET_TAGS:
        numbers = re.findall(r'-?\d+(?:\.\d+)?', tags.get(tag, ''))
        if numbers:
            return float(numbers[0]), f'offset {float(numbers[0]):g} from the tag {tag}'
    declared = [tags[tag] for tag in _BASELINE_TAGS if tag in tags]
    named = _PRODUCT.search(f'{tags.get("PRODUCT_URI", "")} {scene.path}')
    baseline = next(filter(None, map(_baseline, [*declared, named[1] if named else ''])), None)
    if baseline is not None:
        value = SENTINEL2_OFFSET if baseline >= (4, 0) else 0.0
        return value, f'offset {value:g} from processing baseline {baseline[0]:02d}.{baseline[1]:02d}'
    if scene.date is not None:
        value = SENTINEL2_OFFSET if scene.date[0].date() >= SENTINEL2_OFFSET_SINCE else 0.0
        return value, f'offset {value:g} from the date in the name (set `offset` if it was corrected)'
    return 0.0, UNKNOWN_OFFSET


def _baseline(text: str) -> tuple[int, int] | None:
    """Parse ``04.00``, ``4.0``, ``N0400`` or ``0400`` as major and minor number; return None for other text."""
    match = re.fullmatch(r'(\d{1,2})\.(\d{1,2})|N?(\d{2})(\d{2})', text.strip())
    if match is None:
        return None
    return int(match[1] or match[3]), int(match[2] or match[4])
