"""The grid covers every pixel of scenes of any size without leaving them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import LightningModule, Trainer
from numpy.typing import NDArray
from rasterio.crs import CRS
from torch.utils.data import DataLoader, DistributedSampler

from torchgeo_msssl.datasets import Scenes
from torchgeo_msssl.datasets.batches import collate
from torchgeo_msssl.errors import ConfigurationError, EmptyIntersectionError
from torchgeo_msssl.geo.open_datasets import close_datasets
from torchgeo_msssl.samplers import ChipSampler, GridChipSampler


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv('TORCHGEO_MSSSL_CACHE', str(tmp_path / 'cache'))
    yield
    close_datasets()


def write(path: Path, array: NDArray[Any], *, left: float = 500_000, **profile: Any) -> Path:
    bands, height, width = array.shape
    with rasterio.open(
        path,
        'w',
        driver='GTiff',
        crs=CRS.from_epsg(32631),
        transform=Affine(10, 0, left, 0, -10, 4_900_000),
        height=height,
        width=width,
        count=bands,
        dtype=array.dtype,
        **profile,
    ) as file:
        file.write(array)
    return path


def ones(height: int, width: int) -> NDArray[np.uint8]:
    return np.ones((1, height, width), dtype=np.uint8)


def along(offsets: list[int], extent: int, size: int, overlap: int) -> None:
    """One axis: from border to border, without a gap, no farther than asked, none too many."""
    assert offsets[0] == 0
    if extent <= size:
        assert offsets == [0]
        return
    assert offsets[-1] + size == extent
    steps = np.diff(offsets)
    assert (steps > 0).all()
    assert (size - steps >= overlap).all()
    assert (steps[:-1] == size - overlap).all()
    assert len(offsets) == 1 + -(-(extent - size) // (size - overlap))


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 300), st.integers(1, 300)), min_size=1, max_size=3),
    size=st.tuples(st.integers(1, 120), st.integers(1, 120)),
    data=st.data(),
)
def test_every_pixel_of_scenes_of_any_size_is_covered(
    tmp_path_factory: pytest.TempPathFactory,
    shapes: list[tuple[int, int]],
    size: tuple[int, int],
    data: st.DataObject,
) -> None:
    overlap = data.draw(st.integers(max(0, min(size) - 40), min(size) - 1) | st.just(0))
    if max(h * w for h, w in shapes) > 200 * (size[0] - overlap) * (size[1] - overlap):
        overlap, size = 0, (max(size[0], 20), max(size[1], 20))
    folder = tmp_path_factory.mktemp('scenes')
    ours = Scenes([write(folder / f'{k}.tif', ones(*shape), left=500_000 + 4000 * k) for k, shape in enumerate(shapes)])
    sampler = GridChipSampler(ours, size, overlap)
    windows: dict[int, list[tuple[int, int]]] = {}
    for query in sampler:
        assert (query.window.height, query.window.width) == size
        windows.setdefault(query.scene, []).append((query.window.row, query.window.col))
    assert sum(map(len, windows.values())) == len(sampler)
    for i, scene in enumerate(ours.scenes):
        rows, cols = sorted({row for row, _ in windows[i]}), sorted({col for _, col in windows[i]})
        assert windows[i] == [(row, col) for row in rows for col in cols]  # from north to south, west to east
        along(rows, scene.grid.height, size[0], overlap)
        along(cols, scene.grid.width, size[1], overlap)


def test_a_scene_smaller_than_a_chip_is_padded_with_nodata(tmp_path: Path) -> None:
    ours = Scenes(write(tmp_path / 'scene.tif', 7 * ones(10, 50), nodata=3))
    (query,) = GridChipSampler(ours, 64)
    sample = ours[query]
    assert sample['image'].shape == (1, 64, 64)
    assert (sample['image'][0, :10, :50] == 7).all()
    assert sample['valid'].sum() == 500
    assert (sample['image'][~sample['valid']] == 3).all()


@pytest.mark.parametrize(('min_valid', 'kept'), [(0.0, True), (0.1, True), (500 / 64**2, True), (0.13, False)])
def test_valid_pixels_of_a_padded_chip_are_counted_inside_the_scene(
    tmp_path: Path, min_valid: float, kept: bool
) -> None:
    ours = Scenes(write(tmp_path / 'scene.tif', ones(10, 50), nodata=0))
    if kept:
        assert len(GridChipSampler(ours, 64, min_valid=min_valid)) == 1
    else:
        with pytest.raises(EmptyIntersectionError, match=r'no chip of 64×64 .* at least 13% valid'):
            GridChipSampler(ours, 64, min_valid=min_valid)


def test_min_valid_leaves_out_chips_with_less(tmp_path: Path) -> None:
    array = ones(200, 200)
    array[:, :, :100] = 0
    ours = Scenes(write(tmp_path / 'scene.tif', array, nodata=0))
    kept = [query.window for query in GridChipSampler(ours, 40, min_valid=0.5)]
    assert {window.col for window in kept} == {80, 120, 160}
    assert len(kept) == 15
    everywhere = GridChipSampler(ours, 4, overlap=3, min_valid=1.0)  # 38,809 windows, in parts
    assert len(everywhere) == 197 * 93  # of the cells that the edge cuts, nothing is certain


def test_region_ranks_and_lightning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = Scenes(write(tmp_path / 'scene.tif', ones(128, 128)))
    region = shapely.box(500_000, 4_899_360, 500_640, 4_900_000)
    sampler = GridChipSampler(ours, 32, roi=region)
    assert [(q.window.row, q.window.col) for q in sampler] == [(0, 0), (0, 32), (32, 0), (32, 32)]
    assert isinstance(sampler, DistributedSampler)
    whole = [query.window for query in GridChipSampler(ours, 24)]
    shares = []
    for rank in range(3):
        monkeypatch.setattr(ChipSampler, 'ranks', staticmethod(lambda rank=rank: (rank, 3)))
        sampler = GridChipSampler(ours, 24)
        shares.append([query.window for query in sampler])
        assert len(sampler) == len(shares[-1])
    assert sorted(window for share in shares for window in share) == sorted(whole)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@settings(max_examples=40, deadline=None)
@given(
    row=st.integers(0, 40),
    col=st.integers(0, 40),
    height=st.integers(16, 60),
    width=st.integers(16, 60),
    size=st.integers(4, 16),
    share=st.floats(0, 0.9),
)
def test_every_pixel_of_a_region_is_covered_and_none_outside(
    tmp_path_factory: pytest.TempPathFactory, row: int, col: int, height: int, width: int, size: int, share: float
) -> None:
    ours = Scenes(write(tmp_path_factory.mktemp('scenes') / 'a.tif', ones(100, 100)))
    left, top = 500_000 + 10 * col, 4_900_000 - 10 * row
    region = shapely.box(left, top - 10 * height, left + 10 * width, top)
    seen = np.zeros((100, 100), dtype=np.int64)
    for _, window in GridChipSampler(ours, size, overlap=int(share * size), roi=region).places:
        seen[window.row : window.row + size, window.col : window.col + size] += 1
    expected = np.zeros_like(seen)
    expected[row : row + height, col : col + width] = 1
    assert ((seen > 0) == expected).all()


def test_validation_begins_at_the_first_chip_after_a_sanity_check(tmp_path: Path) -> None:
    class Looks(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[list[Any]] = []

        def on_validation_epoch_start(self) -> None:
            self.seen.append([])

        def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
            self.seen[-1] += batch['window'].tolist()

        def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
            return None

        def configure_optimizers(self) -> None:
            return None

    ours = Scenes(write(tmp_path / 'scene.tif', ones(64, 64)))
    loaders = [DataLoader(ours, 2, sampler=GridChipSampler(ours, 16), collate_fn=collate) for _ in range(2)]
    looks = Looks()
    trainer = Trainer(
        max_epochs=2,
        num_sanity_val_steps=2,
        accelerator='cpu',
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(looks, loaders[0], loaders[1])
    assert [len(windows) for windows in looks.seen] == [4, 16, 16]
    assert looks.seen[1] == looks.seen[2]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'size': 0}, 'size: expected at least 1 pixel'),
        ({'size': (8, 0)}, 'size: expected at least 1 pixel'),
        ({'size': 8, 'overlap': 8}, 'overlap: expected 0 to 7 pixels, got 8'),
        ({'size': 8, 'overlap': -1, 'roi': shapely.box(0, 0, 1, 1)}, 'overlap: expected 0 to 7 pixels, got -1'),
        ({'size': 8, 'min_valid': 1.1}, 'min_valid: expected a fraction from 0 to 1, got 1.1'),
    ],
)
def test_errors_name_the_option(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    ours = Scenes(write(tmp_path / 'scene.tif', ones(16, 16)))
    with pytest.raises(ConfigurationError, match=message):
        GridChipSampler(ours, **options)


def test_a_region_elsewhere_is_an_error(tmp_path: Path) -> None:
    ours = Scenes(write(tmp_path / 'scene.tif', ones(16, 16)))
    with pytest.raises(EmptyIntersectionError, match=r'roi, min_valid: no chip of 8×8'):
        GridChipSampler(ours, 8, roi=shapely.box(0, 0, 1, 1))
