"""Class maps of a part of the ground, kept in memory to be scored."""

import bisect
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry
from torch import Tensor

from torchgeo_msssl.datasets.scenes import Scenes
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.vector.burn import GeometryIndex, region_index
from torchgeo_msssl.prediction.class_map import NODATA, Chip, ClassMap, MapOptions, Network
from torchgeo_msssl.prediction.pipeline import predict_rows

__all__ = ('ClassTiles', 'GroundMaps', 'map_ground')

#: Side of a tile in pixels.
_SIDE = 256


class ClassTiles:
    """Classes of a scene in compressed tiles, of which those without classes are left out."""

    def __init__(self) -> None:
        """Start without tiles."""
        self._firsts: list[int] = []
        self._rows: list[dict[int, tuple[tuple[int, int], bytes]]] = []

    def add(self, first: int, classes: NDArray[np.uint8]) -> None:
        """Add rows, from top to bottom.

        Args:
            first: Index of the first row.
            classes: Classes (row, col), 255 where there are none.
        """
        tiles = {}
        for col in range(0, classes.shape[1], _SIDE):
            tile = classes[:, col : col + _SIDE]
            if (tile != NODATA).any():
                tiles[col] = tile.shape, zlib.compress(tile.tobytes(), level=1)
        if tiles:
            self._firsts.append(first)
            self._rows.append(tiles)

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Return the classes of a window (height, width), 255 where there are none."""
        classes = np.full((window.height, window.width), NODATA, dtype=np.uint8)
        begin = max(bisect.bisect_right(self._firsts, window.row) - 1, 0)
        end = bisect.bisect_left(self._firsts, window.row + window.height)
        for first, tiles in zip(self._firsts[begin:end], self._rows[begin:end], strict=True):
            for col, (shape, packed) in tiles.items():
                place = Window(first, col, *shape)
                common = place.intersection(window)
                if common is not None:
                    tile = np.frombuffer(zlib.decompress(packed), dtype=np.uint8).reshape(shape)
                    classes[_within(common, window)] = tile[_within(common, place)]
        return classes


def _within(part: Window, window: Window) -> tuple[slice, slice]:
    row, col = part.row - window.row, part.col - window.col
    return slice(row, row + part.height), slice(col, col + part.width)


class GroundMaps:
    """Class maps of scenes, see :class:`torchgeo_msssl.contract.ClassMaps`."""

    def __init__(self, maps: Mapping[int, ClassTiles]) -> None:
        """Keep the maps.

        Args:
            maps: Map of each scene by its index.
        """
        self._maps = maps

    def classes(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the classes of a batch of windows (batch, height, width), int64.

        Args:
            batch: ``scene`` (batch,) and ``window`` (batch, 4): row, column, height and width.
        """
        places = zip(batch['scene'].tolist(), batch['window'].tolist(), strict=True)
        windows = [self._maps[scene].read(Window(*window)) for scene, window in places]
        return torch.from_numpy(np.stack(windows).astype(np.int64))


def map_ground(
    network: Network,
    scenes: Scenes,
    region: BaseGeometry,
    options: MapOptions,
    device: torch.device | str = 'cpu',
    numbers: Iterable[int] | None = None,
    progress: bool = True,
) -> dict[int, ClassTiles]:
    """Map a region of scenes as :func:`~torchgeo_msssl.prediction.class_map.predict_scene` does.

    Windows that count nowhere in the region are left out, which does not change the pixels inside it.

    Args:
        network: From pixels to logits, in eval mode.
        scenes: The scenes, whose bands are the network's.
        region: Region in their CRS.
        options: What is predicted; the files that it names are not written.
        device: Device of the network.
        numbers: Indices of the scenes to map; None for all.
        progress: Whether to show a progress bar.

    Returns:
        Map of each of these scenes by its index.

    Raises:
        ConfigurationError: If the network's output does not fit the options, or is not finite.
        SceneReadError: If a scene is damaged.
    """
    ground, maps = region_index(region, scenes.crs), {}
    for number in range(len(scenes.scenes)) if numbers is None else numbers:
        maps[number] = tiles = ClassTiles()
        scene, how = scenes.scenes[number], scenes.radiometry[number]
        if not ground.touches(scene.grid):
            continue
        radiometry = tuple(how.scale), tuple(how.offset)
        predictor = _GroundMap(ground, network, scene, scenes.bands, options, radiometry, device)

        def keep(first: int, rendered: list[NDArray[Any]], tiles: ClassTiles = tiles) -> None:
            tiles.add(first, rendered[-1][0])

        predict_rows(predictor, keep, progress=progress)
    return maps


class _GroundMap(ClassMap):
    """A class map of which windows that count nowhere on a ground are read as empty."""

    def __init__(self, ground: GeometryIndex, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.ground = ground

    def read(self, window: Window) -> tuple[Chip, NDArray[np.bool_]]:
        rows, cols = self.tiling.rows, self.tiling.cols
        counted = Window(window.row + rows.lead, window.col + cols.lead, rows.span, cols.span)
        if self.ground.touches(self.grid.cut(counted)):
            return super().read(window)
        nothing = np.zeros((window.height, window.width), dtype=np.bool_)
        return (nothing[None], nothing), nothing
