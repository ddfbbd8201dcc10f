"""Scenes to cut, and chips put together again."""

import hashlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

from torchgeo_msssl.geo.chipping.options import ChipOptions
from torchgeo_msssl.geo.chipping.report import Report
from torchgeo_msssl.geo.chipping.run import chip_scenes
from torchgeo_msssl.geo.open_datasets import close_datasets


@pytest.fixture(autouse=True)
def closed_files() -> Iterator[None]:
    yield
    close_datasets()


@pytest.fixture
def cut(tmp_path: Path) -> Callable[..., Report]:
    """``cut(paths, chip_size=…, …)`` writes chips into ``tmp_path / 'chips'`` (or ``output``)."""

    def make(paths: Any, output: str = 'chips', **given: Any) -> Report:
        own = {
            key: given.pop(key) for key in ('num_workers', 'overwrite', 'dry_run', 'geojson', 'shard') if key in given
        }
        options = ChipOptions(**{'min_valid': 0.0, **given})
        paths = [paths] if isinstance(paths, str) else list(paths)
        return chip_scenes(paths, tmp_path / output, options, progress=False, **own)

    return make


@pytest.fixture
def full_disk() -> Callable[..., 'subprocess.CompletedProcess[str]']:
    """``full_disk(4000, scene, …)`` runs the command ``chip`` where no file can have more than so many bytes."""

    def run(limit: int, *asked: str) -> 'subprocess.CompletedProcess[str]':
        code = (
            'import resource, sys; from torchgeo_msssl.__main__ import main\n'
            f'resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n'
            'sys.exit(main(sys.argv[1:]))'
        )
        return subprocess.run([sys.executable, '-c', code, 'chip', *asked], capture_output=True, text=True, check=False)

    return run


def together(folder: Path, name: str, shape: tuple[int, ...], kind: str = 'image') -> NDArray[Any]:
    """Put the chips of a scene together again; what overlaps has to agree."""
    frame = gpd.read_parquet(folder / 'chips.parquet')
    frame = frame[frame['scene'] == name]
    whole: NDArray[Any] | None = None
    seen = np.zeros(shape[-2:], dtype=np.bool_)
    for chip in frame.itertuples():
        with rasterio.open(folder / getattr(chip, kind)) as file:
            pixels = file.read()
        if whole is None:
            whole = np.zeros((len(pixels), *shape[-2:]), dtype=pixels.dtype)
        rows = slice(chip.row, min(chip.row + chip.height, shape[-2]))
        cols = slice(chip.col, min(chip.col + chip.width, shape[-1]))
        part = pixels[:, : rows.stop - rows.start, : cols.stop - cols.start]
        before = seen[rows, cols]
        np.testing.assert_array_equal(whole[:, rows, cols][:, before], part[:, before])
        whole[:, rows, cols], seen[rows, cols] = part, True
    assert whole is not None
    assert seen.all(), 'a pixel of the scene is in no chip'
    return whole


@pytest.fixture
def reassemble() -> Callable[..., NDArray[Any]]:
    """See :func:`together`."""
    return together


@pytest.fixture
def contents() -> Callable[[Path], dict[str, str]]:
    """Digest of every file in a folder, hidden ones too."""
    return lambda folder: {
        str(path.relative_to(folder)): hashlib.sha1(path.read_bytes()).hexdigest()
        for path in folder.rglob('*')
        if path.is_file()
    }
