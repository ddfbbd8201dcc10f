"""Maps of features: the three main directions of an encoder's embeddings as red, green and blue."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from affine import Affine
from numpy.typing import NDArray
from torch import Tensor

from torchgeo_msssl.datasets.scenes import Scenes
from torchgeo_msssl.evaluation.encoders import Transfer
from torchgeo_msssl.evaluation.frozen_encoder import INPUTS, embed_batch
from torchgeo_msssl.geo.grid import PixelGrid, Window
from torchgeo_msssl.geo.write import GeoTIFFSpec, GeoTIFFWriter

#: Side of the blocks in which a map is made and stored, in cells.
BLOCK = 32
NODATA = 0
_COLOURS = ('red', 'green', 'blue')


@dataclass(frozen=True)
class FeatureColours:
    """From embeddings to colours.

    Attributes:
        mean: Mean embedding, shape (features,).
        directions: The three directions of largest variance, shape (3, features); zeros where there are fewer.
        low: Score that becomes the darkest value, shape (3,).
        high: Score that becomes the brightest value, shape (3,).
        explained: Share of the variance in each direction, shape (3,).
    """

    mean: NDArray[np.float64]
    directions: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    explained: NDArray[np.float64]

    @classmethod
    def fit(cls, features: NDArray[np.floating]) -> 'FeatureColours':
        """Find the main directions of embeddings, and stretch them from the 2nd to the 98th percentile.

        The sign of a direction is arbitrary; it is taken so that its largest entry is positive.

        Args:
            features: Shape (n, features).

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
        """Give embeddings their colours.

        Args:
            features: Shape (n, features).

        Returns:
            Red, green and blue from 1 to 255 (0 means no data), shape (n, 3).
        """
        scores = (features.astype(np.float64) - self.mean) @ self.directions.T
        extent = self.high - self.low
        flat = extent <= 0
        share = np.where(flat, 0.5, (scores - self.low) / np.where(flat, 1.0, extent))
        return (1 + np.rint(254 * share.clip(0, 1))).astype(np.uint8)


def map_grid(grid: PixelGrid, step: int) -> PixelGrid:
    """The grid of a map with one cell for every ``step`` × ``step`` pixels.

    Args:
        grid: Grid of the scene.
        step: Side of a cell in pixels.

    Returns:
        A grid with the same CRS and upper left corner; its last row and column may reach over the border.
    """
    return PixelGrid(
        grid.crs, grid.transform @ Affine.scale(step), math.ceil(grid.height / step), math.ceil(grid.width / step)
    )


def centre_of_view(encoder: Transfer, batch: Mapping[str, Tensor]) -> tuple[float, float]:
    """Find the point of a window that an embedding tells about.

    It is not the window's middle for every network: a ResNet's strides keep the first of every two positions, so that
    the pooled features of a 32-pixel window look at its upper left part, and a map of them would lie 12 pixels off.

    Args:
        encoder: Encoder.
        batch: Some chips of the size of a window: ``image``, ``valid``, ``scale``, ``offset``.

    Returns:
        Mean row and column, weighted with the size of the gradient of the embeddings' spread, in pixels from the
        window's upper left corner (its middle is at half its side).
    """
    device = encoder.normalize.mean.device
    image = encoder.normalize(*(batch[key].to(device) for key in INPUTS)).requires_grad_()
    with torch.enable_grad():
        features = encoder.network(image)
        (gradient,) = torch.autograd.grad((features - features.mean(dim=0)).square().sum(), image)
    weight = gradient.abs().sum(dim=(0, 1)).double().cpu()
    total = weight.sum()
    if total == 0:  # one chip, or embeddings that are all the same
        return image.shape[-2] / 2, image.shape[-1] / 2
    row, col = (torch.arange(side, dtype=weight.dtype) + 0.5 for side in weight.shape)
    return float(weight.sum(dim=1) @ row / total), float(weight.sum(dim=0) @ col / total)


def write_feature_map(
    path: Path,
    encoder: Transfer,
    scenes: Scenes,
    scene: int,
    colours: FeatureColours,
    size: int,
    step: int,
    centre: tuple[float, float] | None = None,
    batch_size: int = 64,
    on_block: Callable[[], None] = lambda: None,
) -> None:
    """Write the features of a scene as a picture on the ground.

    Each cell has the colour of the embedding of the ``size`` × ``size`` pixels around it, the same embedding that
    chips have. A convolutional network's own feature map would be cheaper, but most have one value every 32 pixels.
    Beyond the border the scene is reflected. Cells with less than half of their pixels valid are nodata. Blocks of
    cells are read, embedded and written one after the other, so memory does not grow with the scene.

    Args:
        path: GeoTIFF to write; it appears complete or not at all.
        encoder: Encoder.
        scenes: Scenes.
        scene: Which of them.
        colours: From embeddings to colours, the same for all scenes.
        size: Side of a window in pixels.
        step: Side of a cell in pixels.
        centre: Point of a window that comes to lie on the middle of its cell, see :func:`centre_of_view`; None for
            the window's middle.
        batch_size: Windows at once.
        on_block: Called after each block.

    Raises:
        OutputError: If the file cannot be written.
    """
    target = map_grid(scenes.scenes[scene].grid, step)
    down, across = (round(step / 2 - point) for point in centre or (size / 2, size / 2))
    spec = GeoTIFFSpec(len(_COLOURS), 'uint8', band_names=_COLOURS, nodata=NODATA, blocksize=BLOCK)
    with GeoTIFFWriter(path, target, spec) as writer:
        for block in blocks(target):
            cells = Window(block.row * step, block.col * step, block.height * step, block.width * step)
            # the windows of the first and of the last cell, and the cells themselves
            first = Window(cells.row + down, cells.col + across, size, size)
            around = _enclose(cells, first, replace(first, row=first.row + cells.height, col=first.col + cells.width))
            pixels = _read_reflected(scenes, scene, around)
            own = pixels['valid'][0, cells.row - around.row :, cells.col - around.col :]
            inside = _half_valid(own[: cells.height, : cells.width], step)
            corners = np.argwhere(inside) * step + (first.row - around.row, first.col - around.col)
            picture = np.full((*inside.shape, len(_COLOURS)), NODATA, dtype=np.uint8)
            picture[inside] = _paint_windows(encoder, colours, pixels, corners, size, batch_size)
            writer.write(picture.transpose(2, 0, 1).copy(), block)
            on_block()


def blocks(grid: PixelGrid) -> Iterator[Window]:
    """Blocks of a map in the order in which they are written.

    Args:
        grid: Grid of the map.

    Yields:
        Windows that follow the tiles of the file.
    """
    for row in range(0, grid.height, BLOCK):
        for col in range(0, grid.width, BLOCK):
            yield Window(row, col, min(BLOCK, grid.height - row), min(BLOCK, grid.width - col))


def _enclose(*windows: Window) -> Window:
    row, col = min(window.row for window in windows), min(window.col for window in windows)
    bottom = max(window.row + window.height for window in windows)
    right = max(window.col + window.width for window in windows)
    return Window(row, col, bottom - row, right - col)


def _read_reflected(scenes: Scenes, scene: int, window: Window) -> dict[str, Tensor]:
    """Read a window; what lies beyond the scene is its reflection at the border."""
    inside = window.intersection(scenes.scenes[scene].grid.window)
    assert inside is not None, 'every block of a map has pixels of the scene'
    sample = scenes[scenes.query(scene, inside)]
    top, left = inside.row - window.row, inside.col - window.col
    bottom, right = window.height - inside.height - top, window.width - inside.width - left
    for key in ('image', 'valid'):
        padded = np.pad(sample[key].numpy(), ((0, 0), (top, bottom), (left, right)), mode='symmetric')
        sample[key] = torch.from_numpy(padded)
    return sample


def _half_valid(valid: Tensor, step: int) -> NDArray[np.bool_]:
    """Cells of which half of the pixels or more are valid, from a mask (height, width) of whole cells."""
    share = valid.float().unfold(0, step, step).unfold(1, step, step).mean(dim=(2, 3))
    inside: NDArray[np.bool_] = (share >= 0.5).numpy()
    return inside


def _paint_windows(
    encoder: Transfer,
    colours: FeatureColours,
    pixels: Mapping[str, Tensor],
    corners: NDArray[np.integer],
    size: int,
    batch_size: int,
) -> NDArray[np.uint8]:
    """Colours (window, 3) of windows given by their upper left corners (window, 2) in an image."""
    painted = [np.empty((0, len(_COLOURS)), np.uint8)]
    for first in range(0, len(corners), batch_size):
        some = corners[first : first + batch_size]
        batch = {
            key: torch.stack([pixels[key][:, top : top + size, left : left + size] for top, left in some])
            for key in ('image', 'valid')
        }
        batch |= {key: pixels[key].expand(len(some), -1) for key in ('scale', 'offset')}
        painted.append(colours.paint(embed_batch(encoder, batch).numpy()))
    return np.concatenate(painted)
