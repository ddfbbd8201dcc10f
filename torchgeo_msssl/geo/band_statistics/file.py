"""YAML file of the band statistics of scenes."""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from torchgeo_msssl.bands import Sensor, canonical_band_name
from torchgeo_msssl.errors import BandError, ConfigurationError
from torchgeo_msssl.files import atomic_path
from torchgeo_msssl.geo.band_statistics.histograms import PERCENTILES
from torchgeo_msssl.geo.band_statistics.summary import BandSummary
from torchgeo_msssl.geo.radiometry import Radiometry
from torchgeo_msssl.geo.scene import Scene

type Floats = tuple[float, ...]

_HEADER = """\
# Band statistics of scenes, over the pixels that are valid in all bands. Reflectance is (digital number + offset)
# * scale; scale and offset are those of the first scene. Data modules read this file with --data.statistics FILE.
"""


def unit_of(sensor: Sensor | None) -> str:
    """Return the unit of values: reflectance if the sensor is known, else digital number."""
    return 'reflectance' if sensor else 'digital number'


def statistics_content(
    summary: BandSummary,
    scenes: Sequence[Scene],
    bands: Sequence[str],
    radiometries: Sequence[Radiometry],
    sensor: Sensor | None,
) -> dict[str, Any]:
    """Return the content of the file as plain values.

    Args:
        summary: Distribution of the values.
        scenes: The scenes.
        bands: Canonical names.
        radiometries: Scale and offset of each scene.
        sensor: Their sensor, if known.
    """
    first = radiometries[0]
    return {
        'sensor': sensor.name if sensor else None,
        'unit': unit_of(sensor),
        'bands': list(bands),
        'mean': summary.moments.mean.tolist(),
        'std': summary.moments.std.tolist(),
        'min': summary.least.tolist(),
        'max': summary.most.tolist(),
        'percentiles': {q: row.tolist() for q, row in zip(PERCENTILES, summary.percentiles, strict=True)},
        'scale': list(map(float, first.scale)),
        'offset': list(map(float, first.offset)),
        'pixels': summary.moments.count,
        'valid_fraction': summary.valid_fraction.tolist(),
        'scenes': [
            {
                'path': scene.path,
                'pixels': pixels,
                'valid_fraction': pixels / scene.grid.window.area,
                'scale': list(map(float, radiometry.scale)),
                'offset': list(map(float, radiometry.offset)),
                'reason': radiometry.reason,
            }
            for scene, pixels, radiometry in zip(scenes, summary.scene_pixels, radiometries, strict=True)
        ],
    }


def write_statistics(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write the file.

    Args:
        path: The file; it appears complete or not at all.
        content: See :func:`statistics_content`.

    Raises:
        OutputError: If it cannot be written.
    """
    text = yaml.safe_dump(dict(content), sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)
    with atomic_path(path) as temporary:
        temporary.write_text(_HEADER + text, encoding='utf-8')


@dataclass(frozen=True)
class FileStatistics:
    """Statistics from the file, for the bands of a data module.

    Attributes:
        mean: Mean of each band.
        std: Standard deviation of each band.
        pixels: Number of pixels that were measured.
        scenes: Number of scenes that were measured.
        sensor: Name of their sensor, or None.
        radiometries: Scales and offsets with which each scene was measured, by file name. Files of one name may be in
            several folders.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    pixels: int
    scenes: int
    sensor: str | None
    radiometries: Mapping[str, Sequence[tuple[Floats, Floats]]]

    def check_scene(self, path: str, scene: str, radiometry: Radiometry) -> None:
        """Check that a scene was measured with the scale and offset with which it is read.

        Args:
            path: The statistics file.
            scene: Path of the scene. Scenes that the file does not name are not checked.
            radiometry: Scale and offset with which the scene is read.

        Raises:
            ConfigurationError: If scale or offset differ.
        """
        known = self.radiometries.get(Path(scene).name, ())
        if known and (radiometry.scale, radiometry.offset) not in known:
            scale, offset = known[0]
            msg = (
                f'statistics: {path} measured {Path(scene).name} with scale {_format(scale)} and offset '
                f'{_format(offset)}, but it is read with scale {_format(radiometry.scale)} and offset '
                f'{_format(radiometry.offset)}; measure it again, or set `offset` to the value used there.'
            )
            raise ConfigurationError(msg)


def _format(values: Floats) -> str:
    return ', '.join(f'{value:g}' for value in sorted(set(values)))


def read_statistics(path: str | os.PathLike[str], bands: Sequence[str], unit: str) -> FileStatistics:
    """Read mean and standard deviation of some bands, by name.

    Args:
        path: The file.
        bands: Canonical names.
        unit: Expected unit, see :func:`unit_of`.

    Returns:
        The statistics.

    Raises:
        ConfigurationError: If the file cannot be read, is not a statistics file, or has another unit.
        BandError: If it lacks a band, or a band is constant.
    """
    content = _load(path)
    try:
        names = [canonical_band_name(str(name)) for name in content['bands']]
        mean, std = ([float(value) for value in content[key]] for key in ('mean', 'std'))
        pixels, scenes = int(content['pixels']), len(content['scenes'])
        found, sensor = content['unit'], content['sensor']
    except (KeyError, TypeError, ValueError) as error:
        raise _unusable(path, f'{type(error).__name__}: {error}') from error
    if not len(set(names)) == len(names) == len(mean) == len(std):
        raise _unusable(path, f'{len(names)} bands, {len(mean)} means and {len(std)} standard deviations')
    if not np.isfinite(mean + std).all():
        raise _unusable(path, 'numbers that are not finite')
    if found != unit:
        msg = (
            f'statistics: {path} has the unit {found!r} and these scenes have {unit!r}; measure them with the same '
            'sensor (`statistics --sensor NAME`, `--data.sensor NAME`).'
        )
        raise ConfigurationError(msg)
    missing = [band for band in bands if band not in names]
    if missing:
        msg = (
            f'statistics: {path} lacks band {", ".join(missing)} (it has {", ".join(names)}); measure the scenes again.'
        )
        raise BandError(msg)
    positions = [names.index(band) for band in bands]
    constant = [names[i] for i in positions if std[i] <= 0]
    if constant:
        raise BandError(f'statistics: {path}: {", ".join(constant)} is constant; leave it out of `bands`.')
    try:
        radiometries = _radiometries(content['scenes'], positions)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise _unusable(path, f'scenes: {type(error).__name__}: {error}') from error
    mean, std = ([column[i] for i in positions] for column in (mean, std))
    return FileStatistics(tuple(mean), tuple(std), pixels, scenes, sensor, radiometries)


def _radiometries(
    scenes: Sequence[Mapping[str, Any]], positions: Sequence[int]
) -> dict[str, list[tuple[Floats, Floats]]]:
    """Return scales and offsets of some bands by file name."""
    found: dict[str, list[tuple[Floats, Floats]]] = defaultdict(list)
    for scene in scenes:
        scale, offset = (tuple(float(scene[key][i]) for i in positions) for key in ('scale', 'offset'))
        found[Path(scene['path']).name].append((scale, offset))
    return dict(found)


def _load(path: str | os.PathLike[str]) -> dict[str, Any]:
    try:
        content = yaml.safe_load(Path(path).expanduser().read_text(encoding='utf-8'))
    except OSError as error:
        reason = error.strerror or error
        msg = f'statistics: {path} cannot be read ({reason}); give the YAML file of the command `statistics`.'
        raise ConfigurationError(msg) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise _unusable(path, str(error).splitlines()[0]) from error
    if not isinstance(content, dict):
        raise _unusable(path, f'a {type(content).__name__}')
    return content


def _unusable(path: str | os.PathLike[str], reason: str) -> ConfigurationError:
    return ConfigurationError(
        f'statistics: {path} is not a file of band statistics ({reason}); write it with the command `statistics`.'
    )
