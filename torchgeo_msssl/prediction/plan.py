"""Estimates of the windows, memory, disk space and time that a prediction requires."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from torchgeo_msssl.geo.scene import Scene
from torchgeo_msssl.prediction.class_map import VIEWS, MapOptions, Network, map_files, predict_probabilities
from torchgeo_msssl.prediction.pipeline import BATCHES_AHEAD, BLOCK, GDAL_CACHE
from torchgeo_msssl.prediction.scenes import check_bands
from torchgeo_msssl.prediction.stitch import Tiling

__all__ = ('PredictionPlan', 'plan')

#: Memory for libraries that are loaded on first use and for what the allocator keeps, in bytes.
_OVERHEAD = 128 * 2**20
#: Side of the image that is timed for a local network, in pixels.
_TIMED = 256


@dataclass(frozen=True)
class PredictionPlan:
    """Estimate for one scene.

    Attributes:
        scene: Name of the scene.
        windows: Number of windows; those without data cost next to nothing.
        window: ``(height, width)`` of a window, in pixels.
        blend: How windows are combined, and why.
        memory_bytes: Approximate upper bound of the memory, without the network's own.
        disk_bytes: Upper bound of the disk space for partial and final files, before compression.
        seconds: Approximate upper bound of the time, or None if nothing was timed.
    """

    scene: str
    windows: int
    window: tuple[int, int]
    blend: str
    memory_bytes: int
    disk_bytes: int
    seconds: float | None = None

    def __str__(self) -> str:
        """Format the estimate as one line."""
        duration = 'not timed' if self.seconds is None else f'at most about {self.seconds:,.0f} s'
        return (
            f'{self.scene}: {self.windows:,} windows of {self.window[0]} × {self.window[1]} pixels, {self.blend}; '
            f'memory {self.memory_bytes / 2**20:,.0f} MiB in addition to the network, disk at most '
            f'{self.disk_bytes / 2**20:,.0f} MiB; time {duration}.'
        )


def plan(
    scene: Scene,
    bands: Sequence[str],
    options: MapOptions,
    network: Network | None = None,
    device: torch.device | str = 'cpu',
) -> PredictionPlan:
    """Estimate what the prediction of a scene requires.

    Args:
        scene: The scene.
        bands: Canonical names of the network's bands, in its order.
        options: What is predicted and written.
        network: If given, a small image of zeros is timed.
        device: Device of the network.

    Returns:
        The estimate.

    Raises:
        BandError: If the scene lacks a band.
    """
    check_bands(scene, bands)
    grid, classes = scene.grid, len(options.class_names)
    tiling = options.stitching.tiling(grid.height, grid.width)
    sums = (4 * classes + 1) * tiling.rows.span * grid.width
    pixels = tiling.rows.size * tiling.cols.size * options.batch_size
    batches = pixels * ((2 + BATCHES_AHEAD) * (len(bands) * scene.dtype.itemsize + 1) + 4 * classes * 3)
    specs = map_files(Path('map.tif'), options).values()
    per_pixel = sum(spec.count * np.dtype(spec.dtype).itemsize for spec in specs)
    # Rendered rows that wait for a complete block or for the writer, with the arrays from which they are rendered.
    rendered = grid.width * BLOCK * (5 * per_pixel + 12) + 4 * tiling.rows.span * grid.width
    # A partial and a final file, and half of a file for the overviews.
    disk = round(2.5 * per_pixel * grid.height * grid.width)
    stitching = options.stitching
    return PredictionPlan(
        scene.name,
        tiling.count,
        (tiling.rows.size, tiling.cols.size),
        f'{stitching.blend} ({stitching.reason or "as configured"}), {len(VIEWS[options.tta])} view(s) each',
        sums + batches + rendered + GDAL_CACHE + _OVERHEAD,
        disk,
        None if network is None else _seconds(scene, len(bands), options, tiling, network, device),
    )


def _seconds(
    scene: Scene, bands: int, options: MapOptions, tiling: Tiling, network: Network, device: torch.device | str
) -> float:
    """Time a small image of zeros and extrapolate to all windows.

    A network whose windows are cropped is local, so that its time grows with the number of pixels; others are timed on
    a whole window.
    """
    rows, cols, stride = tiling.rows.size, tiling.cols.size, options.stitching.stride
    if options.stitching.blend == 'crop':
        side = max(_TIMED // stride, 1) * stride
        rows, cols = min(rows, side), min(cols, side)
    image, valid = np.zeros((1, bands, rows, cols), dtype=scene.dtype), np.ones((1, rows, cols), dtype=np.bool_)
    seconds = []
    for _ in range(2):  # the first time includes what a library prepares once
        start = time.perf_counter()
        predict_probabilities(network, image, valid, ((1.0,) * bands, (0.0,) * bands), options, device)
        seconds.append(time.perf_counter() - start)
    return seconds[-1] * (tiling.rows.size * tiling.cols.size) / (rows * cols) * tiling.count
