"""Benchmark of `chip` against ``gdal_retile.py``, on one machine in one run.

The scene is synthetic: twelve bands of Sentinel-2 as uint16 in tiles of 256 pixels with deflate, fields with texture
and noise, with the bands of 20 m and 60 m repeated to 10 m as in stacked products. `chip` and ``gdal_retile.py`` run
alternately, each as a separate process; medians are printed. Decoding the scene and encoding its chips are measured
separately with rasterio in one thread.

    python benchmarks/chip_scenes.py
    python benchmarks/chip_scenes.py --size 2048 --repeats 2
    python benchmarks/chip_scenes.py --scene my_tile.tif
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import from_origin
from scipy import ndimage

from torchgeo_msssl.bands import SENSORS
from torchgeo_msssl.geo.chipping.options import ChipOptions, Compression
from torchgeo_msssl.geo.chipping.plan import chips_of
from torchgeo_msssl.geo.chipping.run import chip_scenes
from torchgeo_msssl.geo.chipping.write import ENVIRONMENT, chip_format
from torchgeo_msssl.geo.headers import find_scenes

RETILE = 'gdal_retile.py'
#: Pixel size of each band of Sentinel-2 L2A in metres (default: 20), and its typical value.
_METRES = {'B02': 10, 'B03': 10, 'B04': 10, 'B08': 10, 'B01': 60, 'B09': 60}
_LEVEL = {
    'B01': 400,
    'B02': 550,
    'B03': 800,
    'B04': 900,
    'B05': 1300,
    'B06': 2100,
    'B07': 2400,
    'B08': 2600,
    'B8A': 2700,
    'B09': 2700,
    'B11': 2200,
    'B12': 1500,
}
#: Targets: times as fast as gdal_retile.py, by compression and number of processes.
TARGETS = {('zstd', 1): 2.5, ('zstd', 2): 4.5, ('deflate', 1): 1.2, ('deflate', 2): 2.5}
VIRTUAL_TARGET = 50.0


def main() -> int:
    """Make a scene, measure, and print a table.

    Returns:
        Exit status.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--size', type=int, default=5490, help='side of the scene in pixels (default: 5490)')
    parser.add_argument('--scene', help='scene to use instead of a synthetic one')
    parser.add_argument('--chip', type=int, default=256, help='side of a chip (default: 256)')
    parser.add_argument('--repeats', type=int, default=3, help='number of runs of each command (default: 3)')
    parser.add_argument('--folder', help='folder for temporary files (default: that of the system)')
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as temporary:
        folder = Path(temporary)
        os.environ['TORCHGEO_MSSSL_CACHE'] = str(folder / 'cache')
        path = given.scene or make_scene(folder / 'scene.tif', given.size)
        measure(path, given.chip, given.repeats, folder)
    return 0


def make_scene(path: Path, side: int) -> str:
    """Write a scene with the texture of fields.

    Args:
        path: GeoTIFF to write.
        side: Rows and columns.

    Returns:
        The path.
    """
    names = SENSORS['sentinel2_l2a'].names
    rng = np.random.default_rng(0)
    parcel = parcels(rng, side)
    tone = rng.normal(1, 0.25, (len(names), int(parcel.max()) + 1)).clip(0.3)
    relief = 1 + 0.15 * smooth(rng, side, 90) + 0.06 * smooth(rng, side, 12)
    profile: dict[str, Any] = {
        'driver': 'GTiff',
        'count': len(names),
        'height': side,
        'width': side,
        'dtype': 'uint16',
        'crs': 'EPSG:32631',
        'transform': from_origin(600000, 5000000, 10, 10),
        'tiled': True,
        'blockxsize': 256,
        'blockysize': 256,
        'compress': 'deflate',
        'interleave': 'pixel',
    }
    image = np.empty((len(names), side, side), dtype=np.uint16)
    for i, name in enumerate(names):
        factor = _METRES.get(name, 20) // 10
        level = _LEVEL[name] * tone[i][parcel[::factor, ::factor]] * relief[::factor, ::factor]
        noisy = level + rng.standard_normal(level.shape, dtype=np.float32) * (6 + 0.01 * level)
        coarse = np.clip(noisy, 1, 65535).astype(np.uint16)
        image[i] = coarse.repeat(factor, axis=0).repeat(factor, axis=1)[:side, :side]
    with rasterio.open(path, 'w', **profile) as file:
        file.descriptions = names
        for row in range(0, side, 256):
            rows = slice(row, min(row + 256, side))
            file.write(image[:, rows], window=((rows.start, rows.stop), (0, side)))
    return str(path)


def smooth(rng: np.random.Generator, side: int, length: int) -> NDArray[np.float32]:
    """Return noise with a correlation length in pixels, shape (side, side)."""
    coarse = rng.standard_normal((side // length + 3,) * 2).astype(np.float32)
    return np.asarray(ndimage.zoom(coarse, length, order=1)[:side, :side])


def parcels(rng: np.random.Generator, side: int, width: int = 30) -> NDArray[np.int64]:
    """Return numbers of fields of about 300 m with irregular edges, shape (side, side)."""
    row, col = (np.arange(side)[:, None] + 9 * smooth(rng, side, 40), np.arange(side) + 9 * smooth(rng, side, 40))
    return ((row // width).clip(0) * (side // width + 2) + (col // width).clip(0)).astype(np.int64)


def measure(path: str, size: int, repeats: int, folder: Path) -> None:
    """Run all commands and print the results."""
    (scene,) = find_scenes(path)
    chips = len(chips_of(scene, 0, ChipOptions(chip_size=size)))
    print(
        f'{path}: {scene.grid.height} × {scene.grid.width}, {len(scene.bands)} bands of {scene.dtype}, '
        f'{os.path.getsize(path) / 1e6:.0f} MB; {chips} chips of {size}; {os.cpu_count()} processors'
    )
    retile = shutil.which(RETILE)
    if retile is None:
        print(f'{RETILE} is not installed (Debian: gdal-bin, python3-gdal): there is no comparison.')
    runs: dict[str, Callable[[Path], Sequence[str]]] = {}
    for (how, workers), _ in TARGETS.items():
        runs[_name(how, workers)] = _ours(path, size, '--compress', how, '--num_workers', str(workers))
    for workers in (1, 2):  # including those that lie mostly beyond the border
        runs[f'{_name("zstd", workers)}, all chips'] = _ours(
            path, size, '--num_workers', str(workers), '--min-valid', '0'
        )
    if retile is not None:
        runs[f'{RETILE}, deflate'] = lambda output: [
            retile,
            '-q',
            '-ps',
            str(size),
            str(size),
            '-co',
            'COMPRESS=DEFLATE',
            '-targetDir',
            str(output),
            path,
        ]
    taken = alternately(runs, repeats, folder)
    seconds = {name: median for name, (median, _) in taken.items()}
    reference = seconds.get(f'{RETILE}, deflate')
    targets = {_name(how, workers): target for (how, workers), target in TARGETS.items()}
    for name, (median, written) in taken.items():
        print(row(name, median, written, reference, targets.get(name)))
    _print_shares(path, size, seconds)
    _print_virtual(path, size, chips, reference, folder)


def _ours(path: str, size: int, *more: str) -> Callable[[Path], Sequence[str]]:
    return lambda output: [
        sys.executable,
        '-m',
        'torchgeo_msssl',
        'chip',
        path,
        '--output',
        str(output),
        '--chip_size',
        str(size),
        *more,
    ]


def _name(how: str, workers: int) -> str:
    return f'{how}, {workers} process(es)'


def alternately(
    runs: dict[str, Callable[[Path], Sequence[str]]], repeats: int, folder: Path
) -> dict[str, tuple[float, int]]:
    """Return the median seconds of each command, run alternately, and the number of rasters that it wrote."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    written: dict[str, int] = {}
    # let Python write bytecode, as it does by default
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONDONTWRITEBYTECODE'}
    for _ in range(repeats):
        for name, command in runs.items():
            output = folder / 'output'
            output.mkdir()
            os.sync()  # pending writes of one run do not slow down the next
            start = time.perf_counter()
            quiet: dict[str, Any] = {'stdout': subprocess.DEVNULL, 'stderr': subprocess.DEVNULL}
            subprocess.run(command(output), check=True, env=environment, **quiet)
            taken[name].append(time.perf_counter() - start)
            written[name] = sum(1 for _ in output.rglob('*.tif'))
            shutil.rmtree(output)
    return {name: (statistics.median(times), written[name]) for name, times in taken.items()}


def row(name: str, seconds: float, chips: int, reference: float | None, target: float | None) -> str:
    """Return one line of the table."""
    ratio = '' if reference is None else f'  {reference / seconds:6.2f} ×'
    goal = '' if target is None or reference is None else f'  (target: {target:g} ×)'
    return f'{name:<34}{seconds:8.2f} s  {chips:4} chips {chips / seconds:8.1f} a second{ratio}{goal}'


def _print_shares(path: str, size: int, seconds: dict[str, float]) -> None:
    """Print how much of the runs with one process decoding and encoding take."""
    (scene,) = find_scenes(path)
    # chips that are kept: at least half of their pixels are in the scene
    windows = [
        chip.window
        for chip in chips_of(scene, 0, ChipOptions(chip_size=size))
        if (inside := chip.window.intersection(scene.grid.window)) is not None and 2 * inside.area >= chip.window.area
    ]
    with rasterio.Env(GDAL_CACHEMAX=128 * 2**20, **ENVIRONMENT), rasterio.open(path) as file:
        start = time.perf_counter()
        for window in windows:
            file.read(window=window.to_rasterio())
        decoding = time.perf_counter() - start
        how: Compression
        for how in ('zstd', 'deflate'):
            form = chip_format(scene, scene.bands, None, size, how)
            tried = [(window, *form.read(window)) for window in windows[:: max(1, len(windows) // 40)]]
            start = time.perf_counter()
            for window, image, valid in tried:
                form.encode(image, valid, window)
            encoding = (time.perf_counter() - start) / len(tried) * len(windows)
            whole = seconds[_name(how, 1)]
            print(
                f'{how}, 1 process: decoding alone {decoding:.2f} s ({decoding / whole:.0%}), encoding alone '
                f'{encoding:.2f} s ({encoding / whole:.0%})'
            )


def _print_virtual(path: str, size: int, chips: int, reference: float | None, folder: Path) -> None:
    """Measure `--virtual` as a command, and as a function after all imports."""
    options = ChipOptions(chip_size=size, virtual=True)

    def inside() -> float:
        start = time.perf_counter()
        chip_scenes([path], folder / 'virtual', options, overwrite=True, progress=False)
        return time.perf_counter() - start

    (folder / 'virtual').mkdir()
    first = inside()
    again = statistics.median(inside() for _ in range(5))
    command, _ = alternately({'': _ours(path, size, '--virtual', '--num_workers', '1')}, 3, folder)['']
    print(row('virtual, first time', first, chips, reference, None), ' reads every pixel to find nodata')
    print(row('virtual, counted before', again, chips, reference, VIRTUAL_TARGET), ' counts of valid pixels are cached')
    print(row('virtual, as a command', command, chips, reference, None), ' includes the start of Python')


if __name__ == '__main__':
    sys.exit(main())
