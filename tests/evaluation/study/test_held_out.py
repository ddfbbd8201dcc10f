"""Held-out scenes, and labels from some of the others."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
from affine import Affine
from shapely.geometry.base import BaseGeometry

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.evaluation.study.cell_commands import split_file, steps_of
from torchgeo_msssl.evaluation.study.design import Cell, Initialisation, Pretraining, Study, make_cells
from torchgeo_msssl.evaluation.study.held_out import (
    check_pretrainings,
    find_regions,
    open_data,
    prepare_split,
    provenance_of,
)
from torchgeo_msssl.evaluation.study.provenance import Provenance
from torchgeo_msssl.geo.chipping.options import ChipOptions
from torchgeo_msssl.geo.chipping.run import chip_scenes
from torchgeo_msssl.geo.open_datasets import close_datasets
from torchgeo_msssl.shipped_configs import ConfigFile

SIDE, BLOCK = 64, 16


@pytest.fixture
def study(make_scene: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Study]:
    """Four scenes apart from each other with labels, the west of the first one without."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    labels = []
    for i in range(4):
        transform = Affine(1, 0, 600000 + 1024 * i, 0, -1, 5000000)
        image = rng.integers(1, 100, (2, SIDE, SIDE)).astype(np.uint16)
        make_scene(f'scenes/s{i}.tif', image, names=('B02', 'B03'), transform=transform)
        mask = rng.integers(0, 2, (SIDE, SIDE)).astype(np.uint8)
        mask[:, : SIDE // 2] = 255 if i == 0 else mask[:, : SIDE // 2]
        labels.append(make_scene(f'labels/l{i}.tif', mask, transform=transform, nodata=255))
    close_datasets()
    Path('fit.yaml').write_text(
        'data:\n  class_path: torchgeo_msssl.datamodules.SegmentationDataModule\n  init_args:\n'
        f'    paths: {tmp_path}/scenes\n    labels: {tmp_path}/labels\n    class_names: [a, b]\n    chip_size: 8\n'
        'trainer:\n  max_epochs: 1\nmodel:\n  class_path: nothing.Here\n'
    )

    def make(**options: Any) -> Study:
        common = {'name': 's', 'fit': ConfigFile('fit.yaml'), 'output': 'out', 'options': {'data.block_size': BLOCK}}
        return Study(**(common | options))

    return make


def parts_of(study: Study, cell: Cell) -> dict[str, BaseGeometry]:
    prepare_split(study, cell)
    path = split_file(study, cell)
    assert path is not None
    frame = gpd.read_file(path).to_crs('EPSG:32631')
    return dict(zip(frame['split'], frame.geometry, strict=True))


def scenes_under(region: BaseGeometry) -> set[int]:
    return {int((part.centroid.x - 600000) // 1024) for part in getattr(region, 'geoms', [region])}


def test_each_scene_is_held_out_in_turn(study: Callable[..., Study]) -> None:
    one = study(regions=['scenes'])
    regions = find_regions(one)
    assert regions == ['s0', 's1', 's2', 's3']
    for number, cell in enumerate(make_cells(one, regions)):
        parts = parts_of(one, cell)
        assert scenes_under(parts['test']) == {number}
        assert parts['test'].area == pytest.approx(SIDE**2, rel=1e-4)
        assert parts['train'].intersection(parts['val']).area < 1e-3
        assert number not in scenes_under(parts['train']) | scenes_under(parts['val'])
        # 48 blocks, of 0.6 : 0.2 the fourth for validation
        assert parts['val'].area == pytest.approx(12 * BLOCK**2, rel=1e-4)
        assert parts['train'].area == pytest.approx(36 * BLOCK**2, rel=1e-4)


@pytest.mark.slow
def test_the_same_number_of_labels_from_more_scenes(study: Callable[..., Study]) -> None:
    one = study(regions=['scene'], scenes=[1, 2, 3], shots=[4], seeds=[0, 1, 2, 3, 4])
    cells = make_cells(one, find_regions(one))
    assert len(cells) == 15
    chosen: dict[int, list[set[int]]] = {}
    for cell in cells:
        parts = parts_of(one, cell)
        assert parts['train'].area == pytest.approx(4 * BLOCK**2, rel=1e-4)
        assert parts['val'].area == pytest.approx(4 * BLOCK**2, rel=1e-4)
        assert len(scenes_under(parts['train'])) == cell.scenes
        assert scenes_under(parts['train']) == scenes_under(parts['val'])
        assert scenes_under(parts['test']) == {cell.seed % 4}
        assert cell.seed % 4 not in scenes_under(parts['train'])
        west = 600000 + SIDE / 2  # of the first scene, without labels
        assert not any(part.bounds[0] < west - 1 for part in getattr(parts['train'], 'geoms', [parts['train']]))
        chosen.setdefault(cell.seed, []).append(scenes_under(parts['train']))
    assert all(few < more < most for few, more, most in chosen.values())


def test_too_few_scenes_or_labels(study: Callable[..., Study]) -> None:
    with pytest.raises(ConfigurationError, match=r'4 group\(s\) without common ground, and 5 are needed'):
        find_regions(study(regions=['scene'], scenes=[4], shots=[4]))
    greedy = study(regions=['scene'], scenes=[1], shots=[9])
    with pytest.raises(ConfigurationError, match='blocks; 18 are needed'):
        prepare_split(greedy, make_cells(greedy, ['scene'])[0])


def test_blocks_and_files_are_left_to_the_data_module(study: Callable[..., Study]) -> None:
    one = study(regions=['blocks', 'ground.geojson'])
    for cell in make_cells(one, find_regions(one)):
        assert split_file(one, cell) is None
    assert find_regions(study(regions=['blocks'], test=False)) == [None]


def test_a_pretraining_with_labels_has_the_blocks_of_its_cell(study: Callable[..., Study]) -> None:
    pretraining = Pretraining(ConfigFile('fit.yaml'), each_seed=True, same_split=True)
    entries = [Initialisation('random'), Initialisation('coarse', pretraining=pretraining)]
    one = study(regions=['blocks'], initialisations=entries, fractions=[1.0])
    cell = next(cell for cell in make_cells(one, ['blocks']) if cell.initialisation.name == 'coarse')
    path = split_file(one, cell)
    assert path is not None
    prepare_split(one, cell)
    steps = steps_of(one, cell)
    assert steps.pretraining is not None
    for arguments in (steps.pretraining, steps.fit):
        assert arguments[arguments.index('--data.split') + 1] == str(path)
    regions = gpd.read_file(path)
    assert sorted(regions['split']) == ['test', 'train', 'val']
    assert regions.geometry.is_valid.all()


def test_options_reach_the_data_and_mistakes_are_told(study: Callable[..., Study]) -> None:
    assert open_data('fit.yaml', {'data.block_size': 16, 'model.lr': 1}).block_size == 16
    with pytest.raises(ConfigurationError, match='blok_size'):
        open_data('fit.yaml', {'data.blok_size': 16})


def pretraining(config: str, options: dict[str, Any], **more: Any) -> Initialisation:
    return Initialisation('pretrained', pretraining=Pretraining(ConfigFile(config), options, **more))


def test_a_pretraining_reads_the_test_ground_whatever_the_file(
    study: Callable[..., Study], make_scene: Callable[..., str], tmp_path: Path
) -> None:
    Path('pretrain.yaml').write_text('data:\n  class_path: torchgeo_msssl.datamodules.PretrainingDataModule\n')
    image = np.ones((2, SIDE, SIDE), np.uint16)
    grids = {'date': Affine(1, 0, 601024, 0, -1, 5000000), 'next to it': Affine(1, 0, 601024 + SIDE, 0, -1, 5000000)}
    found = {name: make_scene(f'{name}.tif', image, names=('B02', 'B03'), transform=at) for name, at in grids.items()}
    (tmp_path / 'link.tif').symlink_to(tmp_path / 'scenes' / 's1.tif')
    for path, expected in ((tmp_path / 'link.tif', True), (found['date'], True), (found['next to it'], False)):
        known = provenance_of(study(), pretraining('pretrain.yaml', {'data.paths': str(path)}))
        assert known == Provenance(expected, labels=False)
    labels = {'data.labels': f'{tmp_path}/labels', 'data.paths': f'{tmp_path}/scenes'}
    known = provenance_of(study(), pretraining('pretrain.yaml', labels, weights='checkpoints/best.ckpt'))
    assert 'labels that may be of it chose' in known.sentence


def test_chips_share_the_ground_of_their_scenes(study: Callable[..., Study], tmp_path: Path) -> None:
    Path('pretrain.yaml').write_text('data:\n  class_path: torchgeo_msssl.datamodules.PretrainingDataModule\n')
    Path('fit.yaml').write_text(Path('fit.yaml').read_text().replace(f'{tmp_path}/scenes', f'{tmp_path}/scenes/s1.tif'))
    for number, virtual, expected in ((1, False, True), (1, True, True), (2, False, False)):
        folder = tmp_path / f'chips{number}{virtual}'
        chip_scenes([f'scenes/s{number}.tif'], folder, ChipOptions(chip_size=16, virtual=virtual), progress=False)
        paths = [str(folder)] if virtual else str(folder)
        found = provenance_of(study(), pretraining('pretrain.yaml', {'data.paths': paths}))
        assert found == Provenance(expected, labels=False)
    (tmp_path / 'arrays').mkdir()
    np.save(tmp_path / 'arrays' / 'one.npy', np.zeros((2, 8, 8)))
    arrays = pretraining('pretrain.yaml', {'data.paths': str(tmp_path / 'arrays'), 'data.channels': 'first'})
    assert provenance_of(study(), arrays) == Provenance(True, labels=False)


def test_a_pretraining_with_labels_of_the_test_ground_is_refused(study: Callable[..., Study]) -> None:
    random, own = Initialisation('random'), pretraining('fit.yaml', {})
    with pytest.raises(ConfigurationError, match='same_split: the pretraining of pretrained learns from labels'):
        check_pretrainings(study(initialisations=[random, own]))
    check_pretrainings(study(initialisations=[random, own], test=False))
    split = pretraining('fit.yaml', {}, each_seed=True, same_split=True)
    one = study(initialisations=[random, split])
    check_pretrainings(one)
    assert 'learned from the labels of the training ground' in provenance_of(one, split).sentence


def test_a_split_is_of_its_options_and_its_configuration(study: Callable[..., Study]) -> None:
    one = study(regions=['scene'], scenes=[1], shots=[2])
    other = study(regions=['scene'], scenes=[1], shots=[2], options={'data.block_size': 2 * BLOCK})
    grounds = [parts_of(each, make_cells(each, ['scene'])[0])['train'].area for each in (one, other)]
    assert grounds == pytest.approx([2 * BLOCK**2, 8 * BLOCK**2], rel=1e-4)
    cell = make_cells(one, ['scene'])[0]
    before = split_file(one, cell)
    Path('fit.yaml').write_text(Path('fit.yaml').read_text() + '# edited\n')
    assert split_file(one, cell) != before
