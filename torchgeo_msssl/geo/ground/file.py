"""Regions of ground as a vector file, ``split.geojson``."""

import importlib
import os
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import shapely
from rasterio.crs import CRS
from shapely.geometry.base import BaseGeometry

from torchgeo_msssl.errors import ConfigurationError, EmptyIntersectionError, MissingCRSError
from torchgeo_msssl.files import atomic_path
from torchgeo_msssl.geo.ground.area import Ground
from torchgeo_msssl.geo.ground.parts import PARTS
from torchgeo_msssl.geo.ground.table import read_table
from torchgeo_msssl.geo.vector.antimeridian import circle, cut_at_antimeridian, shifted

#: Fraction of a region that another one may cover: what coordinates lose in a file.
_ROUNDING = 1e-6
#: Decimals of a degree; the default of the format, a centimetre, is much for the pixels of a drone.
_DECIMALS = 12


def read_split(path: str | os.PathLike[str], ground: Ground, needed: Sequence[str] = PARTS) -> dict[str, BaseGeometry]:
    """Read regions that were drawn by hand or written by an earlier run.

    Args:
        path: Vector file whose column ``split`` holds ``train``, ``val`` or ``test``; other values are left out. Or a
            CSV table of scenes, see :func:`~torchgeo_msssl.geo.ground.table.read_table`.
        ground: The ground of the scenes that are split.
        needed: Parts that the file must have.

    Returns:
        Regions in the CRS of the ground by the name of the part.

    Raises:
        ConfigurationError: If there is no such file or column, a region is missing, or two overlap.
        MissingCRSError: If the file has no CRS.
        EmptyIntersectionError: If a region covers no scene.
    """
    path = os.path.expanduser(path)
    if not Path(path).is_file():
        raise ConfigurationError(
            f'split: {path!s} is neither blocks nor scenes nor a file of polygons or table of scenes.'
        )
    if Path(path).suffix.lower() == '.csv':
        return read_table(path, ground, needed)
    gpd = importlib.import_module('geopandas')  # not at the top: it takes longer to import than a small scene to chip
    try:
        frame = gpd.read_file(path)
    except RuntimeError as error:  # DataSourceError of pyogrio
        raise ConfigurationError(f'split: {path!s} is no vector file ({error}); give polygons.') from error
    if 'split' not in frame:
        raise ConfigurationError(f'split: {path!s} has no column split (with train, val and test); add it.')
    if frame.crs is None:
        raise MissingCRSError(f'split: {path!s} has no CRS; save it with one.')
    shapes, _ = cut_at_antimeridian(frame.geometry.to_numpy(), frame.crs)
    frame = frame.set_geometry(gpd.GeoSeries(shapes, frame.index, crs=frame.crs)).to_crs(ground.crs.to_wkt())
    regions: dict[str, BaseGeometry] = {}
    for part in PARTS:
        shapes = frame.geometry[frame['split'] == part].to_numpy()
        if len(shapes) == 0 and part not in needed:
            continue
        if len(shapes) == 0:
            raise ConfigurationError(f'split: {path!s} has no polygon whose column split says {part}; add one.')
        regions[part] = _repeated(shapely.union_all(shapely.make_valid(shapes)), ground)
        if not regions[part].intersects(ground.union):
            raise EmptyIntersectionError(f'split: the region {part} of {path!s} lies on none of the scenes; move it.')
    for one, other in combinations(regions, 2):
        common = regions[one].intersection(regions[other]).area
        if common > _ROUNDING * min(regions[one].area, regions[other].area):
            raise ConfigurationError(
                f'split: in {path!s} the regions {one} and {other} overlap, so that scores would be measured on '
                'ground of training; draw them apart.'
            )
    return regions


def _repeated(region: BaseGeometry, ground: Ground) -> BaseGeometry:
    """Repeat a region a turn further where scenes in degrees continue beyond 180°."""
    length = circle(ground.crs)
    left, _, right, _ = ground.union.bounds
    if length is None or max(-left, right) <= length / 2:
        return region
    return shapely.union_all([region, shifted(region, -length), shifted(region, length)])


def write_split(path: Path, regions: Mapping[str, BaseGeometry], crs: CRS) -> None:
    """Write regions that :func:`read_split` can read.

    Args:
        path: Where to write.
        regions: Regions in the CRS by the name of the part; empty ones are left out.
        crs: The CRS.

    Raises:
        OutputError: If the file cannot be written.
    """
    gpd = importlib.import_module('geopandas')
    kept = {name: region for name, region in regions.items() if not region.is_empty}
    frame = gpd.GeoDataFrame({'split': list(kept)}, geometry=list(kept.values()), crs=crs.to_wkt())
    frame = frame.to_crs('EPSG:4326')
    shapes, _ = cut_at_antimeridian(frame.geometry.to_numpy(), frame.crs)
    # edges of neighbouring blocks with other vertices may cross there, by rounding
    rounded = shapely.set_precision(shapes, 10.0**-_DECIMALS, mode='pointwise')
    frame = frame.set_geometry(shapely.make_valid(rounded))
    with atomic_path(path) as temporary:
        frame.to_file(temporary, driver='GeoJSON', layer='split', engine='pyogrio', COORDINATE_PRECISION=_DECIMALS)
