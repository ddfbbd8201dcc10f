"""Rewrite a raster as one tiled GeoTIFF, north up and without sidecar files."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader, DatasetWriter
from rasterio.vrt import WarpedVRT

from torchgeo_msssl.errors import ConfigurationError, OutputError, SceneReadError
from torchgeo_msssl.files import atomic_path
from torchgeo_msssl.geo.checks.speed import TILE
from torchgeo_msssl.geo.checks.storage import check_truncation
from torchgeo_msssl.geo.grid import PixelGrid
from torchgeo_msssl.geo.headers import describe_file
from torchgeo_msssl.geo.open_datasets import open_raster
from torchgeo_msssl.geo.scene import Scene
from torchgeo_msssl.geo.warp import warp_scene
from torchgeo_msssl.geo.write import copy_raster


def rewrite_raster(
    source: str,
    target: str | os.PathLike[str],
    interleave: Literal['keep', 'pixel', 'band'] = 'keep',
    scale: float | None = None,
) -> None:
    """Copy a raster with its pixels, band names, masks, nodata value, tags and scales.

    A raster that is not north up is warped (nearest neighbour); the new corners get the nodata value, or are masked by
    an alpha band if there is none.

    Args:
        source: The raster, together with its sidecar files.
        target: GeoTIFF to write: tiles of 256 pixels, ZSTD, internal mask. It appears complete or not at all.
        interleave: Whether the bands of a tile are stored together (``pixel``), separately (``band``), or as they are.
        scale: Reflectance per digital number to declare for all bands; None keeps the declared scales.

    Raises:
        ConfigurationError: If the target is the source.
        SceneReadError: If the source cannot be opened or is damaged.
        OutputError: If the target cannot be written.
    """
    if os.path.exists(target) and os.path.samefile(source, target):
        raise ConfigurationError(f'{target}: is the source itself; choose another path.')
    with open_raster(source) as dataset, atomic_path(target) as temporary:
        damage = next(check_truncation(source), None)
        try:
            with rasterio.Env(GDAL_TIFF_INTERNAL_MASK='YES'), _north_up(source, dataset) as upright:
                copy_raster(upright, temporary, driver='GTiff', **_options(dataset, interleave))
            with rasterio.open(temporary, 'r+') as copy:
                _describe(copy, dataset, scale)
        except RasterioError as error:
            cause = str(error.__cause__ or error)
            if damage or not _is_readable(dataset):
                cause = damage.detail if damage else cause
                raise SceneReadError(
                    f'{source} is damaged ({cause}), so it cannot be rewritten; replace it.'
                ) from error
            raise OutputError(
                f'{target} cannot be written ({cause}); choose another path or free disk space.'
            ) from error


def _is_readable(dataset: DatasetReader) -> bool:
    """Whether all of a file can be read; the error of a copy does not tell which of the two files failed."""
    try:
        for _, window in dataset.block_windows(1):
            dataset.read(window=window)
    except RasterioError:
        return False
    return True


def _options(dataset: DatasetReader, interleave: str) -> dict[str, Any]:
    dtype = np.dtype(np.result_type(*dataset.dtypes))
    current = 'band' if dataset.profile.get('interleave') == 'band' else 'pixel'
    options = {
        'tiled': True,
        'blockxsize': TILE,
        'blockysize': TILE,
        'compress': 'zstd',
        'zstd_level': 1,
        'predictor': {'f': 3, 'c': 1}.get(dtype.kind, 2),
        'bigtiff': 'IF_SAFER',
        'interleave': current if interleave == 'keep' else interleave,
    }
    if dataset.tags(1, ns='IMAGE_STRUCTURE').get('NBITS'):
        options['nbits'] = 8 * dtype.itemsize  # a copy would have as few bits, and predictors need whole bytes
    return options


@contextmanager
def _north_up(source: str, dataset: DatasetReader) -> Iterator[DatasetReader]:
    """Yield the dataset itself, or a view of it that is warped to north up (nearest neighbour)."""
    placed = dataset.crs is not None and not dataset.transform.is_identity
    if not placed or PixelGrid(dataset.crs, dataset.transform, *dataset.shape).is_north_up:
        yield dataset
        return
    grid = warp_scene(Scene('', (describe_file(source),), None, None), dataset.crs, None).grid
    has_alpha = ColorInterp.alpha in dataset.colorinterp
    with WarpedVRT(
        dataset,
        crs=grid.crs,
        transform=grid.transform,
        height=grid.height,
        width=grid.width,
        resampling=Resampling.nearest,
        nodata=dataset.nodata,
        add_alpha=dataset.nodata is None and not has_alpha,  # masks the new corners
    ) as vrt:
        yield vrt


def _describe(copy: DatasetWriter, dataset: DatasetReader, scale: float | None) -> None:
    """Write the metadata that a warped view has lost, and the scale."""
    more = copy.count - dataset.count  # an alpha band
    names = (*dataset.descriptions, *['alpha'] * more)
    if copy.descriptions != names:
        copy.descriptions = names
    if scale is not None:
        copy.scales, copy.offsets = [scale] * copy.count, [0.0] * copy.count
    elif more:
        copy.scales, copy.offsets = [*dataset.scales, *[1.0] * more], [*dataset.offsets, *[0.0] * more]
