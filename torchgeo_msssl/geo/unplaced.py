"""Rasters without a coordinate reference system, and how to give them a place."""

import re
from pathlib import Path

from rasterio.io import DatasetReader

from torchgeo_msssl.geo.open_datasets import open_raster

#: Names of frames of drone cameras: DJI (``DJI_0001``, ``DJI_20240601120000_0001_MS_G``), MicaSense (``IMG_0001_3``).
_FRAME = re.compile(r'^(?:DJI_(?:\d{14}_)?\d{4}(?:\D|$)|IMG_\d{4}_\d$)', re.IGNORECASE)


def is_raw_frame(dataset: DatasetReader) -> bool:
    """Return whether a raster is a single picture of a camera, which has a position but no grid on the ground.

    Args:
        dataset: Open dataset.
    """
    if dataset.crs is not None or dataset.gcps[0] or dataset.rpcs is not None:
        return False
    tags = (*dataset.tags(), *dataset.tags(ns='EXIF'))
    return any(tag.startswith('EXIF_GPS') for tag in tags) or _FRAME.match(Path(dataset.name).stem) is not None


def warp_command(dataset: DatasetReader) -> str | None:
    """Return the command that places a raster by its ground control points or rational polynomials.

    Args:
        dataset: Open dataset.

    Returns:
        A ``gdalwarp`` command, or None if the raster has neither, or a CRS.
    """
    if dataset.crs is not None or not (dataset.gcps[0] or dataset.rpcs is not None):
        return None
    path = Path(dataset.name)
    option = '' if dataset.gcps[0] else '-rpc '
    return f'gdalwarp {option}-t_srs EPSG:32631 {path} {path.with_name(f"{path.stem}_warped.tif")}'


def how_to_place(path: str) -> str:
    """Say how a raster without a CRS gets one.

    Args:
        path: The raster.

    Returns:
        The end of a sentence.

    Raises:
        SceneReadError: If it cannot be opened.
    """
    with open_raster(path) as dataset:
        if warp := warp_command(dataset):
            source = 'ground control points' if dataset.gcps[0] else 'rational polynomial coefficients'
            return f'it is placed by {source} only, so warp it to a grid, for example with `{warp}`'
        if is_raw_frame(dataset):
            return 'it is a raw frame of a camera, so build an orthomosaic first (OpenDroneMap, Metashape, Pix4D)'
    return 'assign one, such as `rio edit-info --crs EPSG:32631`'
