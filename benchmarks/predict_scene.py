"""Cost of mapping a scene compared with the forward passes over the same windows.

`predict_scene` (reading, normalization, network, stitching, writing, overviews) and the network alone on float tensors
in memory, with the same number and size of batches, run alternately in one process. The median of the ratios is
printed, with the time to read the same windows.

    python benchmarks/predict_scene.py                     # 5490 × 5490 pixels, 4 bands, uint16, on the CPU
    python benchmarks/predict_scene.py --scene ortho.tif --device cuda
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from affine import Affine
from torch import Tensor

from torchgeo_msssl.geo.grid import PixelGrid, Window
from torchgeo_msssl.geo.headers import find_scenes
from torchgeo_msssl.geo.scene import Scene
from torchgeo_msssl.geo.write import GeoTIFFSpec, GeoTIFFWriter
from torchgeo_msssl.prediction import MapOptions, predict_scene
from torchgeo_msssl.prediction.receptive_field import choose_blend
from torchgeo_msssl.prediction.scenes import read_mirrored
from torchgeo_msssl.tasks import VineSegmentation

BANDS = ('B02', 'B03', 'B04', 'B08')


def write_scene(path: Path, size: int) -> None:
    """Write a scene of smooth texture and noise, uint16, in tiles of 256 pixels, with deflate."""
    grid = PixelGrid('EPSG:32631', Affine(10, 0, 500_000, 0, -10, 4_900_000), size, size)
    rng = np.random.default_rng(0)
    spec = GeoTIFFSpec(len(BANDS), 'uint16', BANDS, nodata=0, compress='deflate')
    with GeoTIFFWriter(path, grid, spec) as writer:
        for row in range(0, size, 256):
            window = Window(row, 0, min(256, size - row), size)
            coarse = rng.normal(1500, 400, (len(BANDS), -(-window.height // 16), -(-size // 16)))
            smooth = coarse.repeat(16, axis=1).repeat(16, axis=2)[:, : window.height, :size]
            image = smooth + rng.normal(0, 40, smooth.shape)
            writer.write(image.clip(1, 10_000).astype(np.uint16), window)


def seconds(step: Callable[[], Any], device: str) -> float:
    """Return the time of a step."""
    if device == 'cuda':
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if device == 'cuda':
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(scene: Scene, options: argparse.Namespace, folder: Path) -> None:
    """Measure and print the table."""
    bands = scene.bands
    torch.manual_seed(0)
    task: Any = VineSegmentation(model='unet', backbone=options.backbone, in_channels=len(bands))
    task = task.to(options.device).eval()
    stitching = choose_blend(task.model, len(bands), options.window, options.blend, None)
    settings = MapOptions(task.class_names, stitching, batch_size=options.batch)
    tiling = stitching.tiling(scene.grid.height, scene.grid.width)
    places = [(row, col) for row in range(len(tiling.rows.starts)) for col in range(len(tiling.cols.starts))]

    def network(image: Tensor, valid: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
        return task(image, valid, scale, offset)

    def ours() -> None:
        predict_scene(
            network, scene, bands, folder / 'map.tif', settings, device=options.device, overwrite=True, progress=False
        )

    def bare() -> None:
        # Batches do not extend over rows of windows.
        per_row = len(tiling.cols.starts)
        sizes = [min(options.batch, per_row - col) for col in range(0, per_row, options.batch)]
        inputs = {n: torch.randn(n, len(bands), tiling.rows.size, tiling.cols.size).to(options.device) for n in sizes}
        with torch.inference_mode():
            for _ in tiling.rows.starts:
                for n in sizes:
                    task.model(inputs[n])

    def reading() -> None:
        for place in places:
            read_mirrored(scene, tiling.window(*place), bands)

    times: dict[str, list[float]] = {'ours': [], 'bare': [], 'reading': []}
    for _ in range(options.repeats):
        for name, step in (('ours', ours), ('bare', bare), ('reading', reading)):
            times[name].append(seconds(step, options.device))
    ratio = statistics.median(a / b for a, b in zip(times['ours'], times['bare'], strict=True))
    mid = {name: statistics.median(values) for name, values in times.items()}
    print('| windows | size | predict, s | forward, s | median ratio | reading, s |\n|---|---|---|---|---|---|')
    print(
        f'| {len(places)} | {tiling.rows.size} | {mid["ours"]:.1f} | {mid["bare"]:.1f} | {ratio:.3f} '
        f'| {mid["reading"]:.1f} |'
    )


def main() -> None:
    """Read the options and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--scene', help='scene to map (default: a generated one)')
    parser.add_argument('--size', type=int, default=5490)
    parser.add_argument('--backbone', default='resnet18')
    parser.add_argument('--window', type=int, default=None, help='side of a window (default: as in predict)')
    parser.add_argument('--blend', default='auto', choices=['auto', 'crop', 'hann'])
    parser.add_argument('--batch', type=int, default=4)
    parser.add_argument('--repeats', type=int, default=3)
    parser.add_argument('--device', default='cpu', choices=['cpu', 'cuda'])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.scene is None:
            options.scene = str(folder / 'scene.tif')
            write_scene(Path(options.scene), options.size)
        (scene,) = find_scenes(options.scene)
        print(
            f'{scene.grid.height} × {scene.grid.width} pixels, {len(scene.bands)} bands, unet of {options.backbone}, '
            f'{options.device}, torch {torch.__version__}, {torch.get_num_threads()} threads'
        )
        measure(scene, options, folder)


if __name__ == '__main__':
    main()
