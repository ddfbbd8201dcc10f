"""Folders of chips where evaluation expects scenes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from torchgeo_msssl.datasets import Scenes
from torchgeo_msssl.datasets.batches import collate
from torchgeo_msssl.datasets.chips import chip_rasters
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.evaluation.chips import open_chips
from torchgeo_msssl.evaluation.probe_settings import ProbeData
from torchgeo_msssl.geo.chipping.options import ChipOptions
from torchgeo_msssl.geo.chipping.run import chip_scenes
from torchgeo_msssl.samplers import GridChipSampler

type Maker = Callable[..., str]

SIDE = 16


@pytest.fixture
def scene(make_scene: Maker) -> str:
    """Sentinel-2 after the change of offset, so that a chip is right only if its offset is."""
    image = np.random.default_rng(0).integers(1500, 5000, (3, 96, 128)).astype(np.uint16)
    return make_scene('T31TFJ_20230601.tif', image, names=['B02', 'B03', 'B08'])


@pytest.fixture
def mask(make_scene: Maker) -> str:
    """Two classes in a chessboard of chips, and a chip of both."""
    rows, cols = np.indices((96, 128)) // SIDE
    values = ((rows + cols) % 2).astype(np.uint8)
    values[:SIDE, : SIDE // 2] = 1
    return make_scene('mask.tif', values)


def cut(scene: str, folder: Path, mask: str | None = None, **options: Any) -> str:
    if mask:
        options |= {'labels': mask, 'class_names': ['soil', 'vine']}
    chip_scenes([scene], folder, ChipOptions(chip_size=SIDE, **options), progress=False)
    return str(folder)


@pytest.mark.parametrize('virtual', [False, True])
def test_rasters_of_chips_have_the_pixels_of_their_scene(scene: str, tmp_path: Path, virtual: bool) -> None:
    chips = Scenes(chip_rasters(cut(scene, tmp_path / 'chips', virtual=virtual)))
    assert len(chips) == (1 if virtual else 6 * 8)
    ours, theirs = (set[tuple[float, ...]](), set[tuple[float, ...]]())
    for scenes, found in ((chips, ours), (Scenes(scene), theirs)):
        batch = collate(scenes.__getitems__(list(GridChipSampler(scenes, SIDE))))
        reflectance = (batch['image'].double() + batch['offset'][..., None, None]) * batch['scale'][..., None, None]
        found |= {tuple(chip.mean((1, 2)).tolist()) for chip in reflectance}
    assert ours == theirs
    assert len(ours) == 6 * 8


def test_arrays_have_no_place(tmp_path: Path) -> None:
    (tmp_path / 'arrays').mkdir()
    np.save(tmp_path / 'arrays' / 'one.npy', np.zeros((3, 8, 8)))
    with pytest.raises(ConfigurationError, match='are arrays, which have no place on the ground'):
        chip_rasters(str(tmp_path / 'arrays'))


def test_chips_with_masks_are_probed_in_their_split(scene: str, mask: str, tmp_path: Path) -> None:
    folder = cut(scene, tmp_path / 'chips', mask, split='blocks', fractions=(0.5, 0.25, 0.25), block_size=2 * SIDE + 1)
    found = open_chips(ProbeData(paths=folder, chip_size=SIDE, block_size=2 * SIDE, purity=0.9))
    assert (found.split, found.class_names) == ('the column split', ('soil', 'vine'))
    part = {path.name: path.parts[-3] for path in Path(folder).glob('*/images/*.tif')}
    scenes = found.data.scenes.scenes
    for chips, split in ((found.train, 'train'), (found.test, 'test')):
        for query, label in zip(chips.queries, chips.labels, strict=True):
            name = Path(scenes[query.scene].path).name
            row, col = (int(text) // SIDE for text in Path(name).stem.split('_')[-2:])
            assert part[name] == split
            assert label == (row + col) % 2
    used = [Path(scenes[q.scene].path).name for chips in (found.train, found.test) for q in chips.queries]
    assert sorted(used) == sorted(
        n for n, split in part.items() if split != 'val' and not n.endswith('_00000_00000.tif')
    )
    undivided = cut(scene, tmp_path / 'whole', mask)
    blocks = open_chips(ProbeData(paths=undivided, chip_size=SIDE, block_size=2 * SIDE, purity=0.9))
    assert 'blocks' in blocks.split
    assert len(blocks.train.labels) + len(blocks.test.labels) == 6 * 8 - 1


def test_a_mapping_translates_the_masks_of_other_folders(scene: str, mask: str, tmp_path: Path) -> None:
    folder = Path(cut(scene, tmp_path / 'chips', mask))
    for name in ('summary.json', 'chips.parquet', '.chips.journal'):
        (folder / name).unlink()
    options: dict[str, Any] = {'paths': str(folder), 'chip_size': SIDE, 'block_size': 2 * SIDE, 'purity': 0.9}
    listed = open_chips(ProbeData(**options, class_names=['soil', 'vine']))
    mapped = open_chips(ProbeData(**options, class_names={'vine': 1, 'bare': [0]}))
    assert (listed.class_names, mapped.class_names) == (('soil', 'vine'), ('bare', 'vine'))
    assert np.array_equal(listed.test.labels, mapped.test.labels)


def test_a_folder_in_the_home_folder_keeps_its_split(
    scene: str, mask: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut(scene, tmp_path / 'chips', mask, split='blocks', fractions=(0.5, 0.25, 0.25), block_size=2 * SIDE + 1)
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.setenv('USERPROFILE', str(tmp_path))
    found = open_chips(ProbeData(paths='~/chips', chip_size=SIDE, block_size=2 * SIDE, purity=0.9))
    assert found.split == 'the column split'


def test_chips_without_masks_are_not_probed(scene: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match='has no files of chips with masks'):
        open_chips(ProbeData(paths=cut(scene, tmp_path / 'chips'), chip_size=SIDE))
    with pytest.raises(ConfigurationError, match='scenes need a class raster'):
        ProbeData(paths=scene)
