"""``statistics`` writes the file that data modules read, and prints what it measured."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from matplotlib.image import imread

from torchgeo_msssl.__main__ import main
from torchgeo_msssl.datamodules import PretrainingDataModule, scene_reader
from torchgeo_msssl.errors import BandError, ConfigurationError
from torchgeo_msssl.geo.open_datasets import close_datasets

BANDS = ('B02', 'B03', 'B04')

pytestmark = pytest.mark.usefixtures('own_place')


@pytest.fixture
def scenes(make_scene) -> list[str]:
    """One scene of each era of Sentinel-2, with gaps."""
    rng = np.random.default_rng(0)
    paths = []
    for name, least in (('T31TFJ_20210601.tif', 1), ('T31TFJ_20230601.tif', 1001)):
        array = rng.gamma(4, 300, (3, 96, 128)).astype('uint16') + least
        array[1, :9] = 0
        paths.append(make_scene(name, array.astype('uint16'), nodata=0, names=BANDS))
    return paths


def test_the_file_gives_a_data_module_what_it_would_compute(
    scenes: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(['statistics', *scenes]) == 0
    message = capsys.readouterr().out
    assert '1 scene(s): sentinel2_l2a: offset -1000 from the date in the name' in message
    assert 'Wrote statistics.yaml and statistics.png' in message
    computed = PretrainingDataModule(scenes, chip_size=16, batch_size=4)
    computed.setup('fit')

    def refuse(*args: object, **options: object) -> None:
        raise AssertionError('statistics were computed')

    monkeypatch.setattr(scene_reader, 'scene_statistics', refuse)
    monkeypatch.setenv('TORCHGEO_MSSSL_CACHE', str(Path('elsewhere').resolve()))
    given = PretrainingDataModule(scenes, chip_size=16, batch_size=4, statistics='statistics.yaml')
    given.setup('fit')
    np.testing.assert_allclose(given.mean, computed.mean, rtol=1e-12)
    np.testing.assert_allclose(given.std, computed.std, rtol=1e-12)
    some = PretrainingDataModule(scenes, ['B4', 'B02'], chip_size=16, batch_size=4, statistics='statistics.yaml')
    some.setup('fit')
    assert some.mean == (given.mean[2], given.mean[0])
    assert some.std == (given.std[2], given.std[0])


def test_what_the_file_says(scenes: list[str]) -> None:
    assert main(['statistics', scenes[1], '--bands', 'B4,B2', '--output', 'folder', '--bins', '40']) == 0
    content = yaml.safe_load(Path('folder/statistics.yaml').read_text())
    assert (content['sensor'], content['unit'], content['bands']) == ('sentinel2_l2a', 'reflectance', ['B04', 'B02'])
    assert content['pixels'] == 96 * 128  # the gaps are in B03
    assert content['valid_fraction'] == [1, 1]
    assert (content['scale'], content['offset']) == ([1e-4, 1e-4], [-1000, -1000])
    assert sorted(content['percentiles']) == [1, 2, 5, 25, 50, 75, 95, 98, 99]
    assert content['scenes'][0]['path'] == scenes[1]
    height, width, _ = imread('folder/statistics.png').shape
    assert width > height > 100


@pytest.mark.slow
def test_offset_and_sensor_of_the_user(scenes: list[str], make_scene, random_array) -> None:
    main(['statistics', scenes[1], '--offset', '0', '--output', 'a.yaml'])
    main(['statistics', scenes[1], '--output', 'b.yaml'])
    a, b = (yaml.safe_load(Path(name).read_text()) for name in ('a.yaml', 'b.yaml'))
    np.testing.assert_allclose(np.subtract(a['mean'], b['mean']), 0.1, rtol=1e-9)
    np.testing.assert_allclose(a['std'], b['std'], rtol=1e-12)
    drone = make_scene('drone.tif', random_array((5, 40, 50)))
    main(['statistics', drone, '--sensor', 'micasense_rededge', '--output', 'c.yml'])
    c = yaml.safe_load(Path('c.yml').read_text())
    assert c['bands'] == ['blue', 'green', 'red', 'rededge', 'nir']
    assert c['scale'] == [1 / 32768] * 5
    assert Path('c.png').is_file()


def test_what_does_not_match_is_refused(scenes: list[str], make_scene, random_array) -> None:
    main(['statistics', scenes[0], '--bands', 'B02,B03', '--output', 'two.yaml'])

    def start(paths: object, file: str, **options: object) -> None:
        PretrainingDataModule(paths, chip_size=16, batch_size=4, statistics=file, **options).setup('fit')

    with pytest.raises(BandError, match=r'two.yaml lacks band B04 \(it has B02, B03\)'):
        start(scenes, 'two.yaml')
    plain = make_scene('plain.tif', random_array((2, 64, 64)), names=['red', 'green'])
    main(['statistics', plain, '--output', 'plain.yaml'])
    assert yaml.safe_load(Path('plain.yaml').read_text())['unit'] == 'digital number'
    with pytest.raises(ConfigurationError, match=r"two.yaml has the unit 'reflectance' and these .* 'digital number'"):
        start(plain, 'two.yaml')
    with pytest.raises(ConfigurationError, match=r'nowhere.yaml cannot be read \(No such file'):
        start(plain, 'nowhere.yaml')
    content = yaml.safe_load(Path('plain.yaml').read_text())
    for name, text, message in (
        ('tag.yaml', '!!python/object/apply:os.getcwd []', 'could not determine a constructor'),
        ('list.yaml', '[1, 2]', 'a list'),
        ('short.yaml', yaml.safe_dump(content | {'mean': [1.0]}), '2 bands, 1 means and 2 standard deviations'),
        ('nan.yaml', yaml.safe_dump(content | {'std': [1.0, float('nan')]}), 'numbers that are not finite'),
        ('empty.yaml', yaml.safe_dump({'bands': ['red']}), "KeyError: 'mean'"),
    ):
        Path(name).write_text(text)
        with pytest.raises(ConfigurationError, match=rf'{name} is not a file of band statistics \({message}'):
            start(plain, name)
    Path('flat.yaml').write_text(yaml.safe_dump(content | {'std': [1.0, 0.0]}))
    with pytest.raises(BandError, match=r'flat.yaml: green is constant'):
        start(plain, 'flat.yaml')


def test_another_offset_is_refused(scenes: list[str]) -> None:
    main(['statistics', *scenes, '--offset', '0', '--output', 'a.yaml'])

    def start(paths: list[str], bands: list[str], **options: object) -> None:
        PretrainingDataModule(paths, bands, chip_size=16, batch_size=4, statistics='a.yaml', **options).setup('fit')

    with pytest.raises(ConfigurationError, match=r'a.yaml measured T31TFJ_20230601.tif with .* offset 0,'):
        start(scenes, ['B04', 'B02'])
    start(scenes, ['B04', 'B02'], offset=0)
    start(scenes[:1], ['B04', 'B02'])  # of the old era
    other = Path(scenes[1]).with_name('T31TFJ_20240601.tif')
    Path(scenes[1]).rename(other)
    start([str(other)], ['B04', 'B02'])  # nothing is known of it


def test_another_sensor_is_told(scenes: list[str], caplog: pytest.LogCaptureFixture) -> None:
    main(['statistics', scenes[0], '--sensor', 'hls_s30', '--output', 'hls.yaml'])
    PretrainingDataModule(scenes[0], chip_size=16, batch_size=4, statistics='hls.yaml').setup('fit')
    assert 'hls.yaml was measured on sensor hls_s30, the data are from sentinel2_l2a' in caplog.text


def test_failures_are_one_sentence(scenes: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        ([scenes[0], '--bands', 'B08'], 'has no band B08'),
        ([scenes[0], '--bands', 'B2,B02'], 'expected different bands, got B2, B02; name each once'),
        (['nowhere'], 'no raster file'),
        ([scenes[0], '--output', scenes[1]], f'expected a .yaml file or a folder, got {scenes[1]}'),
        ([scenes[0], '--output', f'{scenes[1]}/inside.yaml'], 'cannot be written'),
    ):
        assert main(['statistics', *arguments]) == 1
        err = capsys.readouterr().err.strip().splitlines()[-1]
        assert err.startswith('error: ')
        assert message in err
    for name in ('a.yaml', 'b.png'):
        Path(name).write_text('of another program')
        assert main(['statistics', scenes[0], '--output', f'{name[0]}.yaml']) == 1
        assert f'{name} exists; add --overwrite' in capsys.readouterr().err
        assert Path(name).read_text() == 'of another program'
        assert main(['statistics', scenes[0], '--output', f'{name[0]}.yaml', '--overwrite']) == 0
    assert main(['statistics', scenes[0], '--offset', 'no']) == 1
    assert 'offset: expected' in capsys.readouterr().err
    assert main(['statistics', scenes[0], '--num-workers', '0']) == 1
    assert 'num_workers: expected 1 or more, got 0' in capsys.readouterr().err
    Path(scenes[1]).write_bytes(Path(scenes[1]).read_bytes()[:9000])
    close_datasets()
    assert main(['statistics', *scenes]) == 1
    assert '20230601.tif: cannot be' in capsys.readouterr().err
    assert not Path('statistics.yaml').exists()
    assert not Path('statistics.png').exists()


def test_starts_without_torch() -> None:
    code = (
        'import sys; from torchgeo_msssl.commands import statistics; '
        'sys.exit(any(name in sys.modules for name in ("torch", "lightning", "torchgeo")))'
    )
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0
