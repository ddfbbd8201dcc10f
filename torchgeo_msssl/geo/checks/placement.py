"""Checks of the georeference and of sidecar files."""

import json
from collections.abc import Iterator
from pathlib import Path

import rasterio
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from torchgeo_msssl.geo.checks.finding import Finding, edit_command, rewrite_command
from torchgeo_msssl.geo.checks.speed import measure
from torchgeo_msssl.geo.grid import PixelGrid
from torchgeo_msssl.geo.ground_size import ground_size
from torchgeo_msssl.geo.open_datasets import is_remote
from torchgeo_msssl.geo.scene import Scene
from torchgeo_msssl.geo.unplaced import warp_command
from torchgeo_msssl.geo.warp import warp_scene

_STOCK = (
    "TorchGeo's own command line and datasets ignore sidecar files (GDAL_DISABLE_READDIR_ON_OPEN=EMPTY_DIR); this "
    'package reads them.'
)


def check_placement(path: str, dataset: DatasetReader) -> Iterator[Finding]:
    """Find missing georeferences, and grids in degrees."""
    if warp := warp_command(dataset):
        message = (
            'The file is placed by ground control points or rational polynomial coefficients only; warp it to a grid, '
            'in the CRS of its place.'
        )
        yield Finding('error', 'no_grid', message, (path,), remedies=(warp,))
        return
    if dataset.crs is None:
        message = (
            'The file has no coordinate reference system, so its location is unknown; assign the right one. '
            'Pretraining and probes need none.'
        )
        yield Finding('error', 'no_crs', message, (path,), remedies=(edit_command(path, '--crs', 'EPSG:CODE'),))
    if dataset.transform.is_identity:
        message = 'The file has no geotransform, so its location is unknown; set pixel size and upper left corner.'
        example = json.dumps(['XSIZE', 0.0, 'LEFT', 0.0, '-YSIZE', 'TOP']).replace('"', '')
        yield Finding('error', 'no_transform', message, (path,), remedies=(edit_command(path, '--transform', example),))
    elif dataset.crs is not None and dataset.crs.is_geographic:
        grid = PixelGrid(dataset.crs, dataset.transform, *dataset.shape)
        across, down = ground_size(grid)
        message = 'The grid is in degrees: its pixels are not square on the ground, and their size depends on latitude.'
        detail = f'a pixel is {across:.4g} m wide and {down:.4g} m high'
        utm = _utm(*grid.centre)
        remedy = f'--data.crs {utm} --data.res {(across * down) ** 0.5:.4g}'
        yield Finding('note', 'degrees', message, (path,), detail, remedies=(remedy,))


def check_turned(scene: Scene, measured: bool) -> Iterator[Finding]:
    """Find files that are not north up; measure the time to read their chips if requested."""
    message = (
        'The file is not north up: every chip is warped as it is read (nearest neighbour), and TorchGeo misplaces it.'
    )
    for file in scene.files:
        if file.grid.is_north_up:
            continue
        step = file.grid.transform
        detail = f'a pixel to the right is {step.a:g} east and {step.d:g} north'
        turned = warp_scene(Scene(scene.name, (file,), scene.date, scene.nodata), file.grid.crs, None)
        indexes = [index for index, name in enumerate(file.names, start=1) if name != 'alpha']
        speed = measure(file.path, indexes, turned) if measured else None
        remedies = (rewrite_command(file.path), '--data.cache disk')
        if speed:
            detail = f'{detail}: {speed}'
        factor = speed.factor if speed else None
        yield Finding('slow', 'not_north_up', message, (file.path,), detail, factor, remedies)


def _utm(longitude: float, latitude: float) -> str:
    """Return the UTM zone of a place, without the exceptions of Norway and Svalbard."""
    zone = int((longitude + 180) // 6) % 60 + 1
    return f'EPSG:{326 if latitude >= 0 else 327}{zone:02d}'


def check_sidecars(path: str, dataset: DatasetReader) -> Iterator[Finding]:
    """Find metadata and overviews that are stored in sidecar files."""
    sidecars = [name for name in dataset.files[1:] if Path(name).parent == Path(path).parent]
    if is_remote(path) or not sidecars or dataset.driver == 'VRT':
        return
    try:
        with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN='EMPTY_DIR'), rasterio.open(path) as alone:
            lost = _lost(dataset, alone)
    except RasterioError as error:
        lost = [f'what is needed to open it ({error})']
    names = ', '.join(Path(name).name for name in sidecars)
    if lost:
        message = f'Metadata are in sidecar files, which have to be copied together with the raster. {_STOCK}'
        detail = f'only {names} has {", ".join(lost)}'
        yield Finding('note', 'sidecars', message, (path,), detail, remedies=(rewrite_command(path),))
    elif any(name.endswith(('.ovr', '.msk')) for name in sidecars):
        message = 'The overviews are in a separate file; training does not use them.'
        yield Finding('note', 'external_overviews', message, (path,), names)


def _lost(dataset: DatasetReader, alone: DatasetReader) -> list[str]:
    """List the metadata that a dataset does not have without its sidecar files."""
    pairs = {
        'the coordinate reference system': (dataset.crs, alone.crs),
        'the geotransform': (dataset.transform, alone.transform),
        'the nodata value': (repr(dataset.nodatavals), repr(alone.nodatavals)),
        'the band names': (dataset.descriptions, alone.descriptions),
        'the scale and offset': ((dataset.scales, dataset.offsets), (alone.scales, alone.offsets)),
        'the mask': (_masked(dataset), _masked(alone)),
    }
    return [what for what, (one, other) in pairs.items() if one != other]


def _masked(dataset: DatasetReader) -> bool:
    return any(MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags for flags in dataset.mask_flag_enums)
