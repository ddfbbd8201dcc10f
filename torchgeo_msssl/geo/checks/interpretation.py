"""What the values of a scene mean: names of bands, reflectance, offsets."""

from collections.abc import Iterator, Sequence

import numpy as np

from torchgeo_msssl.bands import SENSORS, SENTINEL2_OFFSET, Sensor, infer_sensor, is_auxiliary
from torchgeo_msssl.geo.checks.finding import Finding, edit_command, mend_command
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.radiometry import Radiometry, radiometry
from torchgeo_msssl.geo.scene import Scene

#: What the 98th percentile of reflectance is on land and sea, in the middle band of a scene: from dark water to clouds.
_REFLECTANCE = (0.01, 2.0)

_SIDE = 128


def check_bands(scene: Scene, sensor: Sensor | None) -> Iterator[Finding]:
    """Find bands without a name, and alpha bands.

    Args:
        scene: The scene.
        sensor: Its sensor, if known.

    Yields:
        Findings.
    """
    for file in scene.files:
        unnamed = [name for name in file.names if name.startswith('band_')]
        if unnamed:
            count = sum(name != 'alpha' for name in file.names)
            sensors = [name for name, known in SENSORS.items() if len(known.bands) == count]
            message = 'Has bands without names, so neither sensor nor reflectance are known; say which ones they are.'
            named = tuple(f'--data.sensor {name}' for name in sensors)
            edit = edit_command(file.path, '--bidx', 1, '--description', 'NAME')
            detail = f'{len(unnamed)} of {count}' + (f'; sensors of {count} bands are listed below' if sensors else '')
            yield Finding('note', 'unnamed_bands', message, (file.path,), detail, None, (*named, edit))
        elif sensor is None and not all(map(is_auxiliary, file.names)):
            sensors = [name for name, known in SENSORS.items() if set(file.names) - {'alpha'} <= set(known.names)]
            message = 'Has named bands that leave the sensor open, so digital numbers stand for themselves.'
            named = tuple(f'--data.sensor {name}' for name in sensors)
            yield Finding('note', 'unknown_sensor', message, (file.path,), ', '.join(file.names), None, named)
        if 'alpha' in file.names:
            message = 'Has an alpha band: this package takes it for a mask, TorchGeo for one more band.'
            yield Finding('note', 'alpha', message, (file.path,), f'band {file.index("alpha")}')


def check_values(scene: Scene, sensor: Sensor | None) -> Iterator[Finding]:
    """Find values that cannot be what the sensor makes of them, and offsets that contradict the values.

    Args:
        scene: The scene.
        sensor: Its sensor, or None: then there is nothing to check.

    Yields:
        Findings.

    Raises:
        MSSSLError: If the scene is damaged, or declares scales that are none.
    """
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
    if how.offset[0] < 0 and np.percentile(values[0], 5) + how.offset[0] < 0:
        message = (
            'Should have an offset by its date or baseline, yet many of its values are below that: it was taken off '
            'before (harmonised products), and would be taken off twice.'
        )
        detail = f'{how.reason}; 5 % of {spectral[0]} are below {np.percentile(values[0], 5):g}'
        yield Finding('wrong', 'offset_taken_twice', message, (scene.path,), detail, None, ('--data.offset 0',))
    elif not _REFLECTANCE[0] <= bright <= _REFLECTANCE[1]:
        message = 'Has values that are no reflectance by what is known of its sensor; declare the scale in the file.'
        detail = (
            f'{sensor.name} with scale {how.scale[0]:g}: bright pixels ({raw:g}) have a reflectance of {bright:.3g}'
        )
        scale = _likely_scale(raw, scene.dtype)
        remedies = tuple(mend_command(file.path, '--scale', f'{scale:g}') for file in scene.files)
        yield Finding('wrong', 'value_range', message, (scene.path,), detail, None, remedies)
    elif 'neither metadata nor date' in how.reason and np.percentile(values[0], 5) + SENTINEL2_OFFSET >= 0:
        # with darker pixels there is no doubt: the offset would make them negative
        message = 'Could be of either era of Sentinel-2: neither metadata nor name tell, so no offset is assumed.'
        remedies = (edit_command(scene.path, '--tag', 'PROCESSING_BASELINE=05.09'), '--data.offset -1000')
        yield Finding('note', 'era_unknown', message, (scene.path,), 'name the baseline if it is 04.00 or later', None,
                      remedies)  # fmt: skip


def _sample(scene: Scene, bands: Sequence[str]) -> np.ndarray:
    """Valid values from the corners and the middle of the scene's inside, shape (band, pixel)."""
    height, width = min(_SIDE, scene.grid.height), min(_SIDE, scene.grid.width)
    parts = []
    for down, right in ((0.5, 0.5), (0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75)):
        row, col = int(down * (scene.grid.height - height)), int(right * (scene.grid.width - width))
        image, valid = scene.read(Window(row, col, height, width), bands)
        parts.append(image[:, valid].astype(np.float64))
    return np.concatenate(parts, axis=1)


def _likely_scale(bright: float, dtype: np.dtype) -> float:
    """The scale that such bright pixels speak for."""
    if dtype == np.uint8:
        return 1 / 255
    for most, scale in ((2, 1.0), (200, 0.01), (2000, 1e-3), (20000, 1e-4)):
        if bright <= most:
            return scale
    return 1 / 65535


def sensor_of(scene: Scene, named: Sensor | None) -> Sensor | None:
    """The sensor that the user named, or else the one that the scene's names speak of."""
    return named or infer_sensor(scene.bands, scene.path)


def radiometries(scenes: Sequence[Scene], named: Sensor | None) -> list[Radiometry]:
    """Scale and offset of the bands that all scenes have."""
    common = [band for band in scenes[0].bands if all(band in scene.bands for scene in scenes)]
    return [radiometry(scene, common, sensor_of(scene, named)) for scene in scenes] if common else []
