"""Checks of the interpretation of a scene: band names, reflectance, offsets."""

from collections.abc import Iterator, Sequence

import numpy as np

from torchgeo_msssl.bands import SENSORS, SENTINEL2_OFFSET, Sensor, infer_sensor, is_auxiliary, likely_sensors
from torchgeo_msssl.errors import MSSSLError
from torchgeo_msssl.geo.alpha import doubtful_alpha
from torchgeo_msssl.geo.checks.finding import Finding, edit_command, rewrite_command
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.radiometry import Radiometry, radiometry
from torchgeo_msssl.geo.scene import Scene
from torchgeo_msssl.geo.sentinel2 import GUESSED, UNKNOWN_OFFSET

#: Plausible range of the 98th percentile of reflectance (median of the bands): from dark water to clouds.
_REFLECTANCE = (0.01, 2.0)

#: Side of the sampled windows in pixels.
_SIDE = 128


def check_bands(scene: Scene, sensor: Sensor | None) -> Iterator[Finding]:
    """Find bands without a name, and alpha bands."""
    for file in scene.files:
        unnamed = [name for name in file.names if name.startswith('band_')]
        if unnamed:
            count = sum(name != 'alpha' for name in file.names)
            sensors = _plausible(scene, [name for name, known in SENSORS.items() if len(known.bands) == count])
            message = 'The bands have no names, so sensor and reflectance are unknown; name the sensor or the bands.'
            detail = f'{len(unnamed)} of {count} bands' + (f'; sensors with {count} bands follow' if sensors else '')
            remedies = (*map(_sensor_option, sensors), edit_command(file.path, '--bidx', 1, '--description', 'NAME'))
            yield Finding('note', 'unnamed_bands', message, (file.path,), detail, remedies=remedies)
        elif sensor is None and not all(map(is_auxiliary, file.names)):
            sensors = _plausible(scene, likely_sensors(scene.bands, scene.path))
            message = 'The band names fit no sensor or several, so digital numbers are used as they are.'
            remedies = tuple(map(_sensor_option, sensors))
            yield Finding('note', 'unknown_sensor', message, (file.path,), ', '.join(file.names), remedies=remedies)
        if index := doubtful_alpha(file):
            message = (
                'A band is marked as alpha and masks pixels, but many of its values are neither opaque nor clear: '
                'if it is a spectral band, describe it, or name a sensor with as many bands.'
            )
            count = len(file.names)
            sensors = [name for name, known in SENSORS.items() if len(known.bands) == count]
            remedies = (edit_command(file.path, '--bidx', index, '--description', 'nir'), *map(_sensor_option, sensors))
            yield Finding('error', 'alpha_values', message, (file.path,), f'band {index}', remedies=remedies)
        elif 'alpha' in file.names:
            message = 'The file has an alpha band: this package uses it as a mask, TorchGeo as another band.'
            yield Finding('note', 'alpha', message, (file.path,), f'band {file.index("alpha")}')


def _plausible(scene: Scene, sensors: Sequence[str]) -> list[str]:
    """Put sensors first with whose scale the values are plausible as reflectance; leave out those of other dtypes."""
    if scene.dtype == np.uint8:
        return [name for name in sensors if name in ('rgb', 'rgbn')] or list(sensors)
    try:
        values = _sample(scene, scene.bands[:1])
    except MSSSLError:  # a damaged file is reported by the check of its values
        return list(sensors)
    bright = float(np.percentile(values, 98)) if values.size else 0.0

    def is_unlikely(name: str) -> bool:
        band = SENSORS[name].bands[0]
        return not _REFLECTANCE[0] <= (bright + band.offset) * band.scale <= _REFLECTANCE[1]

    return sorted(sensors, key=is_unlikely)


def _sensor_option(name: str) -> str:
    return f'--data.sensor {name}'


def check_values(scene: Scene, sensor: Sensor | None) -> Iterator[Finding]:
    """Find values that are not plausible as reflectance, and offsets that contradict the values."""
    spectral = [band for band in scene.bands if sensor and (known := sensor.find(band)) and known.wavelength < 3000]
    if sensor is None or not spectral:
        return
    how = radiometry(scene, spectral, sensor)
    values = _sample(scene, spectral)
    if values.shape[1] == 0:
        return
    reflectance = (values + np.array(how.offset)[:, None]) * np.array(how.scale)[:, None]
    bright = float(np.median(np.percentile(reflectance, 98, axis=1)))
    raw = float(np.median(np.percentile(values, 98, axis=1)))
    scales = {scale for file in scene.files for scale in (*file.scales, *file.offsets)} - {0.0, 1.0}
    if scales and _REFLECTANCE[0] <= raw <= _REFLECTANCE[1] and not _REFLECTANCE[0] <= bright <= _REFLECTANCE[1]:
        message = 'The file declares a scale or offset, but its values are reflectance already; reset the declaration.'
        detail = f'{", ".join(f"{scale:g}" for scale in sorted(scales))}; bright pixels hold {raw:.3g}'
        remedies = tuple(rewrite_command(file.path, '--scale', 1) for file in scene.files)
        yield Finding('error', 'stale_scale', message, (scene.path,), detail, remedies=remedies)
    elif how.offset[0] < 0 and np.percentile(values[0], 5) + how.offset[0] < 0:
        message = (
            'Date or baseline imply an offset, but many values are smaller than it: the offset has been applied before '
            '(harmonised products) and would be applied twice.'
        )
        detail = f'{how.reason}; 5 % of {spectral[0]} are below {np.percentile(values[0], 5):g}'
        yield Finding('error', 'offset_taken_twice', message, (scene.path,), detail, remedies=('--data.offset 0',))
    elif not _REFLECTANCE[0] <= bright <= _REFLECTANCE[1]:
        message = 'With the scale of the sensor the values are not plausible as reflectance; declare the right scale.'
        detail = f'{sensor.name}, scale {how.scale[0]:g}: bright pixels ({raw:g}) have a reflectance of {bright:.3g}'
        scale = _likely_scale(raw, scene.dtype)
        remedies = tuple(rewrite_command(file.path, '--scale', f'{scale:g}') for file in scene.files)
        yield Finding('error', 'value_range', message, (scene.path,), detail, remedies=remedies)
    elif _is_uncertain(how) and np.percentile(values[0], 5) + SENTINEL2_OFFSET >= 0:
        # darker pixels, which an offset would make negative, leave no doubt
        message = (
            'Neither metadata nor file name tell for certain whether the scene is from before or after Sentinel-2 '
            'baseline 04.00, so no offset is applied.'
        )
        detail = f'{how.reason}; declare the baseline if it is 04.00 or later'
        remedies = (edit_command(scene.path, '--tag', 'PROCESSING_BASELINE=05.09'), '--data.offset -1000')
        yield Finding('note', 'era_unknown', message, (scene.path,), detail, remedies=remedies)


def _is_uncertain(how: Radiometry) -> bool:
    """Whether an offset of 0 is assumed, or guessed from a date, which reprocessing does not change."""
    return UNKNOWN_OFFSET in how.reason or (GUESSED in how.reason and how.offset[0] == 0)


def _sample(scene: Scene, bands: Sequence[str]) -> np.ndarray:
    """Return valid values of five windows across the scene, shape (band, pixel)."""
    height, width = min(_SIDE, scene.grid.height), min(_SIDE, scene.grid.width)
    parts = []
    for down, right in ((0.5, 0.5), (0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75)):
        row, col = int(down * (scene.grid.height - height)), int(right * (scene.grid.width - width))
        image, valid = scene.read(Window(row, col, height, width), bands)
        parts.append(image[:, valid].astype(np.float64))
    return np.concatenate(parts, axis=1)


def _likely_scale(bright: float, dtype: np.dtype) -> float:
    """Return the scale that makes bright pixels plausible."""
    if dtype == np.uint8:
        return 1 / 255
    for most, scale in ((2, 1.0), (200, 0.01), (2000, 1e-3), (20000, 1e-4)):
        if bright <= most:
            return scale
    return 1 / 65535


def sensor_of(scene: Scene, named: Sensor | None) -> Sensor | None:
    """Return the sensor that the user named, or else the one that the band names identify."""
    return named or infer_sensor(scene.bands, scene.path)


def radiometries(scenes: Sequence[Scene], named: Sensor | None) -> list[Radiometry]:
    """Return scale and offset of the bands that all scenes have; an empty list if there are none."""
    common = [band for band in scenes[0].bands if all(band in scene.bands for scene in scenes)]
    return [radiometry(scene, common, sensor_of(scene, named)) for scene in scenes] if common else []
