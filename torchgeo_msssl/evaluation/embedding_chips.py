"""Chips to embed, from scenes or from a folder of chips, with the ground that they cover."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS
from rasterio.warp import transform as transform_points
from torch import Tensor

from torchgeo_msssl.datamodules.base import SpectralDataModule
from torchgeo_msssl.datasets.batches import collate
from torchgeo_msssl.datasets.chips import ChipPart, Chips
from torchgeo_msssl.datasets.queries import ChipQuery
from torchgeo_msssl.datasets.scenes import Scenes
from torchgeo_msssl.geo.grid import PixelGrid, Window
from torchgeo_msssl.geo.vector.antimeridian import cut_at_antimeridian
from torchgeo_msssl.samplers.grid import GridChipSampler

#: CRS of footprints if the chips have several.
_COMMON_CRS = 'EPSG:4326'


@dataclass(frozen=True)
class ChipOrigin:
    """File of a chip, and its window on the file's grid."""

    name: str
    grid: PixelGrid
    window: Window


@dataclass(frozen=True)
class EmbeddingChips:
    """Chips of one dataset.

    Attributes:
        dataset: The scenes, or the chips of a folder.
        queries: What the dataset is indexed with, for each chip.
        origins: Origin of each chip.
        rgb_index: Channels to display as red, green and blue.
    """

    dataset: Scenes | Chips
    queries: Sequence[ChipQuery | ChipPart]
    origins: Sequence[ChipOrigin]
    rgb_index: tuple[int, int, int]

    def __len__(self) -> int:
        """Return the number of chips."""
        return len(self.queries)

    def batch(self, chips: Sequence[int] | NDArray[np.intp]) -> dict[str, Any]:
        """Read chips.

        Args:
            chips: Their numbers.

        Returns:
            ``image`` (batch, band, height, width), ``valid`` (batch, 1, height, width), ``scale`` and ``offset``
            (batch, band), and what else the dataset returns.
        """
        queries: Any = [self.queries[i] for i in chips]
        batch: dict[str, Tensor] = collate(self.dataset.__getitems__(queries))
        return batch

    def subset(self, chips: Sequence[int] | NDArray[np.intp]) -> 'EmbeddingChips':
        """Return some of the chips.

        Args:
            chips: Their numbers.
        """
        queries, origins = ([entries[i] for i in chips] for entries in (self.queries, self.origins))
        return EmbeddingChips(self.dataset, queries, origins, self.rgb_index)  # type: ignore[arg-type]

    def footprints(self) -> tuple[NDArray[np.object_], CRS | None]:
        """Return the ground that the chips cover.

        Returns:
            Polygons (chip,), None for chips that are not georeferenced; and their CRS: that of the files, longitude and
            latitude if they have several, None if they have none.
        """
        systems = list(dict.fromkeys(origin.grid.crs for origin in self.origins if origin.grid.is_georeferenced))
        polygons = np.full(len(self), None, dtype=object)
        for system in systems:
            own = np.array([i for i, origin in enumerate(self.origins) if origin.grid.crs == system])
            bounds = [self.origins[i].grid.window_bounds(self.origins[i].window) for i in own]
            boxes = shapely.box(*np.array(bounds).T)
            if len(systems) > 1:

                def to_degrees(points: NDArray[np.float64], crs: Any = system) -> NDArray[np.float64]:
                    return np.stack(transform_points(crs, _COMMON_CRS, *points.T), axis=1)

                boxes, _ = cut_at_antimeridian(shapely.transform(boxes, to_degrees), _COMMON_CRS)
            polygons[own] = boxes
        if not systems:
            return polygons, None
        return polygons, CRS.from_user_input(_COMMON_CRS if len(systems) > 1 else systems[0].to_wkt())


def chips_of_scenes(data: SpectralDataModule, stride: int | None, min_valid: float) -> EmbeddingChips:
    """Cover scenes with chips.

    Args:
        data: Data module that reads scenes.
        stride: Distance between chips in pixels; None for the side of a chip.
        min_valid: Minimum fraction of valid pixels per chip.

    Returns:
        The chips.

    Raises:
        EmptyIntersectionError: If no chip has enough valid pixels.
    """
    data.scene_reader.count_valid_pixels()
    scenes, size = data.scenes, data.chip_size
    places = GridChipSampler(scenes, size, size - (stride or size), min_valid=min_valid).places
    queries = [scenes.query(scene, window) for scene, window in places]
    origins = [ChipOrigin(scenes.scenes[i].name, scenes.scenes[i].grid, window) for i, window in places]
    return EmbeddingChips(scenes, queries, origins, data.rgb_index)


def chips_of_folder(data: SpectralDataModule) -> EmbeddingChips:
    """Take the chips of a folder.

    Args:
        data: Data module that reads a folder of chips.

    Returns:
        The chips, or the windows of ``chip_size`` that cover them.
    """
    dataset = data.reader.dataset('train')
    assert isinstance(dataset, Chips)
    queries: list[ChipPart] = list(data.reader.covering_sampler('train', all_ranks=True))
    origins = []
    for chip, part in queries:
        name, grid, window = dataset.source.origin(chip)
        place = Window(window.row + part.row, window.col + part.col, part.height, part.width)
        origins.append(ChipOrigin(name, grid, place))
    return EmbeddingChips(dataset, queries, origins, data.rgb_index)
