"""Feature maps: the three main directions of an encoder's embeddings as red, green and blue."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from affine import Affine
from numpy.typing import NDArray
from torch import Tensor

from torchgeo_msssl.evaluation.encoders import Transfer
from torchgeo_msssl.evaluation.frozen_encoder import INPUTS, embed_batch
from torchgeo_msssl.geo.grid import PixelGrid, Window
from torchgeo_msssl.geo.radiometry import Radiometry
from torchgeo_msssl.geo.scene import Scene
from torchgeo_msssl.geo.user_cache import scene_key
from torchgeo_msssl.geo.write import GeoTIFFSpec
from torchgeo_msssl.prediction.pipeline import WindowPredictor, content_key, hash_weights, run_prediction
from torchgeo_msssl.prediction.scenes import read_mirrored
from torchgeo_msssl.prediction.stitch import FinishedRows, Stitching

#: Side of the blocks of cells that are read and embedded at a time, in cells.
BLOCK = 32
NODATA = 0
_COLOURS = ('red', 'green', 'blue')


@dataclass(frozen=True)
class FeatureColours:
    """Map from embeddings to colours.

    Attributes:
        mean: Mean embedding (features,).
        directions: The three directions of largest variance (3, features); zeros where there are fewer.
        low: Score that becomes the darkest value (3,).
        high: Score that becomes the brightest value (3,).
        explained: Fraction of the variance in each direction (3,).
    """

    mean: NDArray[np.float64]
    directions: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    explained: NDArray[np.float64]

    @classmethod
    def fit(cls, features: NDArray[np.floating]) -> 'FeatureColours':
        """Find the main directions of embeddings, and stretch them from the 2nd to the 98th percentile.

        The sign of a direction is arbitrary; it is chosen such that its largest entry is positive.

        Args:
            features: Embeddings (n, features).

        Returns:
            The colours.
        """
        vectors = features.astype(np.float64)
        mean = vectors.mean(axis=0)
        variance, axes = np.linalg.eigh((vectors - mean).T @ (vectors - mean) / len(vectors))
        directions = np.zeros((len(_COLOURS), features.shape[1]))
        found = axes.T[::-1][: len(_COLOURS)]
        largest = np.abs(found).argmax(axis=1, keepdims=True)
        directions[: len(found)] = found * np.sign(np.take_along_axis(found, largest, axis=1))
        low, high = np.percentile((vectors - mean) @ directions.T, [2, 98], axis=0)
        explained = np.zeros(len(_COLOURS))
        explained[: len(found)] = (variance[::-1][: len(found)] / max(variance.sum(), np.finfo(float).tiny)).clip(0)
        return cls(mean, directions, low, high, explained)

    def paint(self, features: NDArray[np.floating]) -> NDArray[np.uint8]:
        """Convert embeddings to colours.

        Args:
            features: Embeddings (n, features).

        Returns:
            Red, green and blue from 1 to 255 (0 is nodata), (n, 3).
        """
        scores = (features.astype(np.float64) - self.mean) @ self.directions.T
        extent = self.high - self.low
        flat = extent <= 0
        fraction = np.where(flat, 0.5, (scores - self.low) / np.where(flat, 1.0, extent))
        return (1 + np.rint(254 * fraction.clip(0, 1))).astype(np.uint8)


def map_grid(grid: PixelGrid, step: int) -> PixelGrid:
    """Return the grid of a map with one cell for every ``step`` × ``step`` pixels.

    Args:
        grid: Grid of the scene.
        step: Side of a cell in pixels.

    Returns:
        A grid with the same CRS and upper left corner; its last row and column may extend beyond the scene.
    """
    return PixelGrid(
        grid.crs, grid.transform @ Affine.scale(step), math.ceil(grid.height / step), math.ceil(grid.width / step)
    )


def centre_of_view(encoder: Transfer, batch: Mapping[str, Tensor]) -> tuple[float, float]:
    """Find the point of a window that its embedding describes.

    For some networks it is not the window's centre: the strides of a ResNet keep the first of every two positions, so
    that the pooled features of a 32-pixel window describe its upper left part, and a map of them would be shifted by 12
    pixels.

    Args:
        encoder: Encoder.
        batch: Some chips of the size of a window: ``image``, ``valid``, ``scale``, ``offset``.

    Returns:
        Mean row and column, weighted with the magnitude of the gradient of the embeddings' variance, in pixels from the
        window's upper left corner (its centre is at half its side).
    """
    device = encoder.normalize.mean.device
    image = encoder.normalize(*(batch[key].to(device) for key in INPUTS)).requires_grad_()
    with torch.enable_grad():
        features = encoder.network(image)
        (gradient,) = torch.autograd.grad((features - features.mean(dim=0)).square().sum(), image)
    weight = gradient.abs().sum(dim=(0, 1)).double().cpu()
    total = weight.sum()
    if total == 0:  # one chip, or embeddings that are all equal
        return image.shape[-2] / 2, image.shape[-1] / 2
    row, col = (torch.arange(side, dtype=weight.dtype) + 0.5 for side in weight.shape)
    return float(weight.sum(dim=1) @ row / total), float(weight.sum(dim=0) @ col / total)


def write_feature_map(
    path: Path,
    encoder: Transfer,
    scene: Scene,
    radiometry: Radiometry,
    bands: Sequence[str],
    colours: FeatureColours,
    size: int,
    step: int,
    centre: tuple[float, float] | None = None,
    batch_size: int = 64,
) -> None:
    """Write the features of a scene as an RGB GeoTIFF.

    Each cell has the colour of the embedding of the ``size`` × ``size`` pixels around it, which is the embedding that a
    chip there has. The feature map of a convolutional network itself would be cheaper, but most have one value per 32
    pixels. Beyond its edges the scene is mirrored. Cells with less than half of their pixels valid are nodata. See
    :func:`~torchgeo_msssl.prediction.pipeline.run_prediction` for memory, resuming and files that exist already.

    Args:
        path: GeoTIFF to write.
        encoder: Encoder.
        scene: Scene.
        radiometry: Its scale and offset.
        bands: Canonical names of the encoder's bands.
        colours: From embeddings to colours; use the same for all scenes to compare them.
        size: Side of a window in pixels.
        step: Side of a cell in pixels.
        centre: Point of a window that is placed on the centre of its cell, see :func:`centre_of_view`; None for the
            window's centre.
        batch_size: Windows per forward pass.

    Raises:
        OutputError: If the file cannot be written.
    """
    predictor = _FeatureMap(encoder, scene, radiometry, bands, colours, size, step, centre, batch_size)
    spec = GeoTIFFSpec(len(_COLOURS), 'uint8', _COLOURS, NODATA)
    run_prediction(predictor, {path: spec}, predictor.key())


class _Cells(NamedTuple):
    """A block of cells with the pixels around them."""

    image: NDArray[Any]
    valid: NDArray[np.bool_]
    inside: NDArray[np.bool_]
    corners: NDArray[np.integer]


class _FeatureMap(WindowPredictor[_Cells]):
    """Colors of the embeddings of one scene, on a grid of cells."""

    def __init__(
        self,
        encoder: Transfer,
        scene: Scene,
        radiometry: Radiometry,
        bands: Sequence[str],
        colours: FeatureColours,
        size: int,
        step: int,
        centre: tuple[float, float] | None,
        windows_at_once: int,
    ) -> None:
        grid = map_grid(scene.grid, step)
        tiling = Stitching('crop', BLOCK).tiling(grid.height, grid.width)
        super().__init__(scene, grid, tiling, len(_COLOURS), batch_size=1)
        self.encoder, self.bands, self.colours = encoder, tuple(bands), colours
        self.size, self.step, self.windows_at_once = size, step, windows_at_once
        self.radiometry = radiometry
        #: Upper left corner of the window of a cell, from the cell's own corner.
        self.shift = tuple(round(step / 2 - point) for point in centre or (size / 2, size / 2))

    def key(self) -> str:
        """Hash everything that determines the map."""
        colours = [values.tolist() for values in vars(self.colours).values()]
        weights = hash_weights(self.encoder.network), hash_weights(self.encoder.normalize)
        how = self.radiometry.scale, self.radiometry.offset
        # The first number is the version of the meaning of the map: raise it when the same settings give another one.
        return content_key(
            1, scene_key(self.scene, self.bands), weights, colours, how, self.size, self.step, self.shift
        )

    def read(self, window: Window) -> tuple[_Cells, NDArray[np.bool_]]:
        step, (down, across) = self.step, self.shift
        top, left, height, width = (side * step for side in (window.row, window.col, window.height, window.width))
        # All windows, and the cells themselves.
        row, bottom = min(top, top + down), max(top + height, top + height - step + down + self.size)
        col, right = min(left, left + across), max(left + width, left + width - step + across + self.size)
        image, valid = read_mirrored(self.scene, Window(row, col, bottom - row, right - col), self.bands)
        inside = _half_valid(valid[top - row : top - row + height, left - col : left - col + width], step)
        inside[self.grid.height - window.row :] = False
        inside[:, self.grid.width - window.col :] = False
        corners = np.argwhere(inside) * step + (top + down - row, left + across - col)
        return _Cells(image, valid, inside, corners), inside

    def apply(self, samples: Sequence[_Cells]) -> NDArray[np.float32]:
        (cells,) = samples
        picture = np.zeros((*cells.inside.shape, len(_COLOURS)), dtype=np.float32)
        batches = range(0, len(cells.corners), self.windows_at_once)
        painted = [self._paint(cells, cells.corners[first : first + self.windows_at_once]) for first in batches]
        picture[cells.inside] = np.concatenate(painted)
        return np.moveaxis(picture, -1, 0)[None]

    def render(self, rows: FinishedRows) -> list[NDArray[Any]]:
        return [np.where(rows.valid, rows.values, NODATA).astype(np.uint8)]

    def _paint(self, cells: _Cells, corners: NDArray[np.integer]) -> NDArray[np.uint8]:
        """Return the colours (window, 3) of windows given by their upper left corners (window, 2)."""
        parts = [np.s_[..., top : top + self.size, left : left + self.size] for top, left in corners]
        batch = {
            'image': torch.from_numpy(np.stack([cells.image[part] for part in parts])),
            'valid': torch.from_numpy(np.stack([cells.valid[None][part] for part in parts])),
            'scale': torch.tensor(self.radiometry.scale, dtype=torch.float32).expand(len(corners), -1),
            'offset': torch.tensor(self.radiometry.offset, dtype=torch.float32).expand(len(corners), -1),
        }
        return self.colours.paint(embed_batch(self.encoder, batch).numpy())


def _half_valid(valid: NDArray[np.bool_], step: int) -> NDArray[np.bool_]:
    """Return the cells of which half of the pixels or more are valid, from a mask (height, width) of whole cells."""
    height, width = (side // step for side in valid.shape)
    return valid.reshape(height, step, width, step).mean(axis=(1, 3)) >= 0.5
