"""Synthetic land cover of the sample area.

Zones of land use, parcels inside them, a river, roads, and the properties of each parcel are drawn from a seed.
:mod:`torchgeo_msssl.geo.sample.scenes` renders them as a sensor would.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rasterio.features import rasterize
from scipy import ndimage
from scipy.spatial import cKDTree
from shapely import LineString
from shapely.geometry.base import BaseGeometry

type Floats = NDArray[np.float32]
type Labels = NDArray[np.uint8]
type Ids = NDArray[np.int32]

#: Coarse classes with the fine classes inside them.
CLASSES: dict[str, tuple[str, ...]] = {
    'permanent crops': ('vineyard', 'orchard'),
    'arable land': ('winter cereals', 'rapeseed', 'maize', 'sunflower'),
    'grassland': ('meadow', 'heath'),
    'woods': ('broadleaf', 'conifer'),
    'built-up': ('village', 'industry and transport'),
    'bare ground': ('quarry',),
    'water': ('water',),
}
COARSE_CLASSES: tuple[str, ...] = tuple(CLASSES)
FINE_CLASSES: tuple[str, ...] = tuple(name for names in CLASSES.values() for name in names)
#: Index of the coarse class of each fine class.
COARSE_OF_FINE: Labels = np.array([i for i, names in enumerate(CLASSES.values()) for _ in names], np.uint8)
#: Label of places that were not surveyed.
IGNORE = 255

_ZONE = 68  # distance of the centres of zones, in pixels
_INDEX = {name: i for i, name in enumerate(FINE_CLASSES)}

# Relative number of zones of each class.
_SHARES = {
    'vineyard': 5,
    'orchard': 3,
    'winter cereals': 4,
    'rapeseed': 2,
    'maize': 3,
    'sunflower': 3,
    'meadow': 3,
    'heath': 3,
    'broadleaf': 4,
    'conifer': 3,
    'village': 3,
    'industry and transport': 2,
    'quarry': 2,
    'water': 2,
}
_CROPS = ('vineyard', 'orchard', 'winter cereals', 'rapeseed', 'maize', 'sunflower', 'meadow')

# Smallest short side and largest long side of a parcel, in pixels.
_PARCEL = {
    'vineyard': (11, 30),
    'orchard': (11, 28),
    'winter cereals': (18, 48),
    'rapeseed': (18, 46),
    'maize': (16, 46),
    'sunflower': (16, 44),
    'meadow': (16, 40),
    'village': (4, 8),
    'industry and transport': (8, 18),
}
_STAND = (30, 70)

# Texture inside parcels: relative amplitude of plant cover and of brightness, and kind of texture.
_TEXTURE = {
    'vineyard': (0.20, 0.05, 'rows'),
    'orchard': (0.24, 0.06, 'grain'),
    'winter cereals': (0.05, 0.02, 'rows'),
    'rapeseed': (0.07, 0.02, 'patches'),
    'maize': (0.06, 0.02, 'rows'),
    'sunflower': (0.08, 0.02, 'patches'),
    'meadow': (0.12, 0.03, 'patches'),
    'heath': (0.28, 0.07, 'grain'),
    'broadleaf': (0.10, 0.12, 'grain'),
    'conifer': (0.06, 0.16, 'grain'),
    'village': (0.50, 0.28, 'grain'),
    'industry and transport': (0.40, 0.22, 'patches'),
    'quarry': (0.50, 0.14, 'patches'),
    'water': (0.0, 0.04, 'patches'),
}

_ORIENTATIONS = 8


@dataclass(frozen=True)
class Landscape:
    """Land cover on one pixel grid.

    Attributes:
        fine: Fine class of all pixels ``(height, width)``.
        parcel: Parcel number ``(height, width)``.
        surveyed: Whether the label of a parcel is known ``(parcel,)``.
        vigour: Factor of the plant cover ``(parcel,)``.
        tone: Factor of the brightness of bare soil and roofs ``(parcel,)``.
        delay: Delay of the season in days ``(parcel,)``.
        orientation: Direction of rows in eighths of 180°, 0 to 7 ``(parcel,)``.
        relief: Smooth illumination by the terrain, around 1 ``(height, width)``.
        cover_texture: Variation of the plant cover inside parcels ``(height, width)``.
        light_texture: Variation of the brightness inside parcels ``(height, width)``.
    """

    fine: Labels
    parcel: Ids
    surveyed: NDArray[np.bool_]
    vigour: Floats
    tone: Floats
    delay: Floats
    orientation: Ids
    relief: Floats
    cover_texture: Floats
    light_texture: Floats

    def labels(self) -> Labels:
        """Return fine labels ``(height, width)`` with :data:`IGNORE` at places that were not surveyed."""
        return np.where(self.surveyed[self.parcel], self.fine, np.uint8(IGNORE))


def coarse_labels(fine: Labels) -> Labels:
    """Map fine classes and :data:`IGNORE`, of any shape, to coarse classes and :data:`IGNORE`."""
    lookup = np.full(256, IGNORE, np.uint8)
    lookup[: len(COARSE_OF_FINE)] = COARSE_OF_FINE
    return lookup[fine]


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], length: float) -> Floats:
    """Draw noise with a given correlation length.

    Args:
        rng: Source of randomness.
        shape: ``(height, width)``.
        length: Distance between independent values, in pixels.

    Returns:
        Values of mean 0 and standard deviation 1 ``(height, width)``.
    """
    knots = rng.standard_normal([int(side / length) + 4 for side in shape]).astype(np.float32)
    rows, cols = (1 + np.arange(side) / length for side in shape)
    noise = ndimage.map_coordinates(knots, np.meshgrid(rows, cols, indexing='ij'), order=3, output=np.float32)
    return np.asarray((noise - noise.mean()) / (noise.std() + 1e-6), np.float32)


def make_landscape(rng: np.random.Generator, shape: tuple[int, int]) -> Landscape:
    """Draw zones, parcels, a river and roads, and the properties of each parcel.

    Args:
        rng: Source of randomness.
        shape: ``(height, width)`` in pixels of 10 m.

    Returns:
        The landscape.
    """
    zone, centres = _zones(rng, shape)
    zone_class = _zone_classes(rng, len(centres))
    parcel = _parcels(rng, zone, zone_class, centres)
    first = np.unique(parcel, return_index=True)[1]
    parcel_class = _mix_crops(rng, zone_class[zone.ravel()[first]])
    parcel_class, parcel = _draw_lines(rng, parcel_class, parcel, centres[np.isin(zone_class, _villages())])
    fine = parcel_class[parcel]
    count = len(parcel_class)
    orientation = rng.integers(_ORIENTATIONS, size=count).astype(np.int32)
    cover, light = _textures(rng, fine, orientation[parcel])
    for texture in (cover, light):
        texture[parcel == count - 3] = 0  # roads have the same brightness everywhere
    # towns, the river and the roads are always surveyed, a few fields are not
    surveyed = (rng.random(count) > 0.04) | np.isin(parcel_class, _villages())
    surveyed[-3:] = True
    return Landscape(
        fine=fine,
        parcel=parcel,
        surveyed=surveyed,
        vigour=np.exp(rng.normal(0, 0.17, count)).astype(np.float32),
        tone=np.exp(rng.normal(0, 0.17, count)).astype(np.float32),
        delay=rng.normal(0, 11, count).astype(np.float32),
        orientation=orientation,
        relief=1 + 0.05 * smooth_noise(rng, shape, 55),
        cover_texture=cover,
        light_texture=light,
    )


def _villages() -> list[int]:
    return [_INDEX['village'], _INDEX['industry and transport']]


def _zones(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Ids, NDArray[np.float64]]:
    counts = [max(4, round(side / _ZONE)) for side in shape]
    steps = [side / count for side, count in zip(shape, counts, strict=True)]
    cells = np.stack(np.meshgrid(*(np.arange(n) + 0.5 for n in counts), indexing='ij'), -1).reshape(-1, 2)
    centres = (cells + rng.uniform(-0.38, 0.38, cells.shape)) * steps
    # distorted coordinates bend the straight borders of the Voronoi diagram
    rows, cols = np.indices(shape, dtype=np.float32)
    bent = np.stack([rows + 5 * smooth_noise(rng, shape, 32), cols + 5 * smooth_noise(rng, shape, 32)], -1)
    return cKDTree(centres).query(bent.reshape(-1, 2))[1].reshape(shape).astype(np.int32), centres


def _zone_classes(rng: np.random.Generator, count: int) -> Labels:
    # first every class once, so that small areas have all classes, then shuffled decks in the right proportion
    deck = [_INDEX[name] for name, share in _SHARES.items() for _ in range(share)]
    drawn = list(range(len(FINE_CLASSES)))
    while len(drawn) < count:
        drawn.extend(rng.permutation(deck).tolist())
    return rng.permutation(np.array(drawn[:count], np.uint8))


def _parcels(rng: np.random.Generator, zone: Ids, zone_class: Labels, centres: NDArray[np.float64]) -> Ids:
    sizes = [_PARCEL.get(FINE_CLASSES[kind], _STAND) for kind in zone_class]
    short = np.array([rng.uniform(low, 1.4 * low) for low, _ in sizes])
    long = np.array([rng.uniform(0.7 * high, high) for _, high in sizes])
    turn = rng.uniform(0, np.pi, len(centres))
    rows, cols = np.indices(zone.shape)
    down, right = rows - centres[zone, 0], cols - centres[zone, 1]
    along = (right * np.cos(turn)[zone] + down * np.sin(turn)[zone]) / long[zone]
    strip = np.floor(along + 50).astype(np.int64)
    # like fields, neighbouring strips of parcels are cut at different places
    shift = rng.random((len(centres), 101))[zone, strip]
    across = (down * np.cos(turn)[zone] - right * np.sin(turn)[zone]) / short[zone] + shift
    key = (zone * 101 + strip) * 1001 + np.floor(across + 500).astype(np.int64)
    return np.unique(key, return_inverse=True)[1].reshape(zone.shape).astype(np.int32)


def _mix_crops(rng: np.random.Generator, parcel_class: Labels) -> Labels:
    crops = np.array([_INDEX[name] for name in _CROPS], np.uint8)
    change = np.isin(parcel_class, crops) & (rng.random(len(parcel_class)) < 0.15)
    return np.where(change, rng.choice(crops, len(parcel_class)), parcel_class)


def _draw_lines(
    rng: np.random.Generator, parcel_class: Labels, parcel: Ids, villages: NDArray[np.float64]
) -> tuple[Labels, Ids]:
    """Burn roads, the woods along the river and the river into the parcels, as three additional parcels."""
    river = _river(rng, parcel.shape)
    kinds = ('industry and transport', 'broadleaf', 'water')
    roads = [line.buffer(0.75) for line in _roads(rng, parcel.shape, villages)]
    banks, bed = river.buffer(8.5), river.buffer(4.5)
    number = len(parcel_class)
    shapes: list[tuple[BaseGeometry, int]] = [(road, number) for road in roads] + [(banks, number + 1)]
    burned = rasterize(shapes, out=parcel.copy())
    lakes = parcel_class[parcel] == _INDEX['water']
    burned = np.where(lakes, parcel, rasterize([(bed, number + 2)], out=burned))
    return np.append(parcel_class, np.array([_INDEX[kind] for kind in kinds], np.uint8)), burned


def _river(rng: np.random.Generator, shape: tuple[int, int]) -> LineString:
    height, width = shape
    x = np.arange(-10, width + 10, 2.0)
    bends = [(rng.uniform(0.04, 0.10) * height / (1 + k), rng.uniform(0, 7), 300 / (1 + 1.7 * k)) for k in range(3)]
    y = height * rng.uniform(0.4, 0.6) + sum(a * np.sin(phase + 2 * np.pi * x / length) for a, phase, length in bends)
    return LineString(np.stack([x, y], -1))


def _roads(rng: np.random.Generator, shape: tuple[int, int], villages: NDArray[np.float64]) -> list[LineString]:
    height, width = shape
    through = [(-5, height * rng.uniform(0.15, 0.4)), (width * 0.5, height * 0.3), (width + 5, height * 0.2)]
    roads = [LineString(through)]
    order = np.argsort(((villages[:, None] - villages) ** 2).sum(-1), axis=1)
    for a, b in sorted({(min(pair), max(pair)) for near in order for pair in ((near[0], n) for n in near[1:3])}):
        start, end = villages[a], villages[b]
        bend = (start + end) / 2 + rng.normal(0, 0.1, 2) * np.abs(end - start).max()
        roads.append(LineString([place[::-1] for place in (start, bend, end)]))
    return roads


def _textures(rng: np.random.Generator, fine: Labels, orientation: Ids) -> tuple[Floats, Floats]:
    grain = ndimage.gaussian_filter(rng.standard_normal(fine.shape).astype(np.float32), 0.6)
    fields = {'grain': grain / grain.std(), 'patches': smooth_noise(rng, fine.shape, 4.5)}
    fields['rows'] = _row_noise(rng, fine.shape, orientation)
    cover, light = np.zeros(fine.shape, np.float32), np.zeros(fine.shape, np.float32)
    for index, name in enumerate(FINE_CLASSES):
        in_cover, in_light, kind = _TEXTURE[name]
        here = fine == index
        cover[here] = in_cover * fields[kind][here]
        light[here] = in_light * fields[kind][here]
    growth = 0.08 * smooth_noise(rng, fine.shape, 14)
    return cover + growth, light


def _row_noise(rng: np.random.Generator, shape: tuple[int, int], orientation: Ids) -> Floats:
    """Draw noise that is elongated along the rows of each parcel; single rows are not visible at 10 m."""
    spectrum = np.fft.rfft2(rng.standard_normal(shape))
    down, right = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None]
    noise = np.zeros(shape, np.float32)
    for index in range(_ORIENTATIONS):
        angle = np.pi * index / _ORIENTATIONS
        along = right * np.cos(angle) + down * np.sin(angle)
        across = down * np.cos(angle) - right * np.sin(angle)
        keep = np.exp(-2 * np.pi**2 * ((5 * along) ** 2 + (0.45 * across) ** 2))
        drawn = np.fft.irfft2(spectrum * keep, shape)
        here = orientation == index
        noise[here] = (drawn / drawn.std())[here]
    return noise
