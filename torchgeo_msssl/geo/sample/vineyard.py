"""Synthetic multispectral drone images of a vineyard.

Parcels, rows and plants are drawn as polygons in metres, from which the image is rendered, so the polygons are exact
labels. The bands are blue, green, red, red edge and near infrared.
"""

from dataclasses import dataclass

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.features import rasterize
from scipy import ndimage
from shapely import Polygon
from shapely.geometry.base import BaseGeometry

from torchgeo_msssl.geo.grid import PixelGrid
from torchgeo_msssl.geo.sample.landscape import Floats, smooth_noise

#: Digital number of reflectance 1.
WHITE = 32768

_GROUNDS = ('bare', 'grass', 'alternate', 'grass', 'strips')
_VARIETIES = ('grenache', 'syrah', 'cinsault', 'vermentino', 'mourvedre')
_GRID = (2, 3)  # number of cells down and across; one of them is a meadow

# Reflectance of pure surfaces: blue, green, red, red edge, near infrared.
_VINE = (0.026, 0.072, 0.036, 0.190, 0.455)
_GRASS = (0.032, 0.082, 0.044, 0.200, 0.420)
_DRY = (0.075, 0.115, 0.150, 0.220, 0.285)
_SOIL = (0.085, 0.118, 0.160, 0.188, 0.225)
_TREE = (0.020, 0.052, 0.028, 0.160, 0.400)
# Factors of the shade, which only the blue sky illuminates.
_SHADE = (0.42, 0.36, 0.31, 0.29, 0.27)
_SUN = (-0.62, 0.55)  # length of a shadow to the east and north, in metres per metre of height


@dataclass(frozen=True)
class Parcel:
    """One parcel of the estate.

    Attributes:
        name: Name.
        outline: Polygon in map coordinates.
        variety: Grape variety; empty for the meadow.
        vigour: Vigour of the vines, 0 to 1.
        ground: Ground cover between the rows: ``bare``, ``grass``, ``alternate``, ``strips`` or ``meadow``.
        angle: Direction of the rows in radians from east.
        spacing: Distance of the rows in metres.
        canopy: Width of a row in metres.
        gap_rate: Fraction of missing plants.
    """

    name: str
    outline: Polygon
    variety: str
    vigour: float
    ground: str
    angle: float
    spacing: float
    canopy: float
    gap_rate: float

    @property
    def normal(self) -> tuple[float, float]:
        """Unit vector across the rows ``(x, y)``."""
        return -np.sin(self.angle), np.cos(self.angle)

    def across(self, x: NDArray[np.floating], y: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return fractional row numbers of map coordinates, of the same shape; rows are at integers."""
        middle, (nx, ny) = self.outline.centroid, self.normal
        return ((x - middle.x) * nx + (y - middle.y) * ny) / self.spacing


@dataclass(frozen=True)
class Vineyard:
    """One flight.

    Attributes:
        image: Reflectance ``(band, height, width)``.
        flown: Mask of pixels inside the flight ``(height, width)``.
        rows: Canopy polygons with the columns ``parcel``, ``row``, ``variety``, ``vigour``.
        parcels: Outlines of vine parcels with ``parcel``, ``variety``, ``vigour``, ``spacing``, ``ground``.
    """

    image: Floats
    flown: NDArray[np.bool_]
    rows: gpd.GeoDataFrame
    parcels: gpd.GeoDataFrame


def make_vineyard(rng: np.random.Generator, grid: PixelGrid, name: str) -> Vineyard:
    """Draw a vineyard and render its image.

    Args:
        rng: Source of randomness.
        grid: North-up grid in metres.
        name: Prefix of the names of parcels.

    Returns:
        The image with its polygons.
    """
    parcels = _lay_out(rng, grid, name)
    rows = [plant for parcel in parcels if parcel.variety for plant in _plant(rng, parcel)]
    outline = _flight_outline(rng, grid)
    canopy = _burn([(polygon, 1.0) for polygon, _, _ in rows], grid)
    image = _paint(rng, grid, parcels, canopy)
    flown = _burn([(outline, 1.0)], grid) > 0
    table = [
        {'parcel': parcel.name, 'row': row, 'variety': parcel.variety, 'vigour': round(parcel.vigour, 3), 'geometry': p}
        for p, parcel, row in ((shapely.intersection(p, outline), parcel, row) for p, parcel, row in rows)
        if isinstance(p, Polygon) and not p.is_empty
    ]
    outlines = [
        {
            'parcel': parcel.name,
            'variety': parcel.variety,
            'vigour': round(parcel.vigour, 3),
            'spacing': round(parcel.spacing, 2),
            'ground': parcel.ground,
            'geometry': parcel.outline,
        }
        for parcel in parcels
        if parcel.variety
    ]
    return Vineyard(image, flown, gpd.GeoDataFrame(table, crs=grid.crs), gpd.GeoDataFrame(outlines, crs=grid.crs))


def _burn(shapes: list[tuple[BaseGeometry, float]], grid: PixelGrid) -> Floats:
    burned = rasterize(shapes, (grid.height, grid.width), transform=grid.transform, dtype='float32')
    return np.asarray(burned, np.float32)


def _lay_out(rng: np.random.Generator, grid: PixelGrid, name: str) -> list[Parcel]:
    left, bottom, right, top = grid.bounds
    down, across = _GRID
    xs, ys = np.meshgrid(np.linspace(left, right, across + 1), np.linspace(top, bottom, down + 1))
    cell = np.array([(right - left) / across, (top - bottom) / down])
    xs[:, 1:-1] += rng.uniform(-0.14, 0.14, xs[:, 1:-1].shape) * cell[0]
    ys[1:-1] += rng.uniform(-0.14, 0.14, ys[1:-1].shape) * cell[1]
    grounds = rng.permutation(_GROUNDS).tolist()
    meadow = int(rng.integers(down * across))
    parcels = []
    for index in range(down * across):
        i, j = divmod(index, across)
        corners = [(xs[p], ys[p]) for p in ((i, j), (i, j + 1), (i + 1, j + 1), (i + 1, j))]
        # half of the track between parcels
        outline = Polygon(corners).buffer(-0.035 * cell.min(), join_style='mitre')
        vines = index != meadow
        parcels.append(_parcel(rng, f'{name}_{index + 1}', outline, grounds.pop() if vines else 'meadow'))
    return parcels


def _parcel(rng: np.random.Generator, name: str, outline: Polygon, ground: str) -> Parcel:
    spacing = rng.uniform(1.8, 3.0)
    vigour = rng.uniform(0.45, 1.0)
    return Parcel(
        name=name,
        outline=outline,
        variety='' if ground == 'meadow' else str(rng.choice(_VARIETIES)),
        vigour=vigour,
        ground=ground,
        angle=rng.uniform(0, np.pi),
        spacing=spacing,
        canopy=min(0.28 + 0.5 * vigour + rng.uniform(-0.06, 0.06), 0.38 * spacing),
        gap_rate=rng.uniform(0.03, 0.14),
    )


def _plant(rng: np.random.Generator, parcel: Parcel) -> list[tuple[Polygon, Parcel, int]]:
    """Draw the canopy polygons of a parcel, one per stretch of a row without gaps, with the row number."""
    headland = parcel.outline.buffer(-0.04 * np.sqrt(parcel.outline.area), join_style='mitre')
    middle, (nx, ny) = parcel.outline.centroid, parcel.normal
    reach = parcel.outline.length
    plants = []
    for row in range(-int(reach / parcel.spacing), int(reach / parcel.spacing) + 1):
        x, y = middle.x + row * parcel.spacing * nx, middle.y + row * parcel.spacing * ny
        line = shapely.LineString([(x - reach * ny, y + reach * nx), (x + reach * ny, y - reach * nx)])
        stretch = line.intersection(headland)
        if isinstance(stretch, shapely.LineString) and stretch.length > 2:
            plants += [(polygon, parcel, row) for polygon in _canopies(rng, parcel, stretch)]
    return plants


def _canopies(rng: np.random.Generator, parcel: Parcel, line: shapely.LineString) -> list[Polygon]:
    """Cut a row at missing plants, and vary the width of each stretch."""
    plant = 1.0  # distance of vines in metres
    standing = rng.random(int(line.length / plant)) > parcel.gap_rate * rng.choice([0.3, 0.6, 2.0])
    edges = np.flatnonzero(np.diff(np.concatenate([[0], standing.astype(int), [0]])))
    start, end = (np.array(xy) for xy in (line.coords[0], line.coords[-1]))
    along = (end - start) / line.length
    across = np.array([-along[1], along[0]])
    polygons = []
    for first, last in edges.reshape(-1, 2):
        at = np.linspace(first * plant, last * plant - 0.15, max(3, int((last - first) * 2.5)))
        wander = ndimage.gaussian_filter1d(rng.normal(0, 1, (3, len(at))), 1.0, axis=1, mode='nearest')
        half = parcel.canopy / 2 * np.clip(1 + 0.32 * wander[:2], 0.45, 1.7)
        half[:, [0, -1]] *= 0.5
        spine = start + at[:, None] * along + 0.07 * wander[2][:, None] * across
        ring = np.concatenate([spine + half[0][:, None] * across, (spine - half[1][:, None] * across)[::-1]])
        polygons.append(Polygon(ring))
    return [polygon for polygon in polygons if polygon.is_valid]


def _flight_outline(rng: np.random.Generator, grid: PixelGrid) -> Polygon:
    left, bottom, right, top = grid.bounds
    turn = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    # a rounded rectangle with irregular edge, like that of a mosaic
    radius = 0.49 / np.maximum(np.abs(np.cos(turn)), np.abs(np.sin(turn))) ** 0.82
    radius *= rng.uniform(0.9, 1.0, len(turn))
    x = (left + right) / 2 + np.clip(radius * np.cos(turn), -0.495, 0.495) * (right - left)
    y = (bottom + top) / 2 + np.clip(radius * np.sin(turn), -0.495, 0.495) * (top - bottom)
    return Polygon(np.stack([x, y], -1))


def _paint(rng: np.random.Generator, grid: PixelGrid, parcels: list[Parcel], canopy: Floats) -> Floats:
    shape = (grid.height, grid.width)
    grain = rng.standard_normal(shape).astype(np.float32)
    grass, soil_tone, vigour = _ground(rng, grid, parcels)
    image = _mix(np.zeros(shape, np.float32), _SOIL, _SOIL) * soil_tone * (1 + 0.05 * grain)
    # grass changes from green to dry within metres, to a different degree in each parcel
    dryness = np.clip(0.16 + 0.20 * smooth_noise(rng, shape, 45) + 0.08 * smooth_noise(rng, shape, 7), 0, 0.8)
    blades = 1 + 0.14 * ndimage.gaussian_filter(grain, 0.8) / 0.35
    image += grass * (_mix(dryness, _GRASS, _DRY) * blades - image)
    image *= _shadow(canopy, 1.2 / grid.res[0])
    leaves = np.clip(vigour + 0.16 * smooth_noise(rng, shape, 6) + 0.10 * smooth_noise(rng, shape, 60), 0.15, 1)
    density = ndimage.gaussian_filter(canopy, 0.7) * leaves
    lit = 1 + 0.20 * smooth_noise(rng, shape, 3) + 0.10 * grain
    image += density * (_mix(1 - leaves, _VINE, _GRASS) * np.clip(lit, 0.4, 1.7) - image)
    image = _add_trees(rng, grid, parcels, image)
    sky = 1 + 0.05 * smooth_noise(rng, shape, 330)
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    return np.asarray(image * sky + noise * (0.0015 + 0.02 * image), np.float32).clip(0.001, 1)


def _mix(share: Floats, first: tuple[float, ...], second: tuple[float, ...]) -> Floats:
    """Mix two spectra with the fraction of the second ``(height, width)``; returns ``(band, height, width)``."""
    a, b = (np.array(surface, np.float32)[:, None, None] for surface in (first, second))
    return np.asarray(a + share * (b - a), np.float32)


def _ground(rng: np.random.Generator, grid: PixelGrid, parcels: list[Parcel]) -> tuple[Floats, Floats, Floats]:
    """Return the fraction of grass, brightness of the soil and vigour of the vines, each ``(height, width)``."""
    shape = (grid.height, grid.width)
    tufts = smooth_noise(rng, shape, 14) + 0.7 * smooth_noise(rng, shape, 5)
    grass = np.clip(0.25 + 0.45 * tufts, 0, 0.9)  # the track between the parcels
    tone = 1 + 0.07 * smooth_noise(rng, shape, 90) + 0.05 * smooth_noise(rng, shape, 8)
    vigour = np.ones(shape, np.float32)
    rows, cols = np.indices(shape)
    x = grid.transform.c + (cols + 0.5) * grid.transform.a
    y = grid.transform.f + (rows + 0.5) * grid.transform.e
    wave = 0.035 * smooth_noise(rng, shape, 36) + 0.02 * smooth_noise(rng, shape, 6)
    for parcel in parcels:
        here = _burn([(parcel.outline, 1.0)], grid) > 0
        number = parcel.across(x, y)
        grass[here] = _sward(parcel, number + wave, tufts)[here] * rng.uniform(0.85, 1.0)
        tone[here] *= rng.uniform(0.75, 1.25)
        vigour[here] = 0.35 + 0.6 * parcel.vigour
    return np.asarray(grass, np.float32), np.asarray(tone, np.float32), vigour


def _sward(parcel: Parcel, number: NDArray[np.floating], tufts: Floats) -> Floats:
    """Return the fraction of grass ``(height, width)`` for the ground cover of a parcel and fractional row numbers."""
    from_middle = (
        np.abs(number - np.floor(number) - 0.5) * parcel.spacing
    )  # distance from the middle of the lane in metres
    lane = from_middle < parcel.spacing / 2 - 0.32 * parcel.canopy - 0.12
    wheels = np.abs(from_middle - 0.55) < 0.14
    if parcel.ground == 'meadow':
        sward = 0.85 + 0.15 * tufts
    elif parcel.ground == 'grass':
        sward = np.where(lane, 0.84 + 0.16 * tufts - 0.35 * wheels, 0.15 + 0.2 * tufts)
    elif parcel.ground == 'alternate':
        sward = np.where(lane & (np.floor(number) % 2 == 0), 0.86 + 0.16 * tufts, 0.18 * tufts)
    elif parcel.ground == 'strips':
        # a green strip parallel to the rows and as narrow as a row of vines
        sward = np.where(from_middle < 0.36, 0.9 + 0.14 * tufts, 0.15 * tufts - 0.1 * wheels)
    else:
        sward = 0.5 * (tufts - 1.3)
    return np.asarray(np.clip(sward, 0, 1), np.float32)


def _shadow(canopy: Floats, height: float) -> Floats:
    """Return the factor ``(band, height, width)`` of the shadow of crowns with a height in pixels."""
    length = int(np.ceil(height * np.hypot(*_SUN)))
    shade = np.zeros_like(canopy)
    for step in np.linspace(0, 1, max(2, length // 3)):
        moved = ndimage.shift(canopy, (-step * height * _SUN[1], step * height * _SUN[0]), order=1)
        shade = np.maximum(shade, moved)
    # neither hard-edged nor black, since the sun is half a degree wide and leaves transmit light
    shade = 0.85 * ndimage.gaussian_filter(shade, 1.2)
    return 1 - shade * (1 - np.array(_SHADE, np.float32)[:, None, None])


def _add_trees(rng: np.random.Generator, grid: PixelGrid, parcels: list[Parcel], image: Floats) -> Floats:
    """Add trees to the meadow, and a hedge with a gate around it."""
    size = min(1.0, (grid.bounds[3] - grid.bounds[1]) / 96)  # a smaller flight has smaller trees
    meadow = next(parcel.outline for parcel in parcels if not parcel.variety)
    vines = shapely.union_all([parcel.outline for parcel in parcels if parcel.variety])
    trees = [(*rng.uniform(meadow.bounds[:2], meadow.bounds[2:]), rng.uniform(1.4, 3.4) * size) for _ in range(16)]
    edge = meadow.exterior
    hedge = [
        (*edge.interpolate(at).coords[0], rng.uniform(0.6, 1.1) * size)
        for at in np.arange(0, 0.9 * edge.length, 0.8 * size)
    ]
    for crowns, shadow in ((hedge, 1.6), (trees, 3.4)):
        free = [crown for crown in crowns if vines.distance(shapely.Point(crown[:2])) > crown[2]]
        image = _grow(rng, grid, free, shadow * size, image)
    return image


def _grow(
    rng: np.random.Generator, grid: PixelGrid, crowns: list[tuple[float, float, float]], tall: float, image: Floats
) -> Floats:
    """Render crowns ``(x, y, radius)`` in metres and the shadows of trees with a height of ``tall`` metres."""
    shape, res = image.shape[1:], grid.res[0]
    height = np.zeros(shape, np.float32)
    rows, cols = np.indices(shape, dtype=np.float32)
    for x, y, radius in crowns:
        col, row = ~grid.transform @ (x, y)
        dome = 1 - ((rows - row) ** 2 + (cols - col) ** 2) * (res / radius) ** 2
        np.maximum(height, np.sqrt(np.clip(dome, 0, None)) * radius, out=height)
    height *= 1 + 0.16 * smooth_noise(rng, shape, 7)
    inside = (height > 0.2 * tall).astype(np.float32)
    # sides of a crown that face the sun are bright; the slope is in metres per metre
    down, right = np.gradient(ndimage.gaussian_filter(height, 3), res)
    lit = np.clip(1 + 0.2 * (_SUN[0] * right - _SUN[1] * down) + 0.18 * smooth_noise(rng, shape, 4), 0.35, 1.6)
    crown = _mix(np.zeros(shape, np.float32), _TREE, _TREE) * lit
    image = image * _shadow(inside, tall / res)
    return image + ndimage.gaussian_filter(inside, 0.8) * (crown - image)
