"""What scenes that are each in order do to each other."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rasterio.crs import CRS

from torchgeo_msssl.bands import Sensor
from torchgeo_msssl.geo.checks.finding import Finding
from torchgeo_msssl.geo.checks.interpretation import radiometries
from torchgeo_msssl.geo.checks.placement import ground_size
from torchgeo_msssl.geo.grid import PixelGrid
from torchgeo_msssl.geo.scene import Scene

#: Pixel sizes that differ by less than this are taken for one.
_SAME_SIZE = 0.02


def check_together(scenes: Sequence[Scene], named: Sensor | None) -> Iterator[Finding]:
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
        message = 'The scenes have different bands; only those that all of them have can be used together.'
        if not common:
            message = (
                'The scenes have no band in common, so they cannot be used together; each kind is looked at apart.'
            )
        remedies = (f'--data.bands [{",".join(common)}]',) if common else ()
        detail = _told(scenes, lambda scene: ', '.join(scene.bands))
        yield Finding('note', 'mixed_bands', message, tuple(scene.path for scene in scenes), detail, None, remedies)
    for some in [list(scenes)] if common else groups.values():
        if len(some) > 1:
            yield from _check_kind(some, named)


def _check_kind(scenes: Sequence[Scene], named: Sensor | None) -> Iterator[Finding]:
    """Find mixtures among scenes that have a band in common."""
    paths = tuple(scene.path for scene in scenes)
    yield from _mixed_crs(scenes, paths)
    crss = {scene.grid.crs for scene in scenes}
    # a grid in degrees is one grid, though its pixels change on the ground with latitude
    size, unit = (_degrees, '°') if len(crss) == 1 and crss.pop().is_geographic else (_metres, 'm')
    sizes = sorted(size(scene.grid) for scene in scenes)
    if sizes[-1] > sizes[0] * (1 + _SAME_SIZE):
        message = (
            'The scenes have pixels of several sizes, so a chip shows more ground in one than in another; bring them '
            'to one size, or train apart.'
        )
        detail = _told(scenes, lambda scene: f'{size(scene.grid):.4g} {unit}')
        # a size is in units of the CRS, which have to be metres for all then
        crs = '' if len({scene.grid.crs for scene in scenes}) == 1 else f'--data.crs {_metric(scenes)} '
        remedy = f'{crs}--data.res {max(max(scene.grid.res) for scene in scenes) if not crs else sizes[-1]:.6g}'
        yield Finding('wrong', 'mixed_resolution', message, paths, detail, None, (remedy,))
    if len({scene.dtype for scene in scenes}) > 1:
        message = 'The scenes hold numbers of several types; see that these mean the same.'
        yield Finding('note', 'mixed_dtype', message, paths, _told(scenes, lambda scene: str(scene.dtype)))
    hows = radiometries(scenes, named)
    if len({how.offset for how in hows}) > 1:
        message = 'The scenes are of both eras of Sentinel-2: this package adds the offset of each, TorchGeo of none.'
        told = dict(zip((scene.path for scene in scenes), (f'{how.offset[0]:g}' for how in hows), strict=True))
        yield Finding('note', 'mixed_offsets', message, paths, 'offsets: ' + _told(scenes, lambda s: told[s.path]))


def _mixed_crs(scenes: Sequence[Scene], paths: tuple[str, ...]) -> Iterator[Finding]:
    if len({scene.grid.crs for scene in scenes}) > 1:
        message = (
            'The scenes are in several coordinate reference systems: chips of this package stay on the grid of their '
            'scene, TorchGeo warps every chip of all but the first.'
        )
        detail = _told(scenes, lambda scene: scene.grid.crs.to_string())
        remedy = f'--data.crs {_metric(scenes)}'
        yield Finding('note', 'mixed_crs', message, paths, detail, None, (remedy,))


def _metric(scenes: Sequence[Scene]) -> str:
    """The most frequent projected CRS, else the first one."""
    known = [scene.grid.crs for scene in scenes if scene.grid.crs.is_projected] or [scenes[0].grid.crs]
    crs: CRS = max(known, key=known.count)
    return crs.to_string()


def _told(scenes: Sequence[Scene], what: Callable[[Scene], Any]) -> str:
    """How many scenes have what, the most frequent first."""
    groups: dict[str, list[Scene]] = defaultdict(list)
    for scene in scenes:
        groups[what(scene)].append(scene)
    ordered = sorted(groups.items(), key=lambda item: -len(item[1]))
    return '; '.join(f'{text} ({len(some)}, such as {some[0].name})' for text, some in ordered)


def _degrees(grid: PixelGrid) -> float:
    return math.sqrt(math.prod(grid.res))


def _metres(grid: PixelGrid) -> float:
    """Length of a pixel's side on the ground, about: the root of its area, in metres."""
    across, down = ground_size(grid)
    return float((across * down) ** 0.5)
