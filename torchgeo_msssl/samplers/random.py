"""Random chips, drawn in proportion to area, with a minimum of valid data."""

import operator
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from torchgeo_msssl.contract import DATED_POSITIVES, Positives
from torchgeo_msssl.datasets.queries import ChipQuery
from torchgeo_msssl.datasets.scenes import Scenes
from torchgeo_msssl.errors import ChipSizeError, ConfigurationError, ValidDataError
from torchgeo_msssl.geo.grid import PixelGrid, Window
from torchgeo_msssl.geo.valid_counts import CELL, ValidCells
from torchgeo_msssl.samplers.base import ChipSampler
from torchgeo_msssl.validation import check_choice

#: Chips that are drawn together; resuming at a position of an epoch costs at most this many draws.
_BLOCK = 64
#: Rounds of rejection sampling before known good places are used.
_ROUNDS = 32
#: Known good places kept for each scene.
_PLACES = 4096

_Ints = NDArray[np.int64]
_Bools = NDArray[np.bool_]


def origins(extent: int, size: int, block: int | None) -> _Ints:
    """Return the offsets at which a chip may start along an axis.

    Aligned chips touch as few stored blocks as a chip of their size can. Within those they start anywhere, so that
    every pixel is reached; a chip that ends at the border is always allowed.

    Args:
        extent: Length of the axis, pixels.
        size: Length of the chip, pixels.
        block: Length of a stored block, or None for unaligned chips.

    Returns:
        Increasing offsets.
    """
    if extent < size:  # the chip is padded
        return np.zeros(1, dtype=np.int64)
    if block is None or block >= extent:
        return np.arange(extent - size + 1)
    run = -(-size // block) * block
    offsets = np.arange(extent - size + 1)
    first_block = offsets // block * block
    aligned = offsets + size <= np.minimum(first_block + run, extent)
    aligned[-1] = True
    return offsets[aligned]


def neighbourhood(origin: int, size: int, block: int, extent: int, rng: np.random.Generator) -> tuple[int, int]:
    """Draw a run of stored blocks around a chip along one axis, about twice as long as the chip.

    Args:
        origin: Offset of the chip, pixels.
        size: Length of the chip, pixels.
        block: Length of a stored block, pixels.
        extent: Length of the axis, pixels.
        rng: Source of randomness.

    Returns:
        First and last offset at which a chip within those blocks may start.
    """
    first, last = origin // block, (origin + size - 1) // block
    run = max(-(-2 * size // block), last - first + 1)
    start = int(rng.integers(max(last - run + 1, 0), first + 1)) * block
    end = min(start + run * block, extent)
    return max(min(start, end - size), 0), end - size


@dataclass
class _Place:
    """Where chips of one scene may lie."""

    grid: PixelGrid
    cells: ValidCells
    size: tuple[int, int]
    need: int
    region: BaseGeometry | None
    rows: _Ints
    cols: _Ints
    good: _Ints = field(init=False)  # origins that are certainly good, shape (n, 2)

    def __post_init__(self) -> None:
        if len(self.rows) * len(self.cols) <= _PLACES:  # such as in thousands of small images
            every = np.stack(np.meshgrid(self.rows, self.cols, indexing='ij'), axis=-1).reshape(-1, 2)
            self.good = every[self.accepts(every[:, 0], every[:, 1])]
            return
        rows = self.rows[_lattice(self.rows)]
        cols = self.cols[_lattice(self.cols)]
        table = np.pad(self.cells.counts.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        top, bottom = rows // CELL, -(-(rows + self.size[0]) // CELL)
        left, right = cols // CELL, -(-(cols + self.size[1]) // CELL)
        valid = (
            table[np.ix_(bottom, right)]
            - table[np.ix_(top, right)]
            - table[np.ix_(bottom, left)]
            + table[np.ix_(top, left)]
        )
        heights = np.minimum(bottom * CELL, self.grid.height) - top * CELL
        widths = np.minimum(right * CELL, self.grid.width) - left * CELL
        invalid = np.multiply.outer(heights, widths) - valid
        rng = np.random.default_rng(0)
        # a whole Sentinel-2 tile has millions of places; a few thousand are enough
        found = rng.permutation(np.flatnonzero(self.size[0] * self.size[1] - invalid >= self.need))
        candidates = np.stack([rows[found // len(cols)], cols[found % len(cols)]], axis=1)
        # the bound of the lattice is coarse: also check random places
        closer = np.stack([rng.choice(self.rows, _PLACES), rng.choice(self.cols, _PLACES)], axis=1)
        self.good = np.empty((0, 2), dtype=np.int64)
        for some in (*_chunks(candidates), closer):
            self.good = np.concatenate([self.good, some[self.accepts(some[:, 0], some[:, 1])]])
            if len(self.good) >= _PLACES:
                break

    def accepts(self, rows: _Ints, cols: _Ints) -> _Bools:
        """Return which chips at these origins certainly have enough valid data and lie inside the region."""
        height, width = self.size
        # a scene that is smaller than a chip has one chip, which is padded
        last = max(self.grid.height - height, 0), max(self.grid.width - width, 0)
        inside = (rows >= 0) & (cols >= 0) & (rows <= last[0]) & (cols <= last[1])
        ok = np.zeros(len(rows), dtype=np.bool_)
        if inside.any():
            ok[inside] = self.cells.bounds(rows[inside], cols[inside], self.size)[0] >= self.need
        if self.region is not None and ok.any():
            x0, y0 = self.grid.transform.c, self.grid.transform.f
            a, e = self.grid.transform.a, self.grid.transform.e
            r, c = rows[ok], cols[ok]
            bottom, right = np.minimum(r + height, self.grid.height), np.minimum(c + width, self.grid.width)
            boxes = shapely.box(x0 + c * a, y0 + bottom * e, x0 + right * a, y0 + r * e)
            ok[ok] = shapely.covers(self.region, boxes)
        return ok

    @property
    def area(self) -> float:
        """Valid pixels inside the region."""
        if self.region is None:
            return float(self.cells.total)
        box = shapely.box(*self.grid.bounds)
        return self.cells.total * shapely.intersection(self.region, box).area / box.area


def _chunks(places: _Ints) -> Iterator[_Ints]:
    for k in range(0, len(places), 4 * _PLACES):
        yield places[k : k + 4 * _PLACES]


def _lattice(offsets: _Ints) -> _Bools:
    """Return which offsets lie on cell edges or at the ends of a run of offsets."""
    gaps = np.diff(offsets) > 1
    edge = np.concatenate([[True], gaps]) | np.concatenate([gaps, [True]])
    return edge | (offsets % CELL == 0)


class RandomChipSampler(ChipSampler):
    """Draws random chips, from each scene in proportion to its valid pixels.

    Chip k of an epoch depends on seed, epoch and k only. Rank r of n takes the chips r, r + n, …, or with
    ``chips_per_read`` the neighbourhoods r, r + n, ….
    """

    def __init__(
        self,
        dataset: Scenes,
        size: int | tuple[int, int],
        length: int | None = None,
        min_valid: float = 0.9,
        aligned: bool = True,
        positives: Positives = 'same',
        roi: BaseGeometry | None = None,
        seed: int | None = None,
        chips_per_read: int = 1,
    ) -> None:
        """Find the places where chips can be.

        Args:
            dataset: Scenes to draw from.
            size: Chip size in pixels, one side or ``(height, width)``.
            length: Chips per epoch over all ranks (default: as many as cover the valid pixels once).
            min_valid: Minimum fraction of valid pixels per chip.
            aligned: Place chips so that they touch as few stored blocks as possible, which is faster.
            positives: ``same``: chips alone; ``temporal``: each with the same place on another date; ``earlier`` or
                ``later``: on an earlier or a later one; ``nearby``: each with a chip at most one chip's length away
                (the chip itself if no neighbour has enough data).
            roi: Chips lie wholly inside this region (in the dataset's CRS).
            seed: Seed; None for that of ``seed_everything``.
            chips_per_read: Number of consecutive chips from one neighbourhood, about twice as long as a chip, which is
                decoded once for a batch that has them all. They overlap and look alike, so a batch of n chips shows
                n / chips_per_read places. Best a divisor of the batch size.

        Raises:
            ConfigurationError: If an argument is out of range.
            ChipSizeError: If the chip is larger than every scene.
            ValidDataError: If no chip has enough valid data, or none has a partner.
        """
        super().__init__(dataset, size, roi, seed)
        if not 0 <= min_valid <= 1:
            raise ConfigurationError(f'min_valid: expected a fraction from 0 to 1, got {min_valid}.')
        if length is not None and length < 1:
            raise ConfigurationError(f'length: expected at least 1 chip per epoch, got {length}.')
        check_choice('positives', positives, Positives)
        if not 1 <= chips_per_read <= _BLOCK:
            raise ConfigurationError(f'chips_per_read: expected 1 to {_BLOCK} chips, got {chips_per_read}.')
        self.chips_per_read = chips_per_read
        self.min_valid = min_valid
        self.positives: Positives = positives
        need = int(np.ceil(min_valid * self.size[0] * self.size[1] - 1e-9))
        self._places = {i: self._place(i, need, aligned) for i in self._large_enough(need)}
        self._dated = positives in DATED_POSITIVES
        self._partners = {i: self._other_dates(i) for i in self._places} if self._dated else {}
        self._scenes = np.array([i for i, place in self._places.items() if len(place.good)], dtype=np.int64)
        if len(self._scenes) == 0:
            raise self._nothing_valid()
        if self._dated:
            self._keep_paired()
        area = np.array([max(self._places[i].area, 1.0) for i in self._scenes])
        self._share = area / area.sum()
        self.length = length or max(1, int(area.sum() // (self.size[0] * self.size[1])))

    def _large_enough(self, need: int) -> list[int]:
        """Scenes with enough pixels for a chip, which may be padded."""
        fits = [
            i
            for i, scene in enumerate(self.dataset.scenes)
            if min(scene.grid.height, self.size[0]) * min(scene.grid.width, self.size[1]) >= max(need, 1)
        ]
        scenes = self.dataset.scenes
        if not fits:
            largest = max(scenes, key=lambda scene: min(scene.grid.height, scene.grid.width))
            msg = (
                f'chip_size: a chip of {self.size[0]}×{self.size[1]} pixels is larger than every scene; the largest, '
                f'{largest.path}, has {largest.grid.height}×{largest.grid.width}. Use a smaller chip, or a smaller '
                'min_valid, so that chips are padded.'
            )
            raise ChipSizeError(msg)
        if len(fits) < len(scenes):
            small = next(scene for i, scene in enumerate(scenes) if i not in set(fits))
            warnings.warn(
                f'{len(scenes) - len(fits)} of {len(scenes)} scenes are smaller than a chip of '
                f'{self.size[0]}×{self.size[1]} pixels and are left out (the first is {small.path}); a smaller '
                'min_valid lets them be padded.',
                stacklevel=3,
            )
        return fits

    def _place(self, i: int, need: int, aligned: bool) -> _Place:
        grid, block = self.dataset.scenes[i].grid, self.dataset.scenes[i].block_shape
        return _Place(
            grid,
            self.dataset.valid_cells(i),
            self.size,
            need,
            self.region_of(i),
            origins(grid.height, self.size[0], block[0] if aligned else None),
            origins(grid.width, self.size[1], block[1] if aligned else None),
        )

    def _nothing_valid(self) -> ValidDataError:
        i = max(self._places, key=lambda k: self._places[k].cells.total)
        grid = self.dataset.scenes[i].grid
        share = self._places[i].cells.total / grid.window.area
        larger = '' if self._region is None else ', larger blocks (block_size)'
        return ValidDataError(
            f'min_valid: no chip of {self.size[0]}×{self.size[1]} pixels has {self.min_valid:.0%} valid data'
            f'{" inside the region" if self._region is not None else ""}; the fullest of {len(self._places)} scene(s), '
            f'{self.dataset.scenes[i].path}, is {share:.0%} valid. Use a smaller chip{larger} or a smaller min_valid.'
        )

    def _other_dates(self, i: int) -> list[int]:
        """Return scenes of the ground of scene i at another date, as configured, and the same resolution."""
        scenes = self.dataset.scenes
        grid, date, box = scenes[i].grid, scenes[i].date, shapely.box(*scenes[i].grid.bounds)
        excluded = {'earlier': operator.ge, 'later': operator.le}.get(self.positives, operator.eq)
        return [
            j
            for j in self._places
            if j != i
            and date is not None
            and (other := scenes[j].date) is not None
            and not excluded(other, date)
            and scenes[j].grid.crs == grid.crs
            and np.allclose(scenes[j].grid.res, grid.res, rtol=0.01)
            and box.intersects(shapely.box(*scenes[j].grid.bounds))
        ]

    def _keep_paired(self) -> None:
        paired = []
        for i in self._scenes:
            good = self._places[int(i)].good
            has = self._has_partner(int(i), good[:, 0], good[:, 1])
            if has.any():
                self._places[int(i)].good = good[has]
                paired.append(i)
        if not paired:
            msg = (
                f'positives: {self.positives} needs scenes of one place at two dates, with the dates in their names; '
                f'none of the {len(self.dataset.scenes)} scene(s) has such a partner. Use same or nearby.'
            )
            raise ValidDataError(msg)
        self._scenes = np.array(paired, dtype=np.int64)

    def _window_in(self, j: int, i: int, rows: _Ints, cols: _Ints) -> tuple[_Ints, _Ints]:
        """Return the nearest whole pixels of scene j for origins in scene i (same CRS)."""
        source, target = self.dataset.scenes[i].grid.transform, ~self.dataset.scenes[j].grid.transform
        x, y = source.c + cols * source.a + rows * source.b, source.f + cols * source.d + rows * source.e
        col, row = target.c + x * target.a + y * target.b, target.f + x * target.d + y * target.e
        return np.rint(row).astype(np.int64), np.rint(col).astype(np.int64)

    def _partner_table(self, i: int, rows: _Ints, cols: _Ints) -> _Bools:
        """Return which partner has data for which chip, shape (partner, chip)."""
        return np.array([self._places[j].accepts(*self._window_in(j, i, rows, cols)) for j in self._partners[i]])

    def _has_partner(self, i: int, rows: _Ints, cols: _Ints) -> _Bools:
        table = self._partner_table(i, rows, cols)
        return table.any(axis=0) if len(table) else np.zeros(len(rows), dtype=np.bool_)

    def _accepts(self, i: int, rows: _Ints, cols: _Ints) -> _Bools:
        ok = self._places[i].accepts(rows, cols)
        if self._dated and ok.any():
            ok[ok] = self._has_partner(i, rows[ok], cols[ok])
        return ok

    def _draw_in(self, i: int, count: int, rng: np.random.Generator) -> _Ints:
        """Return the origins of ``count`` chips in a scene, shape (count, 2)."""
        place = self._places[i]
        chosen = np.empty((0, 2), dtype=np.int64)
        for _ in range(_ROUNDS):
            rows, cols = rng.choice(place.rows, 2 * count), rng.choice(place.cols, 2 * count)
            ok = self._accepts(i, rows, cols)
            chosen = np.concatenate([chosen, np.stack([rows[ok], cols[ok]], axis=1)])
            if len(chosen) >= count:
                return chosen[:count]
        rest = rng.choice(place.good, count - len(chosen), axis=0)
        return np.concatenate([chosen, rest])

    def _near(self, i: int, row: int, col: int, count: int, rng: np.random.Generator) -> _Ints:
        """Return the origins of ``count`` chips in a neighbourhood of another one, shape (count, 2)."""
        grid, (height, width) = self._places[i].grid, self.dataset.scenes[i].block_shape
        top, bottom = neighbourhood(row, self.size[0], height, max(grid.height, self.size[0]), rng)
        left, right = neighbourhood(col, self.size[1], width, max(grid.width, self.size[1]), rng)
        chosen = np.empty((0, 2), dtype=np.int64)
        for _ in range(_ROUNDS):
            rows, cols = rng.integers(top, bottom + 1, 2 * count), rng.integers(left, right + 1, 2 * count)
            ok = self._accepts(i, rows, cols)
            chosen = np.concatenate([chosen, np.stack([rows[ok], cols[ok]], axis=1)])
            if len(chosen) >= count:
                return chosen[:count]
        return np.concatenate([chosen, self._draw_in(i, count - len(chosen), rng)])

    def _with_neighbours(self, scenes: _Ints, places: _Ints, rng: np.random.Generator) -> tuple[_Ints, _Ints]:
        """Return each chip followed by others of its neighbourhood."""
        count = self.chips_per_read - 1
        groups = [
            np.concatenate([[(row, col)], self._near(int(i), int(row), int(col), count, rng)])
            for i, (row, col) in zip(scenes, places, strict=True)
        ]
        return np.repeat(scenes, self.chips_per_read), np.concatenate(groups)

    def _positive(self, i: int, row: int, col: int, rng: np.random.Generator) -> ChipQuery | None:
        if self.positives == 'same':
            return None
        if self._dated:
            table = self._partner_table(i, np.array([row]), np.array([col]))[:, 0]
            j = int(rng.choice(np.array(self._partners[i])[table]))
            rows, cols = self._window_in(j, i, np.array([row]), np.array([col]))
            return self.dataset.query(j, Window(int(rows[0]), int(cols[0]), *self.size))
        place = self._places[i]
        height, width = self.size
        rows = np.clip(row + rng.integers(-height, height + 1, 8), 0, place.grid.height - height)
        cols = np.clip(col + rng.integers(-width, width + 1, 8), 0, place.grid.width - width)
        ok = np.flatnonzero(place.accepts(rows, cols))
        k = int(ok[0]) if len(ok) else None
        near = (row, col) if k is None else (int(rows[k]), int(cols[k]))
        return self.dataset.query(i, Window(*near, *self.size))

    def draw_block(self, epoch: int, block: int, seed: int | None = None) -> list[ChipQuery]:
        """Draw the chips of one block of positions, over all ranks.

        Args:
            epoch: Epoch, from 0.
            block: Number of the block, from 0.
            seed: Seed to use instead of the sampler's.

        Returns:
            The largest multiple of ``chips_per_read`` up to 64 chips.
        """
        rng = np.random.default_rng([(self.seed if seed is None else seed) % 2**63, epoch, block])
        scenes = rng.choice(self._scenes, _BLOCK // self.chips_per_read, p=self._share)
        places = np.empty((len(scenes), 2), dtype=np.int64)
        for i in np.unique(scenes):
            mine = scenes == i
            places[mine] = self._draw_in(int(i), int(mine.sum()), rng)
        if self.chips_per_read > 1:
            scenes, places = self._with_neighbours(scenes, places, rng)
        return [
            self.dataset.query(int(i), Window(int(row), int(col), *self.size), self._positive(int(i), row, col, rng))
            for i, (row, col) in zip(scenes, places, strict=True)
        ]

    def draw(self, epoch: int, start: int) -> Iterator[ChipQuery]:
        """Yield this rank's chips of an epoch from a position on."""
        rank, world = self.ranks()
        known, chips = -1, list[ChipQuery]()
        together = self.chips_per_read
        for position in range(start, len(self)):
            group, member = divmod(position, together)
            block, within = divmod((rank + group * world) * together + member, _BLOCK // together * together)
            if block != known:
                known, chips = block, self.draw_block(epoch, block)
            yield chips[within]

    def __len__(self) -> int:
        """Return the chips of one epoch on this rank, the same for every rank."""
        return self.length // self.ranks()[1]
