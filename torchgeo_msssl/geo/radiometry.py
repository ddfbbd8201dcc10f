"""From digital numbers to reflectance: the scale and offset of each band of a scene.

Reflectance is ``(DN + offset) * scale``. What a file declares comes first, then what its product is known for.
Sentinel-2 products of processing baseline 04.00 and later (from 2022-01-25) carry an offset of -1000
(https://sentinels.copernicus.eu/web/sentinel/-/copernicus-sentinel-2-major-products-upgrade-upcoming).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from torchgeo_msssl.bands import SENTINEL2_OFFSET, SENTINEL2_OFFSET_SINCE, Sensor
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.scene import Scene

_BASELINE_TAGS = ('PROCESSING_BASELINE', 'processing_baseline', 's2:processing_baseline')
_OFFSET_TAGS = ('BOA_ADD_OFFSET', 'RADIO_ADD_OFFSET', 'BOA_ADD_OFFSET_VALUES_LIST', 'RADIO_ADD_OFFSET_VALUES_LIST')

#: A float raster whose bright pixels exceed this holds digital numbers; reflectance stays below about 2.
_LARGEST_REFLECTANCE = 10.0


@dataclass(frozen=True)
class Radiometry:
    """How the digital numbers of a scene become reflectance.

    Attributes:
        scale: Reflectance per digital number, for each band.
        offset: Added to the digital number first, for each band.
        reason: Where the values come from, for the log.
    """

    scale: tuple[float, ...]
    offset: tuple[float, ...]
    reason: str


def radiometry(scene: Scene, bands: Sequence[str], sensor: Sensor | None, offset: float | str = 'auto') -> Radiometry:
    """Find scale and offset of a scene's bands.

    Args:
        scene: Scene.
        bands: Canonical names.
        sensor: Its sensor, or None where unknown.
        offset: A number in digital numbers for all bands, or ``auto``: what the file's metadata or date tell.

    Returns:
        The values, with where they come from. Without a sensor the digital numbers stand for themselves.
    """
    declared = [_declared(scene, band) for band in bands]
    if any(pair != (1.0, 0.0) for pair in declared):
        scale = tuple(pair[0] for pair in declared)
        found = tuple(pair[1] / pair[0] for pair in declared)
        reason = 'scale and offset declared in the file'
        return Radiometry(scale, found if offset == 'auto' else _all(offset, bands), reason)
    if sensor is None:
        reason = 'sensor unknown: digital numbers taken as they are'
        return Radiometry(_all(1.0, bands), _all(0.0 if offset == 'auto' else offset, bands), reason)
    known = [sensor.find(band) for band in bands]
    if np.issubdtype(scene.dtype, np.floating) and not _holds_digital_numbers(scene, bands):
        reason = f'{sensor.name}: values are reflectance already'
        return Radiometry(_all(1.0, bands), _all(0.0 if offset == 'auto' else offset, bands), reason)
    scale = tuple(band.scale if band else 1.0 for band in known)
    if offset != 'auto':
        return Radiometry(scale, _all(offset, bands), f'{sensor.name}: offset {offset} as configured')
    value, why = _sentinel2_offset(scene) if sensor.name.startswith('sentinel2') else (0.0, 'no offset')
    return Radiometry(scale, tuple(value if band else 0.0 for band in known), f'{sensor.name}: {why}')


def _all(value: float | str, bands: Sequence[str]) -> tuple[float, ...]:
    return (float(value),) * len(bands)


def _declared(scene: Scene, band: str) -> tuple[float, float]:
    file = scene.file_of(band)
    i = file.index(band) - 1
    return file.scales[i], file.offsets[i]


def _holds_digital_numbers(scene: Scene, bands: Sequence[str]) -> bool:
    """Look at the middle of a scene whether its floats are digital numbers rather than reflectance."""
    grid = scene.grid
    side = 256
    for row, col in (((grid.height - side) // 2, (grid.width - side) // 2), (0, 0)):
        image, valid = scene.read(Window(max(row, 0), max(col, 0), side, side), bands[:1])
        if valid.any():
            return bool(np.percentile(image[0][valid], 98) > _LARGEST_REFLECTANCE)
    image, valid = scene.read(grid.window, bands[:1])
    return bool(valid.any() and np.percentile(image[0][valid], 98) > _LARGEST_REFLECTANCE)


def _sentinel2_offset(scene: Scene) -> tuple[float, str]:
    tags = {key: value for file in scene.files for key, value in file.tags.items()}
    for tag in _OFFSET_TAGS:
        numbers = re.findall(r'-?\d+(?:\.\d+)?', tags.get(tag, ''))
        if numbers:
            return float(numbers[0]), f'offset {float(numbers[0]):g} from the tag {tag}'
    baseline = next((tags[tag] for tag in _BASELINE_TAGS if tag in tags), None)
    named = re.search(r'_N(\d{2})(\d{2})_', tags.get('PRODUCT_URI', '') + scene.path)
    if baseline is None and named:
        baseline = f'{named[1]}.{named[2]}'
    if baseline is not None:
        value = SENTINEL2_OFFSET if baseline >= '04.00' else 0.0
        return value, f'offset {value:g} from processing baseline {baseline}'
    if scene.date is not None:
        value = SENTINEL2_OFFSET if scene.date[0].date() >= SENTINEL2_OFFSET_SINCE else 0.0
        return value, f'offset {value:g} from the date in the name (set `offset` if it was corrected)'
    return 0.0, 'offset 0: neither metadata nor date tell another (set `offset` if there is one)'
