"""Regions of ground for training, validation and test, as files and pictures."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import geopandas as gpd
import shapely
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from pyogrio.errors import DataSourceError
from shapely.geometry.base import BaseGeometry
from shapely.plotting import patch_from_polygon

from torchgeo_msssl.datasets.scenes import Scenes
from torchgeo_msssl.errors import ConfigurationError, EmptyIntersectionError, MissingCRSError
from torchgeo_msssl.files import atomic_path
from torchgeo_msssl.samplers.blocks import split_blocks, split_scenes

PARTS = ('train', 'val', 'test')
#: Training ground whose labels are left aside.
UNUSED = 'train, label not used'

_COLOURS = {'train': 'tab:green', UNUSED: 'lightgrey', 'val': 'tab:orange', 'test': 'tab:blue'}
#: Share of a region that another one may cover: what coordinates lose on their way through a file.
_ROUNDING = 1e-6


def split_ground(
    scenes: Scenes, split: str, fractions: Sequence[float], block_size: int, seed: int
) -> dict[str, BaseGeometry]:
    """Divide the ground of scenes.

    Args:
        scenes: Scenes.
        split: ``blocks``, ``scenes``, or a file of polygons for :func:`read_split`.
        fractions: Shares for training, validation and test.
        block_size: Side of a block in pixels.
        seed: Of the deal.

    Returns:
        Regions in the scenes' CRS: ``train``, ``val``, ``test``.

    Raises:
        ConfigurationError: If there is too little ground for the regions, or the file does not suit.
    """
    if split == 'blocks':
        return dict(zip(PARTS, split_blocks(scenes, fractions, block_size, seed), strict=True))
    if split == 'scenes':
        return dict(zip(PARTS, split_scenes(scenes, fractions, seed), strict=True))
    return read_split(split, scenes)


def read_split(path: str | os.PathLike[str], scenes: Scenes) -> dict[str, BaseGeometry]:
    """Read regions that somebody drew, or that an earlier run left as ``split.geojson``.

    Args:
        path: Vector file whose column ``split`` says ``train``, ``val`` or ``test``; other values are left aside.
        scenes: Scenes that the regions are of.

    Returns:
        Regions in the scenes' CRS.

    Raises:
        ConfigurationError: If there is no such file or column, a region is missing, or two overlap.
        MissingCRSError: If the file has no CRS.
        EmptyIntersectionError: If a region lies on no scene.
    """
    if not Path(path).is_file():
        raise ConfigurationError(f'split: {path!s} is neither blocks nor scenes nor a file of polygons.')
    try:
        frame = gpd.read_file(path)
    except DataSourceError as error:
        raise ConfigurationError(f'split: {path!s} is no vector file ({error}); give polygons.') from error
    if 'split' not in frame:
        raise ConfigurationError(f'split: {path!s} has no column split (with train, val and test); add it.')
    if frame.crs is None:
        raise MissingCRSError(f'split: {path!s} has no CRS; save it with one.')
    frame = frame.to_crs(scenes.crs)
    ground = shapely.union_all(scenes.index.geometry.to_numpy())
    regions = {}
    for part in PARTS:
        shapes = frame.geometry[frame['split'] == part].to_numpy()
        if len(shapes) == 0:
            raise ConfigurationError(f'split: {path!s} has no polygon whose column split says {part}; add one.')
        regions[part] = shapely.union_all(shapely.make_valid(shapes))
        if not regions[part].intersects(ground):
            raise EmptyIntersectionError(f'split: the region {part} of {path!s} lies on none of the scenes; move it.')
    for one, other in (('train', 'val'), ('train', 'test'), ('val', 'test')):
        common = regions[one].intersection(regions[other]).area
        if common > _ROUNDING * min(regions[one].area, regions[other].area):
            raise ConfigurationError(
                f'split: in {path!s} the regions {one} and {other} overlap, so that the scores would be those of '
                'ground that was trained on; draw them apart.'
            )
    return regions


def write_split(folder: Path, parts: Mapping[str, BaseGeometry], scenes: Scenes) -> None:
    """Write ``split.geojson``, which :func:`read_split` takes, and ``split.png``.

    Args:
        folder: Run folder.
        parts: Regions in the scenes' CRS; empty ones are left out.
        scenes: Scenes, whose outlines are drawn.

    Raises:
        OutputError: If a file cannot be written.
    """
    parts = {name: region for name, region in parts.items() if not region.is_empty}
    frame = gpd.GeoDataFrame({'split': list(parts)}, geometry=list(parts.values()), crs=scenes.crs)
    with atomic_path(folder / 'split.geojson') as temporary:
        # a centimetre, what the format has by default, is much for a drone's pixels
        frame.to_crs('EPSG:4326').to_file(temporary, driver='GeoJSON', engine='pyogrio', COORDINATE_PRECISION=12)
    figure = Figure(figsize=(6, 6), layout='constrained')
    axes = figure.subplots()
    for name, region in parts.items():
        for polygon in shapely.get_parts(region):
            axes.add_patch(patch_from_polygon(polygon, facecolor=_COLOURS[name], edgecolor='white', linewidth=0.5))
    for box in scenes.index.geometry:
        axes.plot(*box.exterior.xy, color='black', linewidth=1)
    handles = [Patch(color=_COLOURS[name], label=name) for name in parts]
    figure.legend(handles=handles, loc='outside lower center', ncols=len(handles))
    axes.autoscale_view()
    axes.set_aspect('equal')
    axes.set_title('split of the ground')
    with atomic_path(folder / 'split.png') as temporary:
        figure.savefig(temporary, dpi=100)
