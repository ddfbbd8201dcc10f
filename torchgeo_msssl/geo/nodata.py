"""Tell data from nodata values.

Files and programs round nodata values of floats differently, so floats are compared with GDAL's tolerance.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchgeo_msssl.bands import is_auxiliary

#: Floats beyond it in either direction are never data: they are the limits of the types, such as -3.4e38.
LARGEST_VALUE = 1e30

#: Half of the relative difference from the nodata value that is rounding, also of 64 bits: ``ARE_REAL_EQUAL`` in GDAL's
#: gdal_priv_templates.hpp.
_TOLERANCE = 2 * float(np.finfo(np.float32).eps)


def representable(value: float, dtype: np.dtype[Any]) -> bool:
    """Whether a dtype can represent a value: integers exactly, floats within their range (including NaN).

    Rounding is not out of range: -3.4028235e+38, as virtual rasters spell it, is the least number of float32.
    """
    if np.issubdtype(dtype, np.floating):
        with np.errstate(over='ignore'):
            return not np.isfinite(value) or bool(np.isfinite(np.asarray(value).astype(dtype)))
    info = np.iinfo(dtype)
    return bool(np.isfinite(value) and float(value).is_integer() and info.min <= value <= info.max)


def has_data(image: NDArray[Any], nodata: float | None) -> NDArray[np.bool_]:
    """Return the mask of pixels, shape (height, width), without nodata and non-finite values in any band.

    Args:
        image: Values, shape (band, height, width). Floats beyond :data:`LARGEST_VALUE` are never data.
        nodata: Nodata value, or None.
    """
    valid = np.ones(image.shape[1:], dtype=np.bool_)
    if not image.size:
        return valid
    is_float, least = np.issubdtype(image.dtype, np.floating), image.min()
    if is_float:
        largest = min(LARGEST_VALUE, float(np.finfo(image.dtype).max))
        if not (least >= -largest and image.max() <= largest):  # also if one is NaN
            valid &= (np.abs(image) <= largest).all(axis=0)
            least = -np.inf
    if nodata is None or not np.isfinite(nodata) or not representable(nodata, image.dtype):
        return valid
    if least > nodata + (3 * _TOLERANCE * abs(nodata) if is_float else 0):  # a quick test that most windows pass
        return valid
    good = _differs(image, nodata) if is_float else image != np.asarray(nodata, dtype=image.dtype)
    if not good.all():  # much faster than the reduction along bands
        valid &= good.all(axis=0)
    return valid


def _differs(image: NDArray[Any], nodata: float) -> NDArray[np.bool_]:
    """Whether floats differ from a value by more than rounding."""
    image = image.astype(np.promote_types(image.dtype, np.float32), copy=False)
    value = image.dtype.type(nodata)
    with np.errstate(invalid='ignore', over='ignore'):
        difference: NDArray[Any] = np.abs(image - value)
        return (image != value) & ~(difference < np.abs(image + value) * _TOLERANCE)


def with_data(
    image: NDArray[Any], bands: Sequence[str], declared: float | None, assumed: float | None
) -> NDArray[np.bool_]:
    """Return the mask of pixels, shape (height, width), that have data in all bands.

    Args:
        image: Values, shape (band, height, width).
        bands: Canonical names of the bands.
        declared: Nodata value that the file declares, or None.
        assumed: Nodata value of the scene for files that declare none. It does not apply to quality layers, in which 0
            (such as in QA60) is data.
    """
    if declared is not None:
        return has_data(image, declared)
    spectral = [i for i, band in enumerate(bands) if not is_auxiliary(band)]
    if len(spectral) == len(bands):  # selecting bands would copy them
        return has_data(image, assumed)
    return has_data(image, None) & has_data(image[spectral], assumed)
