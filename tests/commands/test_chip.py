"""The command ``chip`` as users call it."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio

from tests.marks import first_fast
from tests.real_data import DATA
from torchgeo_msssl.__main__ import main
from torchgeo_msssl.geo.open_datasets import close_datasets

ROOT = Path(__file__).parents[2]
VINES, FIELDS = 'vineyard_aerial/aerial0_vineyards.gpkg', 's2_demmin_fields/fields.gpkg'
CLOUDS = 's2_timeseries_lahinch/cloudmask'


@pytest.fixture
def scene(make_scene: Callable[..., str], random_array: Any) -> str:
    return make_scene('20210415_a.tif', random_array((4, 200, 200)), names=['B02', 'B03', 'B04', 'B08'])


@pytest.fixture
def mask(make_scene: Callable[..., str]) -> str:
    classes = np.zeros((200, 200), 'uint8')
    classes[:, 120:] = 1
    return make_scene('mask/mask.tif', classes)


def test_everything_at_once(scene: str, mask: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / 'chips'
    asked = ['chip', scene, '--output', str(output), '--labels', mask]
    asked += shlex.split(
        '--chip_size 16 --overlap 4 --bands B8,B4 --class_names other,vine --split blocks --fractions 0.6,0.2,0.2 '
        '--block-size 60 --seed 3 --compress deflate --num_workers 1 --geojson --min-valid 1 --edge shift'
    )
    assert main([*asked, '--dry-run']) == 0
    told = capsys.readouterr().out
    assert not output.exists()
    assert 'They would take about' in told
    assert main(asked) == 0
    done = capsys.readouterr().out
    assert told.splitlines()[:3] == done.splitlines()[:3]
    assert 'The smallest distance between chips of different parts is' in done
    assert f'Wrote {output}' in done
    frame = gpd.read_parquet(output / 'chips.parquet')
    assert {'fraction_other', 'fraction_vine', 'valid_fraction', 'split', 'source'} <= set(frame.columns)
    with rasterio.open(output / frame['image'][0]) as chip:
        assert chip.descriptions == ('B08', 'B04')
        assert chip.compression.name == 'deflate'
    assert (output / 'chips.geojson').is_file()
    assert main(asked) == 0
    assert 'complete already' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('more', 'message'),
    [
        (['--overlap', '64'], 'overlap: expected 0 to 63'),
        (['--column', 'kind'], 'column: requires labels'),
        (['--background', 'false'], 'background: requires labels'),
        (['--buffer', '0.5'], 'buffer: requires labels'),
        (['--chip_size', '201'], '20210415_a.tif has 200 × 200 pixels, less than a chip of 201 × 201'),
        (['--bands', 'B02,B11'], 'has no band B11'),
        (['--bands', 'B02,B2'], 'bands: expected different bands'),
        (['--sensor', 'hubble'], "sensor: unknown sensor 'hubble'"),
        (['--edge', 'drop', '--chip_size', '512'], 'less than a chip of 512'),
        (['--split', 'blocks', '--fractions', '0.5,0.4'], 'fractions: expected two or three shares'),
        (['--split', 'absent.geojson'], 'split: absent.geojson is neither blocks nor scenes nor a file'),
    ],
)
def test_mistakes_are_told_in_one_sentence(
    scene: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    assert main(['chip', scene, '--output', str(tmp_path / 'chips'), '--chip_size', '64', *more]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith('error: ')
    assert not (tmp_path / 'chips').exists()


@pytest.mark.parametrize('given', ['a,b', '0.5;0.5', ''])
def test_fractions_that_are_no_numbers(scene: str, capsys: pytest.CaptureFixture[str], given: str) -> None:
    assert main(['chip', scene, '--output', 'chips', '--fractions', given]) == 1
    assert 'fractions: expected' in capsys.readouterr().err


def test_a_truncated_scene_shows_in_the_status(
    scene: str, make_scene: Any, random_array: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = make_scene('bad.tif', random_array((4, 200, 200)), names=['B02', 'B03', 'B04', 'B08'])
    Path(bad).write_bytes(Path(bad).read_bytes()[:200_000])
    asked = ['chip', scene, bad, '--output', str(tmp_path / 'chips'), '--chip_size', '64', '--num_workers', '1']
    assert main(asked) == 1
    said = capsys.readouterr()
    assert f'error: {bad}: was cut short' in said.err
    assert '9 of 16 windows are chips (7 too little data)' in said.out
    summary = json.loads((tmp_path / 'chips' / 'summary.json').read_text())
    assert list(summary['failed']) == ['bad']


def test_the_script_is_the_command(scene: str, tmp_path: Path) -> None:
    script = [sys.executable, str(ROOT / 'data_prep' / 'chip.py'), scene, '--output', str(tmp_path / 'chips')]
    result = subprocess.run([*script, '--chip_size', '64', '--virtual'], capture_output=True, text=True, check=True)
    assert '9 of 16 windows are chips (7 too little data)' in result.stdout
    assert 'Finding data' in result.stderr


@pytest.mark.skipif(not DATA.is_dir(), reason='real data are not at hand')
@pytest.mark.parametrize(
    ('paths', 'more'),
    first_fast(
        [
            ('hls_nodata/hls_10band_nodata.tif', ['--overlap', '8', '--edge', 'shift']),
            ('s2_demmin_fields/sentinel2_fields.tif', ['--labels', DATA / FIELDS, '--class_names', 'field']),
            (
                's2_demmin_fields/sentinel2_fields.tif',
                ['--labels', DATA / 's2_demmin_fields/esus.gpkg', '--class_names', 'esu', '--buffer', '15'],
            ),
            ('s2_timeseries_lahinch/S2', ['--labels', DATA / CLOUDS, '--class_names', 'clear,thin,thick,shadow']),
            ('vineyard_aerial/aerial0.tif', ['--labels', DATA / VINES, '--class_names', 'vineyard']),
            (
                'vineyard_aerial/aerial0.tif',
                ['--labels', DATA / 'vineyard_aerial/aerial0_mask.tif', '--class_names', 'other,vineyard'],
            ),
        ]
    ),
)
def test_real_scenes_come_back_from_their_chips(paths: str, more: list[Any], tmp_path: Path) -> None:
    asked = [
        'chip',
        str(DATA / paths),
        '--output',
        str(tmp_path),
        '--chip_size',
        '128',
        '--min-valid',
        '0',
        '--num_workers',
        '1',
    ]
    assert main([*asked, *map(str, more)]) == 0
    frame = gpd.read_parquet(tmp_path / 'chips.parquet')
    for source, chips in frame.groupby('source'):
        with rasterio.open(source) as scene:
            whole, seen = scene.read(), np.zeros(scene.shape, dtype=np.bool_)
            height, width = scene.shape
            for chip in chips.itertuples():
                with rasterio.open(tmp_path / chip.image) as file:
                    pixels, offset = file.read(), ~scene.transform @ (file.transform @ (0, 0))
                    assert (file.crs, file.dtypes) == (scene.crs, scene.dtypes)
                assert offset == pytest.approx((chip.col, chip.row), abs=1e-6)
                rows = slice(chip.row, min(chip.row + 128, height))
                cols = slice(chip.col, min(chip.col + 128, width))
                inside = pixels[:, : rows.stop - rows.start, : cols.stop - cols.start]
                np.testing.assert_array_equal(inside, whole[:, rows, cols])
                seen[rows, cols] = True
            assert seen.all()
    if '--labels' in more:
        fractions = frame.filter(regex='^fraction_').sum(axis=1)
        assert 0 < fractions.max() <= 1
    close_datasets()


def test_help_needs_no_cpu_affinity(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delattr(os, 'sched_getaffinity', raising=False)  # as on macOS and Windows
    with pytest.raises(SystemExit, match='0'):
        main(['chip', '--help'])
    assert '--num_workers' in capsys.readouterr().out
