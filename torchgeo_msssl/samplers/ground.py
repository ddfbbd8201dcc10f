"""Windows that show each pixel of a region once."""

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from torchgeo_msssl.datasets.scenes import Scenes
from torchgeo_msssl.errors import EmptyIntersectionError
from torchgeo_msssl.geo.grid import PixelGrid, Window
from torchgeo_msssl.samplers.base import FixedSampler


class GroundSampler(FixedSampler):
    """Yields windows of the pixel grid of each scene that hold pixels of a region and data.

    Windows lie side by side from the north-west corner of the scene, so that every pixel is in one of them, and may
    extend beyond the region and the scene. Pixels outside the region are for
    :meth:`~torchgeo_msssl.datasets.labels.LabelledScenes.inside` to leave out.
    """

    def __init__(
        self, dataset: Scenes, size: int, roi: BaseGeometry, context: int = 0, all_ranks: bool = False
    ) -> None:
        """Find the windows.

        Args:
            dataset: Scenes.
            size: Side of a window without its context, in pixels.
            roi: The region (in the dataset's CRS).
            context: Pixels by which each window is extended on all sides.
            all_ranks: Give every rank of a distributed run all windows instead of its share.

        Raises:
            ConfigurationError: If the size is not positive.
            EmptyIntersectionError: If the region holds no pixel with data.
        """
        super().__init__(dataset, size, roi, all_ranks)
        for scene in range(len(dataset.scenes)):
            origins, side = self._origins(scene, size), size + 2 * context
            self.places.extend((scene, Window(row - context, col - context, side, side)) for row, col in origins)
        if not self.places:
            raise EmptyIntersectionError('roi: no scene has data inside the region; use another split or seed.')

    def _origins(self, scene: int, size: int) -> list[tuple[int, int]]:
        """Return first row and column of the windows of a scene."""
        grid, region = self.dataset.scenes[scene].grid, self.region_of(scene)
        corners = np.meshgrid(np.arange(0, grid.height, size), np.arange(0, grid.width, size), indexing='ij')
        rows, cols = (corner.ravel() for corner in corners)
        kept = shapely.intersects(region, _between_centres(grid, rows, cols, size))
        _, at_most = self.dataset.valid_cells(scene).bounds(rows, cols, self.size)
        kept &= at_most > 0
        return list(zip(rows[kept].tolist(), cols[kept].tolist(), strict=True))


def _between_centres(
    grid: PixelGrid, rows: NDArray[np.int64], cols: NDArray[np.int64], size: int
) -> NDArray[np.object_]:
    """Return the boxes between the outermost pixel centres of windows; a region that touches one holds pixels."""
    t = grid.transform  # north up, as all scenes of a dataset
    left, right = (t.c + t.a * (cols + pixel) for pixel in (0.5, size - 0.5))
    top, bottom = (t.f + t.e * (rows + pixel) for pixel in (0.5, size - 0.5))
    boxes: NDArray[np.object_] = shapely.box(left, bottom, right, top)
    return boxes
