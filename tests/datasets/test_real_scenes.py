"""Scenes gives TorchGeo's pixels on real rasters, where such are at hand."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from torchgeo.datasets import RasterDataset

from tests.marks import first_fast
from tests.real_data import DATA, some_of_each_folder
from torchgeo_msssl.datasets import Scenes
from torchgeo_msssl.geo.open_datasets import close_datasets

RASTERS = some_of_each_folder()

pytestmark = pytest.mark.skipif(not RASTERS, reason='no real rasters beside the repository')


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv('TORCHGEO_MSSSL_CACHE', str(tmp_path / 'cache'))
    yield
    close_datasets()


@pytest.mark.parametrize('path', first_fast(RASTERS, 3), ids=lambda path: str(path.relative_to(DATA)))
def test_real_rasters_give_the_pixels_that_torchgeo_gives(path: Path) -> None:
    stock, ours = RasterDataset([path]), Scenes(path)
    assert ours.bounds[:2] == stock.bounds[:2]  # where a name has a date, Scenes knows it
    assert ours.res == stock.res
    rng = np.random.default_rng(0)
    x, y, _ = stock.bounds
    across, down = stock.res
    columns, rows = round((x.stop - x.start) / across), round((y.stop - y.start) / down)
    for k in range(50):
        height, width = (int(side) for side in rng.integers(1, 70, 2))
        row, col = float(rng.integers(-10, rows - 10)), float(rng.integers(-10, columns - 10))
        if k % 2:
            row, col = row + rng.uniform(-0.5, 0.5), col + rng.uniform(-0.5, 0.5)
        left, top = x.start + col * across, y.stop - row * down
        query = (slice(left, left + width * across), slice(top - height * down, top))
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            try:
                want = stock[query]['image'].numpy()
            except IndexError:
                with pytest.raises(IndexError):
                    _ = ours[query]
                continue
            got = ours[query]['image'].float().numpy()
        np.testing.assert_array_equal(got, want)
