"""``probe`` from the command line, with the configurations that are shipped."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from matplotlib.image import imsave

from torchgeo_msssl.__main__ import main
from torchgeo_msssl.geo.sample import write_sample_area

Make = Callable[..., str]
CONFIGS = Path(__file__).parents[2] / 'configs'
SMALL = ['--model', 'test_resnet', '--resamples', '20', '--seeds', '1', '--device', 'cpu']


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def rows(folder: str) -> list[dict[str, str]]:
    with Path(folder, 'results.csv').open(newline='') as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_the_sample_area_is_probed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sample_area(tmp_path / 'area', scale=0.15)
    where = ['--data.sample_dir', str(tmp_path / 'area'), '--data.chip_size', '8', '--data.block_size', '16']
    command = ['probe', '--config', str(CONFIGS / 'probe_s2.yaml'), *where, *SMALL, '--probe', '[knn]']
    assert main(command) == 0
    out = capsys.readouterr().out
    assert '| band statistics | kNN |' in out
    assert 'Probe folder: runs/probe_s2/version_0' in out
    found = rows('runs/probe_s2/version_0')
    scores = {row['encoder']: float(row['value']) for row in found if row['metric'] == 'accuracy'}
    assert scores['band statistics'] > scores['constant answer'] + 0.1
    # what was done can be done again from the folder alone
    config = Path('runs/probe_s2/version_0/config.yaml')
    assert yaml.safe_load(config.read_text())['data']['chip_size'] == 8
    assert main(['probe', '--config', str(config), '--output', 'again']) == 0
    assert rows('again') == found


def test_clouds_are_probed(make_scene: Make, tmp_path: Path) -> None:
    """Bright squares are clouds, on other places each date; one value of the mask is no class."""
    rng = np.random.default_rng(0)
    for day in ('2017-09-21', '2017-10-08'):
        mask = np.kron(rng.choice([0, 1, 2, 3], (8, 8), p=[0.1, 0.3, 0.2, 0.4]), np.ones((16, 16)))
        image = rng.integers(300, 900, (3, 128, 128)) + np.where(mask == 3, 4000, 0)
        make_scene(f'S2/{day}.tif', image.astype(np.uint16), names=('B02', 'B03', 'B04'))
        make_scene(f'cloudmask/{day}.tif', mask.astype(np.uint8), nodata=0)
    command = ['probe', '--config', str(CONFIGS / 'probe_clouds.yaml'), *SMALL, '--output', 'out']
    files = ['--data.paths', 'S2/2017-09-21.tif', 'S2/2017-10-08.tif', '--data.labels', 'cloudmask/*.tif']
    assert main([*command, *files]) == 0
    found = {(row['encoder'], row['probe'], row['metric']): float(row['value']) for row in rows('out')}
    assert found['band statistics', 'linear', 'balanced_accuracy'] == 1
    assert found['constant answer', 'constant', 'balanced_accuracy'] == 0.5


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--data.purity', '2'], 'data.purity'),
        (['--data.paths', 'a.tif'], 'data.labels'),
        (['--k', '0'], 'k: expected at least 1'),
        (['--data.csv', 'nothing.csv'], 'there is no file'),
        (['--output', 'file/inside'], 'cannot be written'),
    ],
)
def test_mistakes_are_told_in_one_sentence(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / 'file').write_text('')
    assert main(['probe', *options]) == 1
    err = capsys.readouterr().err
    assert err.startswith('error: ')
    assert message in err
    assert not (tmp_path / 'runs').exists()


@pytest.mark.slow
def test_images_are_probed_by_folder(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(48):
        path = tmp_path / 'photos' / ('dark' if i % 2 else 'bright') / f'{i}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        imsave(path, rng.integers(*((10, 100) if i % 2 else (150, 250)), (64, 64, 3)).astype(np.uint8))
    command = ['probe', '--config', str(CONFIGS / 'probe_images.yaml'), *SMALL, '--data.folder', 'photos']
    assert main([*command, '--data.label_draws', '2', '--k', '1', '--output', 'out']) == 0
    found = rows('out')
    known = [row for row in found if (row['encoder'], row['metric']) == ('band statistics', 'accuracy')]
    assert [(row['probe'], row['draw']) for row in known] == [
        ('knn', '0'),
        ('knn', '1'),
        ('linear', '0'),
        ('linear', '1'),
    ]
    assert {(row['value'], row['n_train'], row['n_test']) for row in known} == {('1.0', '2', '24')}
    assert not Path('out', 'split.geojson').exists()
