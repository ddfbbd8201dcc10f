"""Synthetic Sentinel-2 scenes of the landscape.

Each class is a mixture of surfaces that depends on the date, and each surface has a spectrum. The numbers are plausible
but not measured. The bands are those of Sentinel-2 L2A in order.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from torchgeo_msssl.geo.sample.landscape import FINE_CLASSES, Floats, Landscape, smooth_noise

#: Acquisition dates; the second one is partly cloudy.
DATES = ('20210415T103021', '20210614T103021', '20210803T103021', '20211022T103021')
CLOUDY_DATE = 1
_DAYS = (105, 165, 215, 295)
_GAIN = (0.97, 1.0, 1.04, 0.9)
_HAZE = (0.012, 0.004, 0.009, 0.006)

# Reflectance of pure surfaces: B01, B02, B03, B04, B05, B06, B07, B08, B8A, B09, B11, B12.
_SURFACES = {
    'soil': (0.070, 0.088, 0.125, 0.165, 0.190, 0.208, 0.228, 0.248, 0.262, 0.270, 0.335, 0.300),
    'foliage': (0.018, 0.026, 0.058, 0.030, 0.098, 0.270, 0.350, 0.375, 0.395, 0.400, 0.200, 0.092),
    'needles': (0.013, 0.017, 0.036, 0.022, 0.056, 0.150, 0.188, 0.200, 0.210, 0.215, 0.100, 0.046),
    'straw': (0.070, 0.092, 0.135, 0.172, 0.205, 0.242, 0.270, 0.300, 0.325, 0.335, 0.375, 0.255),
    'flowers': (0.045, 0.060, 0.190, 0.200, 0.230, 0.300, 0.350, 0.385, 0.400, 0.400, 0.210, 0.110),
    'roofs': (0.110, 0.125, 0.145, 0.170, 0.182, 0.196, 0.208, 0.220, 0.228, 0.230, 0.245, 0.225),
    'rock': (0.150, 0.180, 0.235, 0.285, 0.305, 0.315, 0.325, 0.335, 0.340, 0.345, 0.400, 0.370),
    'water': (0.046, 0.048, 0.052, 0.036, 0.030, 0.022, 0.020, 0.018, 0.015, 0.014, 0.008, 0.005),
    'shade': (0.008, 0.008, 0.010, 0.009, 0.012, 0.020, 0.024, 0.026, 0.027, 0.027, 0.016, 0.010),
}
# Fractions of the surfaces of each class on each date; the rest is soil.
_COVER: dict[str, dict[str, tuple[float, float, float, float]]] = {
    'vineyard': {'foliage': (0.20, 0.42, 0.50, 0.28), 'shade': (0.04, 0.08, 0.09, 0.08)},
    'orchard': {
        'foliage': (0.36, 0.56, 0.58, 0.40),
        'shade': (0.06, 0.10, 0.10, 0.10),
        'flowers': (0.08, 0.0, 0.0, 0.0),
    },
    'winter cereals': {'foliage': (0.74, 0.40, 0.05, 0.22), 'straw': (0.0, 0.42, 0.50, 0.08)},
    'rapeseed': {
        'foliage': (0.42, 0.50, 0.06, 0.30),
        'flowers': (0.36, 0.0, 0.0, 0.0),
        'straw': (0.0, 0.20, 0.44, 0.05),
    },
    'maize': {'foliage': (0.06, 0.40, 0.78, 0.12), 'straw': (0.04, 0.0, 0.0, 0.45), 'shade': (0.0, 0.03, 0.07, 0.02)},
    'sunflower': {
        'foliage': (0.05, 0.44, 0.58, 0.06),
        'straw': (0.04, 0.0, 0.05, 0.48),
        'flowers': (0.0, 0.0, 0.12, 0.0),
    },
    'meadow': {'foliage': (0.66, 0.68, 0.44, 0.58), 'straw': (0.06, 0.10, 0.32, 0.14)},
    'heath': {
        'foliage': (0.36, 0.42, 0.34, 0.36),
        'straw': (0.14, 0.14, 0.24, 0.18),
        'shade': (0.12, 0.12, 0.12, 0.15),
    },
    'broadleaf': {
        'foliage': (0.46, 0.80, 0.76, 0.52),
        'shade': (0.22, 0.14, 0.15, 0.22),
        'straw': (0.12, 0.0, 0.0, 0.18),
    },
    'conifer': {'needles': (0.68, 0.72, 0.70, 0.68), 'shade': (0.20, 0.16, 0.17, 0.22)},
    'village': {
        'roofs': (0.48, 0.48, 0.48, 0.48),
        'foliage': (0.22, 0.28, 0.24, 0.20),
        'shade': (0.10, 0.08, 0.08, 0.13),
    },
    'industry and transport': {
        'roofs': (0.74, 0.74, 0.74, 0.74),
        'foliage': (0.05, 0.07, 0.06, 0.05),
        'shade': (0.06, 0.05, 0.05, 0.08),
    },
    'quarry': {'rock': (0.60, 0.60, 0.60, 0.60), 'foliage': (0.06, 0.08, 0.05, 0.05)},
    'water': {'water': (0.97, 0.96, 0.96, 0.97)},
}
_PLANTS = ('foliage', 'needles', 'flowers')

# Standard deviation of the point spread function in pixels of 10 m, by the native 60, 20 or 10 m of each band.
_SPREAD = (2.4, 0.55, 0.55, 0.55, 0.95, 0.95, 0.95, 0.55, 0.95, 2.4, 0.95, 0.95)
_HAZE_COLOUR = (1.3, 1.0, 0.75, 0.55, 0.5, 0.42, 0.38, 0.34, 0.32, 0.3, 0.15, 0.1)


def reflectance(rng: np.random.Generator, land: Landscape, date: int) -> Floats:
    """Render the reflectance on a date, with haze and clouds but without sensor noise.

    Args:
        rng: Source of randomness (haze and clouds).
        land: The landscape.
        date: Index into :data:`DATES`.

    Returns:
        Reflectance ``(band, height, width)``.
    """
    cover = _cover_on(land, date)[land.parcel]
    plants = [i for i, name in enumerate(_SURFACES) if name in _PLANTS]
    cover[..., plants] *= np.exp(land.cover_texture)[..., None]
    cover /= np.maximum(cover.sum(-1, keepdims=True), 1)
    cover[..., 0] = 1 - cover[..., 1:].sum(-1)
    for name in ('soil', 'rock', 'roofs'):
        cover[..., list(_SURFACES).index(name)] *= land.tone[land.parcel]
    image = np.moveaxis(cover @ np.array(list(_SURFACES.values()), np.float32), -1, 0)
    image *= land.relief * np.exp(land.light_texture)
    for band, spread in zip(image, _SPREAD, strict=True):
        ndimage.gaussian_filter(band, spread, output=band, truncate=3)
    haze = _HAZE[date] * (1 + 0.35 * smooth_noise(rng, land.fine.shape, 160))
    image = image * np.float32(_GAIN[date]) + haze * np.array(_HAZE_COLOUR, np.float32)[:, None, None]
    return add_clouds(rng, image) if date == CLOUDY_DATE else image


def add_clouds(rng: np.random.Generator, image: Floats) -> Floats:
    """Add bright clouds and their shifted shadows to a scene.

    Args:
        rng: Source of randomness.
        image: Reflectance ``(band, height, width)``.

    Returns:
        Reflectance of the same shape.
    """
    shape = image.shape[1:]
    field = smooth_noise(rng, shape, 46) + 0.45 * smooth_noise(rng, shape, 15) + 0.12 * smooth_noise(rng, shape, 5)
    level = np.quantile(field, 0.88)
    opacity = np.clip((field - level) / 0.45, 0, 0.97).astype(np.float32)
    shadow = ndimage.gaussian_filter(ndimage.shift(opacity, (-17, -11), order=1), 1.5)
    white = np.array([0.50, 0.50, 0.49, 0.49, 0.50, 0.51, 0.51, 0.52, 0.52, 0.42, 0.38, 0.30], np.float32)
    white = white[:, None, None] * (1 + 0.08 * smooth_noise(rng, shape, 9))
    return np.asarray(image * (1 - 0.6 * shadow) * (1 - opacity) + white * opacity, np.float32)


def measure(rng: np.random.Generator, image: Floats) -> NDArray[np.uint16]:
    """Convert reflectance to digital numbers with sensor noise.

    Args:
        rng: Source of randomness.
        image: Reflectance ``(band, height, width)``.

    Returns:
        Reflectance × 10000 as uint16, at least 1 (0 is nodata).
    """
    grain = rng.standard_normal(image.shape, dtype=np.float32)
    noisy = image + grain * (0.0012 + 0.012 * image)
    return np.clip(np.rint(noisy * 10000), 1, 65535).astype(np.uint16)


def _cover_on(land: Landscape, date: int) -> Floats:
    """Return the fractions of surfaces ``(parcel, surface)`` on a date, with the delay of each parcel and soil 0."""
    surfaces = list(_SURFACES)
    kind = np.zeros(len(land.vigour), np.uint8)
    kind[land.parcel] = land.fine
    cover = np.zeros((len(kind), len(surfaces)), np.float32)
    for index, name in enumerate(FINE_CLASSES):
        here = kind == index
        for surface, fractions in _COVER[name].items():
            value = np.interp(_DAYS[date] - land.delay[here], _DAYS, fractions)
            cover[here, surfaces.index(surface)] = value * (land.vigour[here] if surface in _PLANTS else 1)
    return cover
