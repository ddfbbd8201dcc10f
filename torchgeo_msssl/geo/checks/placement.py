"""Where a file lies on the ground, with what of that (and of its masks and names) is kept beside it."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import rasterio
from pyproj import CRS as PROJ_CRS
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from torchgeo_msssl.geo.checks.finding import Finding, edit_command, mend_command
from torchgeo_msssl.geo.checks.speed import measure_turned
from torchgeo_msssl.geo.grid import PixelGrid
from torchgeo_msssl.geo.open_datasets import is_remote
from torchgeo_msssl.geo.scene import Scene
from torchgeo_msssl.geo.warp import warp_scene

_STOCK = (
    "TorchGeo's own command and datasets look at no file beside a raster (GDAL_DISABLE_READDIR_ON_OPEN=EMPTY_DIR); "
    'the scenes of this package do.'
)


def check_placement(path: str, dataset: DatasetReader) -> Iterator[Finding]:
    """Find what is missing or unusual in a file's georeference.

    Args:
        path: The file.
        dataset: The same, open with its sidecars.

    Yields:
        Findings.
    """
    if dataset.crs is None:
        message = 'Has no coordinate reference system, so it cannot be placed on the ground; say which one it is in.'
        yield Finding('wrong', 'no_crs', message, (path,), remedies=(edit_command(path, '--crs', 'EPSG:CODE'),))
    if dataset.transform.is_identity:
        message = 'Has no geotransform, so it cannot be placed on the ground; say the size and corner of its pixels.'
        example = json.dumps(['XSIZE', 0.0, 'LEFT', 0.0, '-YSIZE', 'TOP']).replace('"', '')
        yield Finding('wrong', 'no_transform', message, (path,), remedies=(edit_command(path, '--transform', example),))
    elif dataset.crs is not None and dataset.crs.is_geographic:
        across, down = ground_size(PixelGrid(dataset.crs, dataset.transform, *dataset.shape))
        message = 'Is in degrees, where pixels are not square on the ground and change with latitude.'
        detail = f'a pixel is {across:.4g} m wide and {down:.4g} m high'
        utm = _utm(*_centre(PixelGrid(dataset.crs, dataset.transform, *dataset.shape)))
        remedy = f'--data.crs {utm} --data.res {(across * down) ** 0.5:.4g}'
        yield Finding('note', 'degrees', message, (path,), detail, None, (remedy,))


def check_turned(scene: Scene, measured: bool) -> Iterator[Finding]:
    """Find files whose rows do not run from west to east and columns from north to south.

    Args:
        scene: The scene.
        measured: Whether to read some chips and tell the factor.

    Yields:
        Findings.

    Raises:
        SceneReadError: If a file is damaged.
    """
    message = (
        'Is not north up: each chip is warped as it is read (nearest neighbour), and TorchGeo itself misplaces it.'
    )
    for file in scene.files:
        if file.grid.is_north_up:
            continue
        step = file.grid.transform
        detail = f'a pixel to the right is {step.a:g} east and {step.d:g} north'
        bands = [name for name in file.names if name != 'alpha']
        turned = warp_scene(Scene(scene.name, (file,), scene.date, scene.nodata), file.grid.crs, None)
        speed = measure_turned(file.path, turned, bands) if measured else None
        yield Finding(
            'slow', 'not_north_up', message, (file.path,), f'{detail}: {speed}' if speed else detail,
            speed.factor if speed else None, (mend_command(file.path), '--data.cache disk'),
        )  # fmt: skip


def ground_size(grid: PixelGrid) -> tuple[float, float]:
    """Sides of a pixel on the ground.

    Args:
        grid: Grid in any CRS.

    Returns:
        Along a row and along a column, in metres, at the centre.
    """
    crs = PROJ_CRS.from_user_input(grid.crs)
    unit = float(crs.axis_info[0].unit_conversion_factor)  # metres, or radians; rasterio does not know that of all
    if not grid.crs.is_geographic:
        return grid.res[0] * unit, grid.res[1] * unit
    geod = crs.get_geod()
    assert geod is not None, 'degrees are of an ellipsoid'
    degrees = math.degrees(unit)
    x, y, width, height = (degrees * value for value in (*_centre(grid), *grid.res))
    return float(geod.inv(x, y, x + width, y)[2]), float(geod.inv(x, y, x, y + height)[2])


def _centre(grid: PixelGrid) -> tuple[float, float]:
    left, bottom, right, top = grid.bounds
    return (left + right) / 2, (bottom + top) / 2


def _utm(longitude: float, latitude: float) -> str:
    """The UTM zone of a place, exceptions of Norway and Svalbard aside."""
    zone = int((longitude + 180) // 6) % 60 + 1
    return f'EPSG:{326 if latitude >= 0 else 327}{zone:02d}'


def check_sidecars(path: str, dataset: DatasetReader) -> Iterator[Finding]:
    """Find what a file says only together with the files beside it.

    Args:
        path: The file.
        dataset: The same, open with its sidecars.

    Yields:
        Findings.
    """
    beside = [name for name in dataset.files[1:] if Path(name).parent == Path(path).parent]
    if is_remote(path) or not beside or dataset.driver == 'VRT':
        return
    try:
        with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN='EMPTY_DIR'), rasterio.open(path) as alone:
            lost = _lost(dataset, alone)
    except RasterioError as error:
        lost = [f'that it can be opened at all ({error})']
    names = ', '.join(Path(name).name for name in beside)
    if lost:
        message = f'Keeps what it needs in files beside it, which have to travel with it. {_STOCK}'
        detail = f'{names} alone say(s) {", ".join(lost)}'
        yield Finding('note', 'sidecars', message, (path,), detail, None, (mend_command(path),))
    elif any(name.endswith(('.ovr', '.msk')) for name in beside):
        message = 'Has overviews beside it; training does not use them.'
        yield Finding('note', 'external_overviews', message, (path,), names)


def _lost(dataset: DatasetReader, alone: DatasetReader) -> list[str]:
    """What a dataset says that it does not say without its sidecars."""
    pairs = {
        'the coordinate reference system': (dataset.crs, alone.crs),
        'the geotransform': (dataset.transform, alone.transform),
        'the nodata value': (repr(dataset.nodatavals), repr(alone.nodatavals)),
        'the band names': (dataset.descriptions, alone.descriptions),
        'the scale and offset': ((dataset.scales, dataset.offsets), (alone.scales, alone.offsets)),
        'where there is data (a mask)': (_masked(dataset), _masked(alone)),
    }
    return [what for what, (one, other) in pairs.items() if one != other]


def _masked(dataset: DatasetReader) -> bool:
    return any(MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags for flags in dataset.mask_flag_enums)
