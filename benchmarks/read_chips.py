"""CPU time of a random chip, compared with stock TorchGeo and with bare decoding.

Scenes are generated: 12 bands in tiles of 256, deflated and uncompressed, and 5 bands of a drone in tiles of 512 at
3.21 cm. Stock `RasterDataset` and ours alternately read and stack a batch of chips in one process, as a worker of
a data loader does; CPU time is measured in milliseconds per chip. Stock draws at any place, as its samplers do; if both
read the same windows, the pixels are compared too.

    python benchmarks/read_chips.py                     # generates its scenes in a temporary folder
    python benchmarks/read_chips.py --size 2048 --scene my.tif
"""

import argparse
import contextlib
import gc
import itertools
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from affine import Affine
from rasterio.windows import Window as RasterioWindow
from torchgeo.datasets import RasterDataset, stack_samples

from torchgeo_msssl.datasets import ChipQuery, Scenes
from torchgeo_msssl.datasets.batches import collate
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.open_datasets import close_datasets
from torchgeo_msssl.geo.user_cache import cache_folder
from torchgeo_msssl.samplers import RandomChipSampler

#: GDAL's block cache in bytes: a few blocks, so that each chip is decoded again; and enough for all chips.
COLD, WARM = 16_000_000, 2_000_000_000
#: Side in pixels of the scenes of the dataset that is opened.
SMALL = 64

type Batch = list[ChipQuery]
type Read = Callable[[Batch], Any]


@dataclass
class Layout:
    """How a scene is stored."""

    name: str
    bands: int
    tile: int
    compress: str
    res: float


LAYOUTS = (
    Layout('12 bands, deflate', 12, 256, 'deflate', 10.0),
    Layout('12 bands, uncompressed', 12, 256, 'none', 10.0),
    Layout('drone, 5 bands, deflate', 5, 512, 'deflate', 0.0321),
)


def write_scene(path: Path, layout: Layout, size: int) -> None:
    """Write a scene of fields and noise, which deflate compresses by a quarter, like Sentinel-2."""
    rng = np.random.default_rng(0)
    cols = np.arange(size)
    with rasterio.open(
        path,
        'w',
        driver='GTiff',
        crs='EPSG:32631',
        transform=Affine(layout.res, 0, 5e5, 0, -layout.res, 4.9e6),
        height=size,
        width=size,
        count=layout.bands,
        dtype='uint16',
        tiled=True,
        blockxsize=layout.tile,
        blockysize=layout.tile,
        compress=layout.compress,
        interleave='pixel',
        BIGTIFF='IF_SAFER',
    ) as file:
        for row in range(0, size, layout.tile):
            rows = np.arange(row, min(row + layout.tile, size))[:, None]
            strip = [
                1500
                + 600 * np.sin(cols / (37 + band)) * np.cos(rows / (51 + band))
                + rng.normal(0, 30, (len(rows), size))
                for band in range(layout.bands)
            ]
            file.write(np.stack(strip).astype(np.uint16), window=RasterioWindow(0, row, size, len(rows)))


def batches(sampler: RandomChipSampler, size: int) -> Iterator[Batch]:
    """Yield batches of a sampler's chips without end."""
    chips = itertools.chain.from_iterable(sampler for _ in itertools.count())
    return iter(lambda: list(itertools.islice(chips, size)), [])


def by_stock(dataset: RasterDataset) -> Read:
    """Return TorchGeo's reader of a batch."""
    return lambda batch: stack_samples([dataset[tuple(query)] for query in batch])


def by_ours(dataset: Scenes) -> Read:
    """Return the reader of a batch of our loader."""
    return lambda batch: collate(dataset.__getitems__(batch))


def by_rasterio(path: str) -> Read:
    """Return a reader that only decodes, into the same array each time."""
    file = rasterio.open(path)
    buffers: dict[tuple[int, int], Any] = {}

    def read(batch: Batch) -> None:
        for query in batch:
            size = query.window.height, query.window.width
            out = buffers.setdefault(size, np.empty((file.count, *size), file.dtypes[0]))
            file.read(window=query.window.to_rasterio(), out=out)

    return read


def by_memcpy(dataset: Scenes) -> Read:
    """Return a reader that copies chips from memory."""
    kept: dict[Window, Any] = {}

    def read(batch: Batch) -> Any:
        for query in batch:
            if query.window not in kept:
                kept[query.window] = dataset.scenes[0].read(query.window, dataset.bands)[0]
        return np.stack([kept[query.window] for query in batch])

    return read


def milliseconds(read: Read, batch: Batch) -> float:
    """Return the CPU time per chip."""
    start = time.process_time()
    read(batch)
    return 1e3 * (time.process_time() - start) / len(batch)


def alternate(sides: dict[str, tuple[Read, Iterator[Batch]]], repeats: int) -> dict[str, list[float]]:
    """Time all sides in turn; the first turn is a warm-up."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    if 'memory copy' in sides:  # load the source of the copies into memory before timing
        for name in ('memory copy', 'ours'):
            read, source = sides[name]
            known = [next(source) for _ in range(repeats + 1)]
            for batch in known:
                read(batch)
            sides[name] = read, iter(known)
    for repeat in range(repeats + 1):
        for name, (read, source) in sides.items():
            batch = next(source)
            elapsed = milliseconds(read, batch)
            if repeat:
                times[name].append(elapsed)
    return times


def check_same(stock: Read, ours: Read, batch: Batch) -> None:
    """Raise unless both return the same pixels."""
    want, got = stock(batch)['image'], ours(batch)['image'].to(torch.float32)
    assert torch.equal(want, got), 'pixels differ from those of stock TorchGeo'


def row(name: str, times: dict[str, list[float]]) -> str:
    """Return a line of the table: medians, and the median of the ratios."""
    middle = {side: statistics.median(values) for side, values in times.items()}
    cells = [f'{middle[side]:.2f}' if side in middle else '' for side in ('stock', 'ours', 'bare read', 'memory copy')]
    ratio = statistics.median(a / b for a, b in zip(times['stock'], times['ours'], strict=True))
    copies = f'{middle["ours"] / middle["memory copy"]:.1f}' if 'memory copy' in middle else ''
    return f'| {name} | {" | ".join(cells)} | {ratio:.1f} | {copies} |'


def measure_scene(name: str, path: str, options: argparse.Namespace, cache: str) -> Iterator[str]:
    """Yield the lines of one scene."""
    stock, ours = RasterDataset([path]), Scenes(path)
    read_stock, read_ours = by_stock(stock), by_ours(ours)
    length = options.batch

    def drawn(**how: Any) -> Iterator[Batch]:
        return batches(RandomChipSampler(ours, options.chip, 64 * length, min_valid=0.0, seed=1, **how), length)

    def timed(case: str, read: Read, how: dict[str, Any], **more: Read) -> str:
        sides = {'stock': (read_stock, drawn(aligned=False)), 'ours': (read, drawn(**how))}
        sides |= {side.replace('_', ' '): (other, drawn(**how)) for side, other in more.items()}
        return row(f'{name}: {case}', alternate(sides, options.repeats))

    with rasterio.Env(GDAL_CACHEMAX=COLD):
        check_same(read_stock, read_ours, next(drawn(aligned=False)))
        check_same(read_stock, read_ours, next(drawn(aligned=True)))
        bare = by_rasterio(path)
        yield timed('anywhere', read_ours, {'aligned': False}, bare_read=bare)
        yield timed('aligned', read_ours, {'aligned': True}, bare_read=bare)
        several = {'aligned': True, 'chips_per_read': options.chips_per_read}
        check_same(read_stock, read_ours, next(drawn(**several)))
        yield timed(f'{options.chips_per_read} per read', read_ours, several)
        decoded = Scenes(path, cache='disk', cache_dir=cache)
        read_decoded = by_ours(decoded)
        check_same(read_stock, read_decoded, next(drawn(aligned=False)))
        yield timed('decoded, anywhere', read_decoded, {'aligned': False}, memory_copy=by_memcpy(ours))
        yield timed('decoded, aligned', read_decoded, {'aligned': True}, memory_copy=by_memcpy(ours))
    with rasterio.Env(GDAL_CACHEMAX=WARM):
        near = list(itertools.islice(corner(ours, options), 2))
        sides = {
            side: (read, itertools.cycle(near))
            for side, read in (('stock', read_stock), ('ours', read_ours), ('bare read', bare))
        }
        yield row(f'{name}: warm', alternate(sides, options.repeats + 1))
    close_datasets()


def corner(scenes: Scenes, options: argparse.Namespace) -> Iterator[Batch]:
    """Yield batches from a part of a scene that fits into GDAL's cache."""
    rng = np.random.default_rng(0)
    grid = scenes.scenes[0].grid
    limits = [min(1500, side) - options.chip for side in (grid.height, grid.width)]
    while True:
        places = zip(*(rng.integers(0, most + 1, options.batch).tolist() for most in limits), strict=True)
        yield [scenes.query(0, Window(top, left, options.chip, options.chip)) for top, left in places]


def one_worker(path: str, cache: str, options: argparse.Namespace, aligned: bool, barrier: Any, results: Any) -> None:
    """Read for some time next to other processes."""
    ours = Scenes(path, cache='disk', cache_dir=cache) if cache else Scenes(path)
    source = batches(RandomChipSampler(ours, options.chip, 64 * options.batch, 0.0, aligned, seed=1), options.batch)
    read = by_ours(ours)
    with rasterio.Env(GDAL_CACHEMAX=COLD):
        read(next(source))
        barrier.wait()
        start, cpu = time.perf_counter(), time.process_time()
        for _ in range(options.repeats):
            read(next(source))
        chips = options.repeats * options.batch
        results.put((chips / (time.perf_counter() - start), chips / (time.process_time() - cpu)))


def rates(path: str, cache: str, options: argparse.Namespace, number: int) -> tuple[float, float]:
    """Return chips per second of each of several concurrent processes, by the clock and by CPU time."""
    context = multiprocessing.get_context('fork')
    barrier, results = context.Barrier(number), context.Queue()
    workers = [
        context.Process(target=one_worker, args=(path, cache, options, True, barrier, results)) for _ in range(number)
    ]
    for worker in workers:
        worker.start()
    found = [results.get() for _ in workers]
    for worker in workers:
        worker.join()
    clock, cpu = (statistics.median(values) for values in zip(*found, strict=True))
    return clock, cpu


def measure_workers(name: str, path: str, cache: str, options: argparse.Namespace) -> str:
    """Return a line with chips per second of one process alone and of each of two."""
    alone, both = (rates(path, cache, options, number) for number in (1, 2))
    return f'| {name} | {alone[0]:.0f} | {both[0]:.0f} | {both[0] / alone[0]:.2f} | {both[1] / alone[1]:.2f} |'


def measure_opening(folder: Path, number: int) -> str:
    """Return a line with the CPU seconds to open many scenes: by stock, by ours at first, and by ours again."""
    pixels = np.random.default_rng(0).integers(1, 5000, (12, SMALL, SMALL)).astype(np.uint16)
    names = ['B01', 'B02', 'B03', 'B04', 'B05', 'B06', 'B07', 'B08', 'B8A', 'B09', 'B11', 'B12']
    for k in range(number):
        x, y = 5e5 + 10 * SMALL * (k % 50), 4.9e6 - 10 * SMALL * (k // 50)
        with rasterio.open(
            folder / f'scene_{k:05d}.tif',
            'w',
            driver='GTiff',
            crs='EPSG:32631',
            height=SMALL,
            width=SMALL,
            count=12,
            dtype='uint16',
            transform=Affine(10, 0, x, 0, -10, y),
        ) as file:
            file.descriptions = names
            file.write(pixels)

    def seconds(make: Callable[[str], Any]) -> float:
        gc.collect()  # garbage of others is not collected within this time
        start = time.process_time()
        dataset = make(str(folder))
        elapsed = time.process_time() - start
        assert len(dataset) == number
        return elapsed

    times = []
    for _ in range(3):
        shutil.rmtree(cache_folder() / 'headers', ignore_errors=True)
        times.append([seconds(make) for make in (RasterDataset, Scenes, Scenes)])
    stock, first, second = (statistics.median(side) for side in zip(*times, strict=True))
    return f'| {number} | {stock:.2f} | {first:.2f} | {second:.2f} | {stock / first:.1f} | {stock / second:.1f} |'


@contextlib.contextmanager
def own_cache(folder: str) -> Iterator[None]:
    """Use a cache folder of its own, since the user's may hold an index already."""
    before = os.environ.get('TORCHGEO_MSSSL_CACHE')
    os.environ['TORCHGEO_MSSSL_CACHE'] = str(Path(folder) / 'cache')
    try:
        yield
    finally:
        os.environ.pop('TORCHGEO_MSSSL_CACHE')
        if before is not None:
            os.environ['TORCHGEO_MSSSL_CACHE'] = before


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--scene', help='scene to read instead of generated ones')
    parser.add_argument('--size', type=int, default=5490, help='side of the generated scenes in pixels')
    parser.add_argument('--chip', type=int, default=224)
    parser.add_argument('--batch', type=int, default=64)
    parser.add_argument('--chips-per-read', type=int, default=8)
    parser.add_argument('--repeats', type=int, default=7)
    parser.add_argument(
        '--open', type=int, default=2000, help='number of scenes of the dataset that is opened; 0 skips this'
    )
    parser.add_argument('--folder', help='folder of scenes and decoded scenes (default: a temporary folder)')
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    options = parse(arguments)
    torch.set_num_threads(1)  # threads that stack would add CPU time
    with tempfile.TemporaryDirectory(dir=options.folder) as name, own_cache(name):
        folder = Path(name)
        scenes = {'scene': options.scene} if options.scene else {}
        for k, layout in enumerate(LAYOUTS if not options.scene else ()):
            scenes[layout.name] = str(folder / f'{k}.tif')
            write_scene(folder / f'{k}.tif', layout, options.size)
        print(f'Scenes of {options.size} px, chips of {options.chip} px, batches of {options.batch}; CPU ms per chip')
        head('', 'stock', 'ours', 'bare read', 'memory copy', 'stock ÷ ours', 'ours ÷ copy')
        for title, path in scenes.items():
            for line in measure_scene(title, path, options, str(folder / 'decoded')):
                print(line, flush=True)
        print('\nAligned chips per second of each process')
        head('', 'alone', 'next to another', 'ratio', 'ratio by CPU time')
        title, path = next(iter(scenes.items()))
        for case, cache in (('', ''), (', decoded', str(folder / 'decoded'))):
            print(measure_workers(f'{title}{case}', path, cache, options), flush=True)
        if options.open:
            (folder / 'many').mkdir()
            print('\nOpening a dataset, CPU s')
            head('scenes', 'stock', 'ours', 'again', 'stock ÷ ours', 'stock ÷ again')
            print(measure_opening(folder / 'many', options.open))


def head(*titles: str) -> None:
    """Print the first lines of a table."""
    print(f'| {" | ".join(titles)} |\n{"|---" * len(titles)}|')


if __name__ == '__main__':
    main()
