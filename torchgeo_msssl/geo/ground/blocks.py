"""A grid of square blocks of ground, anchored at the origin of the CRS."""

import hashlib
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.ground.area import Ground, Polygons, cut_to

#: Rounding of coordinates, as a fraction of a block.
_ROUNDING = 1e-6
#: Fraction of a block below which the part of it inside a region does not count as a block.
_SLIVER = 1e-3

#: Row and column of blocks, counted to the north and to the east from the origin of the CRS; shape (block, 2).
type Cells = NDArray[np.int64]


@dataclass(frozen=True)
class BlockGrid:
    """Square blocks of ground.

    Attributes:
        ground: The ground that is divided.
        block_size: Side of a block in pixels of the ground.
    """

    ground: Ground
    block_size: int

    def __post_init__(self) -> None:
        """Check the size."""
        if self.block_size < 1:
            raise ConfigurationError(f'block_size: expected at least 1 pixel, got {self.block_size}.')

    @property
    def sides(self) -> tuple[float, float]:
        """Width and height of a block in units of the CRS."""
        return self.block_size * self.ground.pixel[0], self.block_size * self.ground.pixel[1]

    def cells_at(self, points: NDArray[np.float64]) -> Cells:
        """Return the block of each point.

        Args:
            points: Coordinates (x, y) in the CRS, shape (point, 2).

        Returns:
            Row and column of each, shape (point, 2).
        """
        return np.floor(points[:, ::-1] / self.sides[::-1] + _ROUNDING).astype(np.int64)

    def cells(self) -> Cells:
        """Return the blocks with ground on them, sorted by row and column.

        Returns:
            Shape (block, 2). Gaps between distant scenes cost nothing.
        """
        width, height = self.sides
        found: set[tuple[int, int]] = set()
        for left, bottom, right, top in shapely.bounds(self.ground.outlines).tolist():
            columns = range(int(left / width // 1), int(np.ceil(right / width)))
            rows = range(int(bottom / height // 1), int(np.ceil(top / height)))
            found.update((row, column) for row in rows for column in columns)
        cells = np.array(sorted(found), dtype=np.int64).reshape(-1, 2)
        return cells[self.areas(cells) > _ROUNDING]

    def areas(self, cells: Cells) -> NDArray[np.float64]:
        """Return the fraction of each block that has ground, shape (block,)."""
        union = self.ground.union
        shapely.prepare(union)
        fractions: NDArray[np.float64] = shapely.area(shapely.intersection(self.boxes(cells), union))
        return fractions / (self.sides[0] * self.sides[1])

    def boxes(self, cells: Cells) -> Polygons:
        """Return the outline of each block, shape (block,)."""
        width, height = self.sides
        row, column = cells.T
        boxes: Polygons = shapely.box(column * width, row * height, (column + 1) * width, (row + 1) * height)
        return boxes

    def inside(self, region: BaseGeometry, seed: int) -> tuple[Polygons, Cells]:
        """Return the blocks inside a region, cut to it, in an order to choose from.

        Args:
            region: Region in the CRS.
            seed: Seed of the order.

        Returns:
            Polygons with their rows and columns, in an order that each block's place and the seed decide; those with
            ground of scenes on less than half of a block come last. Slivers along the region's border are left out.
        """
        cells = self.cells()
        pieces = cut_to(self.boxes(cells), region)
        block = self.sides[0] * self.sides[1]
        kept = np.flatnonzero(shapely.area(pieces) > _SLIVER * block)
        pieces, cells = pieces[kept], cells[kept]
        partial = shapely.area(shapely.intersection(pieces, self.ground.union)) < block / 2
        order = np.lexsort((chances(cells, seed), partial))
        return pieces[order], cells[order]


def chances(cells: Cells, seed: int) -> NDArray[np.float64]:
    """Draw a number for each block that depends on the seed and the block's place alone.

    Args:
        cells: Row and column of each block, shape (block, 2).
        seed: The seed.

    Returns:
        Numbers from 0 to 1, shape (block,).
    """
    texts = (f'{seed}/{row}/{column}'.encode() for row, column in cells.tolist())
    digests = [hashlib.blake2b(text, digest_size=7).digest() for text in texts]
    return np.array([int.from_bytes(digest) / 2**56 for digest in digests])
