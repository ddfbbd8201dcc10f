"""The YAML file that keeps the statistics of scenes."""

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
from torchgeo_msssl.geo.band_statistics.summary import Survey
from torchgeo_msssl.geo.radiometry import Radiometry
from torchgeo_msssl.geo.scene import Scene

type Floats = tuple[float, ...]

_HEADER = """\
# Band statistics of scenes, over the pixels that are valid in all bands. Reflectance is (digital number + offset)
# * scale; scale and offset are those of the first scene. Data modules read it: --data.statistics THIS_FILE.
"""


def unit_of(sensor: Sensor | None) -> str:
    """What the values of scenes are called: reflectance where the sensor is known, else digital numbers."""
    return 'reflectance' if sensor else 'digital number'


def statistics_content(
    survey: Survey,
    scenes: Sequence[Scene],
    bands: Sequence[str],
    radiometries: Sequence[Radiometry],
    sensor: Sensor | None,
) -> dict[str, Any]:
    """Gather what the file says, as plain values.

    Args:
        survey: What the values are.
        scenes: The scenes.
        bands: Canonical names.
        radiometries: Scale and offset of each scene.
        sensor: Their sensor, if known.

    Returns:
        The content of the file.
    """
    first = radiometries[0]
    return {
        'sensor': sensor.name if sensor else None,
        'unit': unit_of(sensor),
        'bands': list(bands),
        'mean': survey.moments.mean.tolist(),
        'std': survey.moments.std.tolist(),
        'min': survey.least.tolist(),
        'max': survey.most.tolist(),
        'percentiles': {q: row.tolist() for q, row in zip(PERCENTILES, survey.percentiles, strict=True)},
        'scale': list(map(float, first.scale)),
        'offset': list(map(float, first.offset)),
        'pixels': survey.moments.count,
        'valid_fraction': survey.valid_fraction.tolist(),
        'scenes': [
            {
                'path': scene.path,
                'pixels': pixels,
                'valid_fraction': pixels / scene.grid.window.area,
                'scale': list(map(float, how.scale)),
                'offset': list(map(float, how.offset)),
                'reason': how.reason,
            }
            for scene, pixels, how in zip(scenes, survey.scene_pixels, radiometries, strict=True)
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
class KeptStatistics:
    """What a data module takes from the file, in the order of its own bands.

    Attributes:
        mean: Of each band, in ``unit``.
        std: Of each band.
        pixels: Pixels that they are of.
        scenes: Scenes that they are of.
        sensor: Name of the sensor of those, or None.
        radiometries: Scales and offsets of the bands that each scene was measured with, by the name of its file; a name
            may come from several folders.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    pixels: int
    scenes: int
    sensor: str | None
    radiometries: Mapping[str, Sequence[tuple[Floats, Floats]]]

    def check_scene(self, path: str, scene: str, how: Radiometry) -> None:
        """See that a scene was measured as it is read.

        Args:
            path: The statistics file.
            scene: Path of the scene; what the file does not name is not looked at.
            how: Scale and offset with which it is read.

        Raises:
            ConfigurationError: If it was not.
        """
        known = self.radiometries.get(Path(scene).name, ())
        if known and (how.scale, how.offset) not in known:
            scale, offset = known[0]
            msg = (
                f'statistics: {path} measured {Path(scene).name} with scale {_told(scale)} and offset {_told(offset)}, '
                f'and here it has scale {_told(how.scale)} and offset {_told(how.offset)}; measure it anew, or set '
                '`offset` as it was set there.'
            )
            raise ConfigurationError(msg)


def _told(values: Floats) -> str:
    return ', '.join(f'{value:g}' for value in sorted(set(values)))


def read_statistics(path: str | os.PathLike[str], bands: Sequence[str], unit: str) -> KeptStatistics:
    """Read mean and standard deviation of some bands, by name.

    Args:
        path: The file.
        bands: Canonical names, in the order wanted.
        unit: What the values are to be, see :func:`unit_of`.

    Returns:
        The statistics.

    Raises:
        ConfigurationError: If the file cannot be read, holds no statistics, or such in another unit.
        BandError: If it lacks a band, or a band has one value everywhere.
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
            f'statistics: {path} is in unit {found!r} and these scenes are in {unit!r}; measure them with the same '
            'sensor (`statistics --sensor NAME`, `--data.sensor NAME`).'
        )
        raise ConfigurationError(msg)
    missing = [band for band in bands if band not in names]
    if missing:
        msg = (
            f'statistics: {path} lacks band {", ".join(missing)} (it has {", ".join(names)}); measure the scenes anew.'
        )
        raise BandError(msg)
    at = [names.index(band) for band in bands]
    constant = [names[i] for i in at if std[i] <= 0]
    if constant:
        raise BandError(f'statistics: {path}: {", ".join(constant)} has one value everywhere; leave it out of `bands`.')
    try:
        radiometries = _radiometries(content['scenes'], at)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise _unusable(path, f'scenes: {type(error).__name__}: {error}') from error
    return KeptStatistics(tuple(mean[i] for i in at), tuple(std[i] for i in at), pixels, scenes, sensor, radiometries)


def _radiometries(scenes: Sequence[Mapping[str, Any]], at: Sequence[int]) -> dict[str, list[tuple[Floats, Floats]]]:
    """Scales and offsets of some bands by the names of files."""
    found: dict[str, list[tuple[Floats, Floats]]] = defaultdict(list)
    for scene in scenes:
        scale, offset = (tuple(float(scene[key][i]) for i in at) for key in ('scale', 'offset'))
        found[Path(scene['path']).name].append((scale, offset))
    return dict(found)


def _load(path: str | os.PathLike[str]) -> dict[str, Any]:
    try:
        content = yaml.safe_load(Path(path).expanduser().read_text(encoding='utf-8'))
    except OSError as error:
        msg = f'statistics: {path} cannot be read ({error.strerror or error}); give the YAML of the statistics command.'
        raise ConfigurationError(msg) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise _unusable(path, str(error).splitlines()[0]) from error
    if not isinstance(content, dict):
        raise _unusable(path, f'a {type(content).__name__}')
    return content


def _unusable(path: str | os.PathLike[str], what: str) -> ConfigurationError:
    return ConfigurationError(
        f'statistics: {path} holds no band statistics ({what}); write it with `python -m torchgeo_msssl statistics`.'
    )
