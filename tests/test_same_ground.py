"""The same seed, block size and fractions hold out the same ground in `chip`, `fit`, `probe` and `study`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine

from tests.marks import first_fast
from torchgeo_msssl.commands import chip
from torchgeo_msssl.datamodules.segmentation import SegmentationDataModule
from torchgeo_msssl.datasets.scenes import Scenes
from torchgeo_msssl.evaluation.chips import open_chips
from torchgeo_msssl.evaluation.features import LabelledChips, split_labelled_chips, split_validation_chips
from torchgeo_msssl.evaluation.probe_settings import ProbeData
from torchgeo_msssl.evaluation.study.cell_commands import steps_of
from torchgeo_msssl.evaluation.study.design import Study, make_cells
from torchgeo_msssl.evaluation.study.held_out import open_data
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.ground.area import Ground
from torchgeo_msssl.geo.ground.file import read_split
from torchgeo_msssl.geo.headers import find_scenes
from torchgeo_msssl.geo.labels.raster import RasterLabels
from torchgeo_msssl.samplers import split_blocks
from torchgeo_msssl.shipped_configs import ConfigFile

SIDE, CHIP, BLOCK, SEED, FRACTIONS = 240, 16, 40, 3, (0.6, 0.2, 0.2)
#: Scenes that begin at no multiple of a block, in one CRS and on the border of two UTM zones.
PLACES = {
    'one': {'a': (31, 690_070.0, 5_000_130.0), 'b': (31, 692_970.0, 4_999_000.0)},
    'two': {'a': (31, 690_070.0, 5_000_130.0), 'b': (32, 225_350.0, 5_001_000.0)},
}


@pytest.fixture(params=first_fast(['two', 'one']))
def scenes(request: pytest.FixtureRequest, make_scene: Callable[..., str], tmp_path: Path) -> dict[str, list[str]]:
    """Paths of scenes and of their label rasters, with a rare class."""
    rng = np.random.default_rng(0)
    found: dict[str, list[str]] = {'images': [], 'labels': []}
    for name, (zone, x, y) in PLACES[request.param].items():
        grid = {'crs': f'EPSG:326{zone}', 'transform': Affine(10, 0, x, 0, -10, y)}
        image = rng.integers(1, 4000, (2, SIDE, SIDE)).astype(np.uint16)
        found['images'].append(make_scene(f'images/{name}.tif', image, names=['B02', 'B03'], **grid))
        mask = np.kron(rng.integers(0, 2, (SIDE // CHIP, SIDE // CHIP)), np.ones((CHIP, CHIP))).astype(np.uint8)
        mask[:80, :80] = 2
        found['labels'].append(make_scene(f'labels/{name}.tif', mask, **grid))
    return found


def of_fit(scenes: dict[str, list[str]]) -> SegmentationDataModule:
    data = SegmentationDataModule(
        scenes['images'],
        scenes['labels'],
        ['x', 'y', 'z'],
        chip_size=CHIP,
        block_size=BLOCK,
        fractions=FRACTIONS,
        seed=SEED,
        num_workers=0,
    )
    data.setup('fit')
    return data


def chips_of(folder: Path, part: str) -> gpd.GeoDataFrame:
    table = gpd.read_parquet(folder / 'chips.parquet')
    return table[table['split'] == part]


def covered(region: Any, chips: Any) -> Any:
    return shapely.covers(region.buffer(1, join_style='mitre'), chips)


def test_chip_holds_out_the_ground_of_fit(scenes: dict[str, list[str]], tmp_path: Path) -> None:
    data = of_fit(scenes)
    arguments = [*scenes['images'], '--output', str(tmp_path / 'chips'), '--labels', *scenes['labels']]
    arguments += ['--chip_size', str(CHIP), '--class_names', 'x,y,z', '--num_workers', '1', '--seed', str(SEED)]
    arguments += ['--fractions', ','.join(map(str, FRACTIONS)), '--block-size', str(BLOCK), '--split', 'blocks']
    assert chip.run(arguments) == 0
    ground = Ground.of(find_scenes(scenes['images']))
    written = read_split(tmp_path / 'chips' / 'split.geojson', ground)
    for part, region in data.regions.items():
        assert written[part].symmetric_difference(region).area < 1e-6 * region.area
        footprints = chips_of(tmp_path / 'chips', part).to_crs(data.scenes.crs).geometry.to_numpy()
        assert len(footprints) > 0
        assert covered(region, footprints).all()
    again = [*arguments[: arguments.index('--split') + 1], str(tmp_path / 'chips' / 'split.geojson'), '--virtual']
    again[again.index('--output') + 1] = str(tmp_path / 'again')
    assert chip.run(again) == 0
    for part in data.regions:
        one, other = (chips_of(tmp_path / name, part)[['scene', 'row', 'col']] for name in ('chips', 'again'))
        assert one.equals(other)


def test_probe_tests_on_the_ground_of_fit(scenes: dict[str, list[str]]) -> None:
    data = of_fit(scenes)
    probe = open_chips(
        ProbeData(
            paths=scenes['images'],
            labels=scenes['labels'],
            chip_size=CHIP,
            purity=0.4,
            block_size=BLOCK,
            fractions=FRACTIONS,
            seed=SEED,
        )
    )
    boxes = [
        np.array([shapely.box(x.start, y.start, x.stop, y.stop) for x, y, _ in part.queries])
        for part in (probe.train, probe.test)
    ]
    assert min(map(len, boxes)) > 10
    assert covered(data.regions['test'].buffer(20), boxes[1]).all()
    assert covered(data.regions['train'].union(data.regions['val']).buffer(20), boxes[0]).all()


def test_the_frozen_probe_of_a_run_has_the_chips_of_the_command(scenes: dict[str, list[str]]) -> None:
    """A checkpoint chosen by the frozen probe has not been chosen on test chips of the command."""
    options: dict[str, Any] = {'chip_size': CHIP, 'purity': 0.4, 'block_size': BLOCK, 'fractions': (0.5, 0.5)}
    probe = open_chips(ProbeData(paths=scenes['images'], labels=scenes['labels'], **options))
    opened, labels = Scenes(scenes['images']), RasterLabels(scenes['labels'])
    parts = split_labelled_chips(opened, labels, CHIP, 0.4, BLOCK)

    def places(part: LabelledChips) -> set[tuple[int, Window]]:
        return {(query.scene, query.window) for query in part.queries}

    assert [places(part) for part in parts] == [places(probe.train), places(probe.test)]

    def boxes(part: LabelledChips) -> Any:
        return np.array([shapely.box(x.start, y.start, x.stop, y.stop) for x, y, _ in part.queries])

    held_out = shapely.union_all(boxes(probe.test))
    for part in split_validation_chips(opened, labels, CHIP, 0.4, BLOCK):
        common = shapely.area(shapely.intersection(boxes(part), held_out))
        assert common.max() < 0.1 * (10 * CHIP) ** 2  # boxes of another CRS are a little larger than their chips


def test_study_holds_out_the_ground_of_fit(scenes: dict[str, list[str]], tmp_path: Path) -> None:
    config = tmp_path / 'fit.yaml'
    config.write_text(
        'data:\n  class_path: torchgeo_msssl.datamodules.SegmentationDataModule\n  init_args:\n'
        f'    paths: {scenes["images"]}\n    labels: {scenes["labels"]}\n    class_names: [x, y, z]\n'
        f'    chip_size: {CHIP}\n    block_size: {BLOCK}\n    fractions: {list(FRACTIONS)}\n'
        'trainer:\n  max_epochs: 1\nmodel:\n  class_path: nothing.Here\n'
    )
    study = Study(name='s', fit=ConfigFile(str(config)), output=str(tmp_path / 'out'), regions=['blocks'], seeds=[SEED])
    cell = make_cells(study, ['blocks'])[0]
    arguments = steps_of(study, cell).fit
    options = {name[2:]: arguments[i + 1] for i, name in enumerate(arguments) if name.startswith('--data.')}
    data = open_data(config, options)
    assert isinstance(data, SegmentationDataModule)
    data.setup('fit')
    for part, region in of_fit(scenes).regions.items():
        assert data.regions[part].equals(region)


def test_the_sampler_function_finds_the_same_regions(scenes: dict[str, list[str]]) -> None:
    data = of_fit(scenes)
    assert data.labelled is not None
    regions = split_blocks(data.scenes, FRACTIONS, BLOCK, SEED, data.labelled.labels.source)
    for region, expected in zip(regions, data.regions.values(), strict=True):
        assert region.equals(expected)
