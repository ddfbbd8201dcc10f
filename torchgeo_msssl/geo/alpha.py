"""Tell alpha bands, which say where pixels have data, from spectral bands that are marked as alpha.

Many programs mark the fourth of four bands as alpha, whatever it is.
"""

import re
from collections.abc import Sequence

import numpy as np
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from torchgeo_msssl.bands import Sensor, canonical_band_name
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.open_datasets import pooled_raster
from torchgeo_msssl.geo.scene import BandFile

#: Descriptions that are a number and not a name.
_NUMBER_ONLY = re.compile(r'(?:band|layer)[\s_]*\d+', re.IGNORECASE)
#: Canonical descriptions of bands that are masks.
_MASKS = frozenset({'alpha', 'mask', 'opacity', 'transparency', 'datamask'})

#: Side of the sampled window in pixels.
_SIDE = 256
#: Fraction of pixels that are neither opaque nor transparent from which a band is hardly a mask: soft edges are thin.
_PARTLY_OPAQUE = 0.1


def described_name(text: str | None) -> str:
    """Return the description of a band, or an empty string if it has none or only a number, such as ``Band 3``."""
    text = (text or '').strip()
    return '' if _NUMBER_ONLY.fullmatch(text) else text


def alpha_bands(dataset: DatasetReader, sensor: Sensor | None) -> tuple[bool, ...]:
    """Find the alpha bands of an open dataset.

    A band that is marked as alpha is one, unless its description is that of something else, or the sensor that the user
    named has as many bands as the file and its names do not contradict the descriptions.

    Args:
        dataset: Open dataset.
        sensor: The sensor that the user named, or None.

    Returns:
        For each band, whether it is an alpha band.
    """
    names = [canonical_band_name(described_name(text)) for text in dataset.descriptions]
    marked = [interp == ColorInterp.alpha for interp in dataset.colorinterp]
    known = sensor.names if sensor is not None else ()
    if len(known) == len(names) and all(name in ('', other) for name, other in zip(names, known, strict=True)):
        return (False,) * len(names)
    is_mask = [not name or name.lower() in _MASKS for name in names]
    return tuple(is_alpha and mask for is_alpha, mask in zip(marked, is_mask, strict=True))


def is_masked(dataset: DatasetReader, alpha: Sequence[bool]) -> bool:
    """Whether a dataset has an alpha band or a stored mask, of one band or all, and not only a nodata value.

    Args:
        dataset: Open dataset.
        alpha: For each band, whether it is an alpha band; GDAL also takes bands for masks that are not.
    """
    return any(alpha) or any(
        MaskFlags.alpha not in flags
        and (MaskFlags.per_dataset in flags or not {MaskFlags.all_valid, MaskFlags.nodata}.intersection(flags))
        for flags in dataset.mask_flag_enums
    )


def doubtful_alpha(file: BandFile) -> int | None:
    """Find an alpha band without a description whose values are rather those of a spectral band.

    Args:
        file: Header of the file.

    Returns:
        Its index, from 1, or None. A window in the middle is read; a damaged file is left to the reader of the scene.
    """
    if 'alpha' not in file.names:
        return None
    index, grid = file.index('alpha'), file.grid
    middle = Window(max((grid.height - _SIDE) // 2, 0), max((grid.width - _SIDE) // 2, 0), _SIDE, _SIDE)
    window = middle.intersection(grid.window)
    try:
        dataset = pooled_raster(file.path)
        if window is None or described_name(dataset.descriptions[index - 1]):
            return None
        values = dataset.read(index, window=window.to_rasterio())
    except (RasterioError, OSError):
        return None
    largest = np.iinfo(values.dtype).max if values.dtype.kind in 'iu' else 1
    between = (values > 0) & (values != 255) & (values < largest)
    return index if between.mean() > _PARTLY_OPAQUE and len(np.unique(values[between])) > 2 else None
