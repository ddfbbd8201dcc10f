"""Consistency checks across scenes."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rasterio.crs import CRS

from torchgeo_msssl.bands import Sensor
from torchgeo_msssl.geo.checks.finding import Finding
from torchgeo_msssl.geo.checks.interpretation import radiometries
from torchgeo_msssl.geo.grid import PixelGrid
from torchgeo_msssl.geo.ground_size import ground_size
from torchgeo_msssl.geo.scene import Scene

#: Relative difference below which pixel sizes count as equal.
_TOLERANCE = 0.02


def check_consistency(scenes: Sequence[Scene], named: Sensor | None) -> Iterator[Finding]:
    """Find mixtures of CRS, resolution, dtype, bands and offsets.

    Args:
        scenes: Scenes that can be opened.
        named: Sensor that the user named, or None.

    Yields:
        Findings about all scenes together.
    """
    groups: dict[frozenset[str], list[Scene]] = defaultdict(list)
    for scene in scenes:
        groups[frozenset(scene.bands)].append(scene)
    common = [band for band in scenes[0].bands if all(band in bands for bands in groups)] if scenes else []
    if len(groups) > 1:
        message = 'The scenes have different bands; only the bands that all of them have can be used together.'
        if not common:
            message = 'The scenes have no band in common, so each kind is checked and has to be used by itself.'
        remedies = (f'--data.bands [{",".join(common)}]',) if common else ()
        detail = _count_values(scenes, lambda scene: ', '.join(scene.bands))
        yield Finding('note', 'mixed_bands', message, _paths(scenes), detail, remedies=remedies)
    for some in [list(scenes)] if common else groups.values():
        if len(some) > 1:
            yield from _mixed_crs(some)
            yield from _mixed_resolution(some)
            yield from _mixed_dtype(some)
            yield from _mixed_offsets(some, named)


def _mixed_crs(scenes: Sequence[Scene]) -> Iterator[Finding]:
    if len({scene.grid.crs for scene in scenes}) > 1:
        message = (
            'The scenes have different coordinate reference systems: this package reads every chip on the grid of its '
            'scene, TorchGeo warps the chips of all scenes but the first.'
        )
        detail = _count_values(scenes, lambda scene: scene.grid.crs.to_string())
        remedies = (f'--data.crs {_metric_crs(scenes)}',)
        yield Finding('note', 'mixed_crs', message, _paths(scenes), detail, remedies=remedies)


def _mixed_resolution(scenes: Sequence[Scene]) -> Iterator[Finding]:
    crss = {scene.grid.crs for scene in scenes}
    # a grid in degrees counts as one grid, although its pixels change on the ground with latitude
    in_degrees = len(crss) == 1 and next(iter(crss)).is_geographic
    size, unit = (_degrees, '°') if in_degrees else (_metres, 'm')
    sizes = sorted(size(scene.grid) for scene in scenes)
    if sizes[-1] <= sizes[0] * (1 + _TOLERANCE):
        return
    message = (
        'The scenes have different pixel sizes, so chips of different scenes cover different areas; resample them to '
        'one pixel size, or train on them separately.'
    )
    detail = _count_values(scenes, lambda scene: f'{size(scene.grid):.4g} {unit}')
    # the pixel size is in units of the CRS, which have to be metres for scenes in several CRS
    crs = '' if len(crss) == 1 else f'--data.crs {_metric_crs(scenes)} '
    largest = sizes[-1] if crs else max(max(scene.grid.res) for scene in scenes)
    remedies = (f'{crs}--data.res {largest:.6g}',)
    yield Finding('error', 'mixed_resolution', message, _paths(scenes), detail, remedies=remedies)


def _mixed_dtype(scenes: Sequence[Scene]) -> Iterator[Finding]:
    if len({scene.dtype for scene in scenes}) > 1:
        message = 'The scenes have different data types; make sure that their values have the same meaning.'
        detail = _count_values(scenes, lambda scene: str(scene.dtype))
        yield Finding('note', 'mixed_dtype', message, _paths(scenes), detail)


def _mixed_offsets(scenes: Sequence[Scene], named: Sensor | None) -> Iterator[Finding]:
    offsets = {
        scene.path: f'{how.offset[0]:g}' for scene, how in zip(scenes, radiometries(scenes, named), strict=False)
    }
    if len(set(offsets.values())) > 1:
        message = (
            'The scenes are from before and after Sentinel-2 baseline 04.00: this package adds the offset of each '
            'scene, TorchGeo does not.'
        )
        detail = 'offsets: ' + _count_values(scenes, lambda scene: offsets[scene.path])
        yield Finding('note', 'mixed_offsets', message, _paths(scenes), detail)


def _paths(scenes: Sequence[Scene]) -> tuple[str, ...]:
    return tuple(scene.path for scene in scenes)


def _metric_crs(scenes: Sequence[Scene]) -> str:
    """Return the most frequent projected CRS, or else the first CRS."""
    known = [scene.grid.crs for scene in scenes if scene.grid.crs.is_projected] or [scenes[0].grid.crs]
    crs: CRS = max(known, key=known.count)
    return crs.to_string()


def _count_values(scenes: Sequence[Scene], value_of: Callable[[Scene], Any]) -> str:
    """List the values of a property with the number of scenes, the most frequent first."""
    groups: dict[str, list[Scene]] = defaultdict(list)
    for scene in scenes:
        groups[value_of(scene)].append(scene)
    ordered = sorted(groups.items(), key=lambda item: -len(item[1]))
    return '; '.join(f'{text} ({len(some)}, such as {some[0].name})' for text, some in ordered)


def _degrees(grid: PixelGrid) -> float:
    return math.sqrt(math.prod(grid.res))


def _metres(grid: PixelGrid) -> float:
    """Return the square root of a pixel's area on the ground, in metres."""
    return math.sqrt(math.prod(ground_size(grid)))
