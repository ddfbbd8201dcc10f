"""A synthetic landscape as Sentinel-2 would see it.

Each class covers the ground with other surfaces on each date, and each surface has its spectrum. The numbers are
plausible, not measured. Bands are those of Sentinel-2 L2A in order.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from torchgeo_msssl.geo.sample.landscape import FINE_CLASSES, Floats, Landscape, smooth_noise

#: Acquisition dates and the day of the year of each; the sky is partly clouded on the second.
DATES = ('20210415T103021', '20210614T103021', '20210803T103021', '20211022T103021')
CLOUDY_DATE = 1
_DAYS = (105, 165, 215, 295)
_GAIN = (0.97, 1.0, 1.04, 0.9)
_HAZE = (0.012, 0.004, 0.009, 0.006)

# Reflectance of pure surfaces: B01, B02, B03, B04, B05, B06, B07, B08, B8A, B09, B11, B12.
_SURFACES = {
    'soil':    (.070, .088, .125, .165, .190, .208, .228, .248, .262, .270, .335, .300),
    'foliage': (.018, .026, .058, .030, .098, .270, .350, .375, .395, .400, .200, .092),
    'needles': (.013, .017, .036, .022, .056, .150, .188, .200, .210, .215, .100, .046),
    'straw':   (.070, .092, .135, .172, .205, .242, .270, .300, .325, .335, .375, .255),
    'flowers': (.045, .060, .190, .200, .230, .300, .350, .385, .400, .400, .210, .110),
    'roofs':   (.110, .125, .145, .170, .182, .196, .208, .220, .228, .230, .245, .225),
    'rock':    (.150, .180, .235, .285, .305, .315, .325, .335, .340, .345, .400, .370),
    'water':   (.046, .048, .052, .036, .030, .022, .020, .018, .015, .014, .008, .005),
    'shade':   (.008, .008, .010, .009, .012, .020, .024, .026, .027, .027, .016, .010),
}  # fmt: skip
# What covers the ground of each class on each date, as fractions; the rest is soil.
_COVER: dict[str, dict[str, tuple[float, float, float, float]]] = {
    'vineyard': {'foliage': (.20, .42, .50, .28), 'shade': (.04, .08, .09, .08)},
    'orchard': {'foliage': (.36, .56, .58, .40), 'shade': (.06, .10, .10, .10), 'flowers': (.08, .0, .0, .0)},
    'winter cereals': {'foliage': (.74, .40, .05, .22), 'straw': (.0, .42, .50, .08)},
    'rapeseed': {'foliage': (.42, .50, .06, .30), 'flowers': (.36, .0, .0, .0), 'straw': (.0, .20, .44, .05)},
    'maize': {'foliage': (.06, .40, .78, .12), 'straw': (.04, .0, .0, .45), 'shade': (.0, .03, .07, .02)},
    'sunflower': {'foliage': (.05, .44, .58, .06), 'straw': (.04, .0, .05, .48), 'flowers': (.0, .0, .12, .0)},
    'meadow': {'foliage': (.66, .68, .44, .58), 'straw': (.06, .10, .32, .14)},
    'heath': {'foliage': (.36, .42, .34, .36), 'straw': (.14, .14, .24, .18), 'shade': (.12, .12, .12, .15)},
    'broadleaf': {'foliage': (.46, .80, .76, .52), 'shade': (.22, .14, .15, .22), 'straw': (.12, .0, .0, .18)},
    'conifer': {'needles': (.68, .72, .70, .68), 'shade': (.20, .16, .17, .22)},
    'village': {'roofs': (.48, .48, .48, .48), 'foliage': (.22, .28, .24, .20), 'shade': (.10, .08, .08, .13)},
    'industry and transport': {'roofs': (.74, .74, .74, .74), 'foliage': (.05, .07, .06, .05),
                               'shade': (.06, .05, .05, .08)},
    'quarry': {'rock': (.60, .60, .60, .60), 'foliage': (.06, .08, .05, .05)},
    'water': {'water': (.97, .96, .96, .97)},
}  # fmt: skip
_PLANTS = ('foliage', 'needles', 'flowers')

# Standard deviation of the point spread in 10 m pixels, after the native 60, 20 or 10 m of each band.
_SPREAD = (2.4, .55, .55, .55, .95, .95, .95, .55, .95, 2.4, .95, .95)  # fmt: skip
_HAZE_COLOUR = (1.3, 1.0, .75, .55, .5, .42, .38, .34, .32, .3, .15, .1)  # fmt: skip


def reflectance(rng: np.random.Generator, land: Landscape, date: int) -> Floats:
    """What the sensor would measure on a clear or clouded day, without its noise.

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
    """Put bright clouds with displaced shadows over a scene.

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
    white = np.array([.50, .50, .49, .49, .50, .51, .51, .52, .52, .42, .38, .30], np.float32)  # fmt: skip
    white = white[:, None, None] * (1 + 0.08 * smooth_noise(rng, shape, 9))
    return np.asarray(image * (1 - 0.6 * shadow) * (1 - opacity) + white * opacity, np.float32)


def measure(rng: np.random.Generator, image: Floats) -> NDArray[np.uint16]:
    """Turn reflectance into digital numbers with the noise of a sensor.

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
    """Fractions of the surfaces ``(parcel, surface)`` on a date, each parcel in its own season; soil still 0."""
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
