"""Each problem is found in a file that has it, is solved by its remedy, and is not found elsewhere."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from click.testing import CliRunner
from rasterio.enums import Resampling
from rasterio.rio.main import main_group

from torchgeo_msssl.__main__ import main
from torchgeo_msssl.bands import get_sensor
from torchgeo_msssl.datamodules import PretrainingDataModule
from torchgeo_msssl.errors import ConfigurationError, SceneReadError
from torchgeo_msssl.geo.checks import storage
from torchgeo_msssl.geo.checks.finding import Finding
from torchgeo_msssl.geo.checks.rewrite import rewrite_raster
from torchgeo_msssl.geo.checks.speed import Speed, measure
from torchgeo_msssl.geo.doctor import examine
from torchgeo_msssl.geo.open_datasets import close_datasets

S2 = ('B02', 'B03', 'B04', 'B08')
TILES = {'tiled': True, 'blockxsize': 256, 'blockysize': 256, 'compress': 'deflate', 'predictor': 2}
DATED = 'T31TFJ_20210601.tif'

pytestmark = pytest.mark.usefixtures('own_place')


def ground(bands: int = 4, height: int = 300, width: int = 400, dtype: str = 'uint16', seed: int = 0) -> np.ndarray:
    """Digital numbers as Sentinel-2 has them (or a picture of 8 bits), none of them 0."""
    rng = np.random.default_rng(seed)
    if dtype == 'uint8':
        return rng.integers(20, 250, (bands, height, width)).astype(dtype)
    return rng.integers(300, 4000, (bands, height, width), dtype=np.uint16).astype(dtype)


def topics(found: list[Finding]) -> set[str]:
    return {finding.topic for finding in found}


def quick(paths: Any, **options: Any) -> list[Finding]:
    close_datasets()
    return examine(paths, measured=False, **options)


def one(found: list[Finding], topic: str) -> Finding:
    some = [finding for finding in found if finding.topic == topic]
    assert len(some) == 1, (topic, found)
    return some[0]


def apply(remedy: str) -> None:
    """Run a remedy."""
    words = shlex.split(remedy)
    close_datasets()
    if words[0] == 'rio':
        done = CliRunner().invoke(main_group, words[1:])
        assert done.exit_code == 0, done.output
    elif words[:3] == ['python', '-m', 'torchgeo_msssl']:
        assert main(words[3:]) == 0
    else:
        assert subprocess.run(words, check=False).returncode == 0


def rewritten(path: str) -> str:
    """Path that the remedies rewrite a file to."""
    source = Path(path)
    return str(source.parent.with_name(f'{source.parent.name}_tiled') / f'{source.stem}.tif')


def data_options(remedy: str) -> dict[str, Any]:
    """Options of the data module that a remedy names."""
    pairs = re.findall(r'--data\.(\w+) (\S+)', remedy)
    assert pairs, remedy
    parse: dict[str, Callable[[str], Any]] = {
        'res': float,
        'offset': float,
        'bands': lambda text: text.strip('[]').split(','),
    }
    return {name: parse.get(name, str)(value) for name, value in pairs}


# No problems.


def test_a_clean_file_gives_no_finding(make_scene) -> None:
    path = make_scene(DATED, ground(2, 700, 700), nodata=0, names=S2[:2], **TILES)
    assert examine(path) == []


def test_clean_scenes_together_give_none(make_scene) -> None:
    for i in range(3):
        make_scene(f's/T31TFJ_2021060{i + 1}.tif', ground(seed=i), nodata=0, names=S2, **TILES)
    assert quick('s') == []


# Storage.


def test_strips_are_slow_and_tiles_are_not(make_scene) -> None:
    path = make_scene(DATED, ground(2, 700, 5000), nodata=0, names=S2[:2], compress='deflate', blockysize=16)
    found = one(examine(path), 'striped')
    assert found.severity == 'slow'
    assert found.factor is not None
    assert found.factor > 2  # about 6000 / 512 were the blocks all that counts
    assert f'{found.factor:.1f} ×' in found.detail
    assert data_options(found.remedies[1]) == {'cache': 'disk'}
    apply(found.remedies[0])
    target = rewritten(path)
    assert quick(target) == []
    with rasterio.open(path) as before, rasterio.open(target) as after:
        np.testing.assert_array_equal(before.read(), after.read())
        assert (before.descriptions, before.nodata, before.crs, before.transform) == (
            after.descriptions,
            after.nodata,
            after.crs,
            after.transform,
        )


@pytest.mark.slow
def test_jpeg2000(make_scene, tmp_path: Path) -> None:
    source = make_scene('a.tif', ground(1, 700, 700), names=('B02',))
    path = str(tmp_path / 'jp2' / 'T31TFJ_20210601T104031_B02.jp2')
    Path(path).parent.mkdir()
    rasterio.shutil.copy(source, path, driver='JP2OpenJPEG', QUALITY='100', REVERSIBLE='YES')
    found = one(examine(path), 'jpeg2000')
    assert found.severity == 'slow'
    assert found.factor is not None
    assert found.factor > 2
    apply(found.remedies[0])
    assert quick(rewritten(path)) == []  # the name still says band and date


def test_large_blocks(make_scene) -> None:
    path = make_scene(
        DATED,
        ground(1, 1200, 1200),
        nodata=0,
        names=S2[:1],
        tiled=True,
        blockxsize=1200,
        blockysize=1200,
        compress='deflate',
    )
    found = one(examine(path), 'large_blocks')
    assert found.severity == 'slow'
    assert found.factor is not None
    assert found.factor > 2


def test_bands_that_are_not_wanted(make_scene) -> None:
    names = tuple(f'B{n:02d}' for n in range(1, 9))
    path = make_scene(DATED, ground(8, 400, 500), nodata=0, names=names, interleave='pixel', **TILES)
    assert 'pixel_interleaved' not in topics(quick(path))
    found = one(examine(path, bands=['B02']), 'pixel_interleaved')
    assert found.factor is not None
    assert found.factor > 1.5
    apply(found.remedies[0])
    target = rewritten(path)
    assert quick(target, bands=['B02']) == []
    with rasterio.open(target) as dataset:
        assert dataset.profile['interleave'] == 'band'


def test_slow_for_no_reason_of_layout(make_scene, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_scene(DATED, ground(2), nodata=0, names=S2[:2], **TILES)
    monkeypatch.setattr(storage, 'measure', lambda *_: Speed(0.040, 0.010))
    found = one(examine(path), 'slow_storage')
    assert found.factor == pytest.approx(4)
    assert '40.0 ms per chip, 10.0 ms from tiles: 4.0 × as long' in found.detail
    monkeypatch.setattr(storage, 'measure', lambda *_: Speed(0.0004, 0.0001))
    assert examine(path) == []  # a third of a millisecond is negligible


def test_a_suspicion_that_was_not_measured_is_a_note(make_scene) -> None:
    path = make_scene(DATED, ground(2, 300, 900), nodata=0, names=S2[:2])
    found = one(quick(path), 'striped')
    assert (found.severity, found.factor) == ('note', None)


def test_measuring_reads_the_same_pixels(make_scene) -> None:
    speed = measure(make_scene('a.tif', ground(2, 100, 90), **TILES), [1, 2], chips=4)
    assert speed.own > 0
    assert 0.05 < speed.factor < 20


def test_overviews_of_large_scenes(make_scene, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_scene(DATED, ground(2, 300, 400), nodata=0, names=S2[:2], **TILES)
    assert quick(path) == []
    monkeypatch.setattr(storage, 'OVERVIEWS_FROM', 400)
    found = one(quick(path), 'no_overviews')
    assert found.severity == 'note'
    apply(found.remedies[0])
    assert quick(path) == []


# Borders and pixels.


@pytest.mark.parametrize('value', [0, 255, 77])
def test_a_frame_without_nodata(make_scene, value: int) -> None:
    array = ground(3, dtype='uint8')
    array[array == value] += 1
    array[:, :30], array[:, -20:], array[:, :, :15] = value, value, value
    path = make_scene('rgb.tif', array, names=('red', 'green', 'blue'), **TILES)
    found = one(quick(path), 'frame_without_nodata')
    assert found.severity == 'error'
    assert f'{value} in all bands at' in found.detail
    apply(found.remedies[0])
    assert quick(path) == []
    with rasterio.open(path) as dataset:
        assert dataset.nodata == value


def test_a_frame_that_is_not_the_declared_nodata(make_scene) -> None:
    array = ground(3).astype('float32')
    array[:, :40] = 0
    path = make_scene(DATED, array, names=S2[:3], nodata=-9999, **TILES | {'predictor': 3})
    found = one(quick(path), 'frame_without_nodata')
    assert 'declares -9999 as its nodata value' in found.detail


@pytest.mark.parametrize('how', ['nodata', 'mask', 'alpha'])
def test_a_frame_that_is_declared(make_scene, how: str) -> None:
    array = ground(4)
    array[:, :40] = 0
    names, options = ('blue', 'green', 'red', 'nir'), {}
    if how == 'nodata':
        options = {'nodata': 0}
    elif how == 'mask':
        options = {'mask': array[0] > 0, 'nodata': None}
    else:
        array[3] = np.where(array[0] > 0, 65535, 0)
        names, options = (*names[:3], 'alpha'), {'alpha': True}
    path = make_scene('drone.tif', array, names=names, **options, **TILES)
    assert 'frame_without_nodata' not in topics(quick(path))


def test_dark_pixels_inside_ask_for_a_mask(make_scene) -> None:
    array = ground(3, dtype='uint8')
    array[2, 100:200] = 0  # no blue, and data all the same
    array[:, :30] = 0
    path = make_scene('rgb.tif', array, names=('red', 'green', 'blue'), **TILES)
    found = one(quick(path), 'frame_without_nodata')
    assert 'so a mask is better' in found.detail
    if shutil.which('nearblack') is None:
        pytest.skip('GDAL is not installed')
    apply(found.remedies[0])
    masked = str(Path(path).with_name('masked_rgb.tif'))
    assert 'frame_without_nodata' not in topics(quick(masked))
    with rasterio.open(masked) as dataset:
        np.testing.assert_array_equal(dataset.dataset_mask() > 0, (array > 0).any(axis=0))


def test_a_frame_that_the_sensor_explains(make_scene) -> None:
    array = ground(4)
    array[:, :50] = 0
    path = make_scene(DATED, array, names=S2, **TILES)
    found = one(quick(path), 'frame_known_from_sensor')
    assert found.severity == 'note'
    apply(found.remedies[0])
    assert quick(path) == []


def test_water_and_labels_are_no_frames(make_scene) -> None:
    dark = ground(4)
    dark[:, :60] = np.random.default_rng(1).integers(50, 60, (4, 60, 400))
    assert quick(make_scene(DATED, dark, names=S2, nodata=0, **TILES)) == []
    classes = np.zeros((200, 300), 'uint8')
    classes[50:100, 50:200] = 3
    (found,) = quick(make_scene('labels.tif', classes, **TILES))
    assert (found.topic, found.severity) == ('classes', 'note')


def test_nan(make_scene) -> None:
    array = ground(4).astype('float32') / 10000
    array[1, 70:200, 50:300] = np.nan
    path = make_scene(DATED, array, names=S2, **TILES | {'predictor': 3})
    found = one(quick(path), 'not_finite')
    assert found.severity == 'note'
    apply(found.remedies[0])
    assert quick(path) == []


# Placement.


def test_no_crs(make_scene) -> None:
    path = make_scene(DATED, ground(), names=S2, nodata=0, crs=None, **TILES)
    found = quick(path)
    assert one(found, 'no_crs').severity == 'error'
    apply(one(found, 'no_crs').remedies[0].replace('EPSG:CODE', 'EPSG:32631'))
    assert topics(quick(path)) == {'no_transform'}
    remedy = one(quick(path), 'no_transform').remedies[0]
    for name, value in (('-YSIZE', '-10'), ('XSIZE', '10'), ('LEFT', '500000'), ('TOP', '4900000')):
        remedy = remedy.replace(name, value)
    apply(remedy)
    assert quick(path) == []


def test_not_north_up(make_scene, tmp_path: Path) -> None:
    turned = Affine.translation(600000, 5000000) @ Affine.rotation(30) @ Affine.scale(10, -10)
    path = make_scene(DATED, ground(), names=S2, nodata=0, transform=turned, **TILES)
    found = one(examine(path), 'not_north_up')
    assert found.severity == 'slow'
    assert found.factor is not None
    assert found.factor > 1
    assert 'a pixel to the right is 8.66025 east and 5 north' in found.detail
    apply(found.remedies[0])
    assert quick(rewritten(path)) == []
    with rasterio.open(path) as before, rasterio.open(rewritten(path)) as after:
        assert after.transform.b == after.transform.d == 0
        assert (after.descriptions, after.nodata, after.res) == (before.descriptions, 0, pytest.approx((10, 10)))
        values = before.read()
        # each pixel is that under its centre
        for row, col in ((200, 250), (150, 300), (260, 200)):
            x, y = after.xy(row, col)
            there = before.index(x, y)
            np.testing.assert_array_equal(after.read()[:, row, col], values[:, there[0], there[1]])
    module = PretrainingDataModule(path, chip_size=16, batch_size=4, **data_options(found.remedies[1]))
    module.setup('fit')
    assert next(iter(module.train_dataloader()))['image'].shape == (4, 4, 16, 16)


def test_degrees(make_scene) -> None:
    path = make_scene(
        DATED, ground(), names=S2, nodata=0, crs='EPSG:4326', transform=Affine(1e-4, 0, 13.2, 0, -1e-4, 53.9), **TILES
    )
    found = one(quick(path), 'degrees')
    # lengths of a degree at 53.9°: 111.3 km × cos(53.9°), and 111.3 km
    across, down = map(float, re.findall(r'([\d.]+) m', found.detail))
    assert across == pytest.approx(11.13 * np.cos(np.radians(53.9)), rel=0.01)
    assert down == pytest.approx(11.13, rel=0.01)
    options = data_options(found.remedies[0])
    assert options['crs'] == 'EPSG:32633'
    module = PretrainingDataModule(path, chip_size=16, batch_size=4, **options)
    module.setup('fit')
    assert module.scenes.scenes[0].grid.res == (options['res'], options['res'])


# Sidecars.


def test_a_mask_beside_the_file(make_scene) -> None:
    mask = np.ones((300, 400), bool)
    mask[:30] = False
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK='NO'):
        path = make_scene('rgb.tif', ground(3, dtype='uint8'), names=('red', 'green', 'blue'), mask=mask, **TILES)
    assert Path(f'{path}.msk').exists()
    found = one(quick(path), 'sidecars')
    assert 'only rgb.tif.msk has the mask' in found.detail
    assert 'GDAL_DISABLE_READDIR_ON_OPEN=EMPTY_DIR' in found.message
    apply(found.remedies[0])
    target = Path(rewritten(path))
    assert not Path(f'{target}.msk').exists()
    assert quick(str(target)) == []
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN='EMPTY_DIR'), rasterio.open(target) as dataset:
        np.testing.assert_array_equal(dataset.dataset_mask() > 0, mask)


def test_a_world_file_and_auxiliary_metadata(make_scene) -> None:
    path = make_scene(DATED, ground(), crs=None, **TILES)
    Path(path).with_suffix('.tfw').write_text('10\n0\n0\n-10\n600005\n4999995\n')
    band = ''.join(
        f'<PAMRasterBand band="{i}"><Description>{name}</Description><NoDataValue>0</NoDataValue></PAMRasterBand>'
        for i, name in enumerate(S2, start=1)
    )
    Path(f'{path}.aux.xml').write_text(f'<PAMDataset><SRS>EPSG:32631</SRS>{band}</PAMDataset>')
    found = one(quick(path), 'sidecars')
    for what in ('the coordinate reference system', 'the geotransform', 'the nodata value', 'the band names'):
        assert what in found.detail
    apply(found.remedies[0])
    target = Path(rewritten(path))
    assert quick(str(target)) == []
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN='EMPTY_DIR'), rasterio.open(target) as dataset:
        assert dataset.transform == Affine(10, 0, 600000, 0, -10, 5000000)
        assert (dataset.crs.to_epsg(), dataset.nodata, dataset.descriptions) == (32631, 0, S2)


def test_harmless_sidecars(make_scene) -> None:
    path = make_scene(DATED, ground(), names=S2, nodata=0, **TILES)
    Path(f'{path}.aux.xml').write_text('<PAMDataset><Metadata><MDI key="a">b</MDI></Metadata></PAMDataset>')
    assert quick(path) == []
    with rasterio.Env(TIFF_USE_OVR='YES'), rasterio.open(path, 'r+') as dataset:
        dataset.build_overviews([2], Resampling.nearest)
    assert Path(f'{path}.ovr').exists()
    assert topics(quick(path)) == {'external_overviews'}


# Interpretation.


def test_bands_without_names(make_scene) -> None:
    path = make_scene('drone.tif', ground(5), nodata=0, **TILES)
    found = one(quick(path), 'unnamed_bands')
    assert data_options(found.remedies[0]) == {'sensor': 'micasense_rededge'}
    assert 'unnamed_bands' not in topics(quick(path, sensor=get_sensor('micasense_rededge')))
    for number, name in enumerate(('blue', 'green', 'red', 'rededge', 'nir'), start=1):
        apply(found.remedies[-1].replace('--bidx 1', f'--bidx {number}').replace('NAME', name))
    open_sensor = one(quick(path), 'unknown_sensor')
    assert '--data.sensor micasense_rededge' in open_sensor.remedies


def test_a_stale_scale_is_found_before_an_offset(make_scene) -> None:
    reflectance = ground(4, dtype='float32') * np.float32(1e-4)
    path = make_scene(DATED, reflectance, names=S2, **TILES)
    with rasterio.open(path, 'r+') as dataset:
        dataset.scales, dataset.offsets = [1e-4] * 4, [-0.1] * 4
    found = one(quick(path), 'stale_scale')
    assert 'offset_taken_twice' not in topics(quick(path))
    apply(found.remedies[0])
    assert 'stale_scale' not in topics(quick(str(Path(path).parent.with_name(f'{Path(path).parent.name}_tiled'))))


@pytest.mark.parametrize(('nodata', 'level'), [(0, 3), (255, 252)])
def test_a_collar_of_lossy_compression(make_scene, nodata: int, level: int) -> None:
    array = np.clip(ground(3, dtype='uint8'), 30, 220)
    array[:, :100] = nodata
    names = ['red', 'green', 'blue']
    assert 'collar' not in topics(quick(make_scene('clean.tif', array, names=names, nodata=nodata, **TILES)))
    array[:, 100:102] = level
    found = one(quick(make_scene('collar.tif', array, names=names, nodata=nodata, **TILES)), 'collar')
    assert found.severity == 'note'
    assert found.remedies[0].startswith('nearblack')


#: Digital numbers of a vegetated scene of each sensor, of which doctor has to advise the sensor.
_LEVELS = {
    'landsat8_l2': 12_000,
    'landsat8_l1': 9_000,
    'hls_l30': 1_500,
    'planetscope_8b': 1_500,
    'sentinel2_l2a': 1_500,
    'micasense_rededge': 6_000,
    'micasense_altum': 6_000,
    'rgbn': 100,
    'rgb': 100,
}


@pytest.mark.parametrize('described', [True, False])
@pytest.mark.parametrize('name', _LEVELS)
def test_the_advised_sensor_is_that_of_the_file(make_scene, name: str, described: bool) -> None:
    sensor = get_sensor(name)
    noise = np.random.default_rng(0).uniform(0.5, 1.5, (len(sensor.names), 100, 120))
    dtype = 'uint8' if name.startswith('rgb') else 'uint16'
    names = sensor.names if described else None
    path = make_scene('export.tif', (noise * _LEVELS[name]).astype(dtype), names=names, nodata=0, **TILES)
    advice = [f for f in quick(path) if f.topic in ('unnamed_bands', 'unknown_sensor')]
    if described and name in ('sentinel2_l2a', 'rgbn', 'rgb'):
        assert not advice  # inferred
    else:
        assert data_options(advice[0].remedies[0]) == {'sensor': name}


def test_alpha(make_scene) -> None:
    array = ground(4, dtype='uint8')
    array[3] = 255
    path = make_scene('rgba.tif', array, names=('red', 'green', 'blue', 'alpha'), alpha=True, **TILES)
    assert topics(quick(path)) == {'alpha'}


def test_values_that_are_no_reflectance(make_scene) -> None:
    path = make_scene(DATED, ground(4).astype('float32') / 100, names=S2, nodata=0, **TILES | {'predictor': 3})
    found = one(quick(path), 'value_range')
    assert found.severity == 'error'
    apply(found.remedies[0])
    target = rewritten(path)
    assert quick(target) == []
    with rasterio.open(target) as dataset:
        assert dataset.scales == (0.01,) * 4
    assert quick(make_scene('b/' + DATED, ground(4) // 40, names=S2, nodata=0, **TILES)) != []


@pytest.mark.parametrize('kind', ['reflectance', 'numbers'])
def test_floats_of_both_kinds_are_understood(make_scene, kind: str) -> None:
    array = ground(4).astype('float32') / (1 if kind == 'numbers' else 10000)
    assert quick(make_scene(DATED, array, names=S2, nodata=0, **TILES | {'predictor': 3})) == []


def test_an_offset_that_was_taken_off_before(make_scene) -> None:
    path = make_scene('T31TFJ_20230601.tif', ground(), names=S2, nodata=0, **TILES)
    found = one(quick(path), 'offset_taken_twice')
    assert found.severity == 'error'
    assert data_options(found.remedies[0]) == {'offset': 0}
    sound = make_scene('b/T31TFJ_20230601.tif', ground() + 1000, names=S2, nodata=0, **TILES)
    assert quick(sound) == []


def test_an_era_that_nothing_tells(make_scene) -> None:
    path = make_scene('field.tif', ground() + 1000, names=S2, nodata=0, **TILES)
    found = one(quick(path), 'era_unknown')
    apply(found.remedies[0])
    assert quick(path) == []
    dark = make_scene('dark.tif', ground(), names=S2, nodata=0, **TILES)  # an offset would make it negative
    assert quick(dark) == []


def test_two_bands_of_one_name(make_scene) -> None:
    found = one(quick(make_scene('a.tif', ground(2), names=('red', 'R'), **TILES)), 'unusable')
    assert found.severity == 'error'
    assert 'two bands are named red' in found.detail


def test_what_the_reader_warns_of(make_scene, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_scene('a.tif', ground(1), names=S2[:1], **TILES)
    path = tmp_path / 'T31TFJ_20210601.vrt'
    path.write_text(
        '<VRTDataset rasterXSize="400" rasterYSize="300"><SRS>EPSG:32631</SRS>'
        '<GeoTransform>600000, 10, 0, 5000000, 0, -10</GeoTransform>'
        '<VRTRasterBand dataType="UInt16" band="1"><Description>B02</Description><NoDataValue>0.5</NoDataValue>'
        '<SimpleSource><SourceFilename relativeToVRT="1">a.tif</SourceFilename><SourceBand>1</SourceBand>'
        '</SimpleSource></VRTRasterBand></VRTDataset>'
    )
    found = one(quick(str(path)), 'warning')
    assert 'ignored its nodata value 0.5, which uint16 cannot represent' in found.detail
    assert caplog.text == ''  # reported once


# Damage.


def test_a_file_that_was_cut_short(make_scene) -> None:
    sound = make_scene('a/' + DATED, ground(), names=S2, nodata=0, **TILES)
    path = make_scene('b/' + DATED, ground(), names=S2, nodata=0, **TILES)
    whole = Path(path).read_bytes()
    # GDAL puts the table of blocks first here, so the file still opens
    Path(path).write_bytes(whole[: len(whole) * 3 // 4])
    found = quick([sound, path])
    assert topics(found) == {'damaged'}
    assert found[0].severity == 'error'
    assert found[0].files == (path,)
    assert re.search(r'at least [\d,]+ bytes of its pixels are missing', found[0].detail)
    Path(path).write_bytes(b'II*\x00 nothing more')
    assert one(quick([sound, path]), 'damaged').files == (path,)
    Path(path).write_bytes(whole[: len(whole) * 3 // 4])
    close_datasets()
    with pytest.raises(SceneReadError, match=r'is damaged \(at least'):
        rewrite_raster(path, 'out.tif')
    assert not Path('out.tif').exists()


def test_bytes_that_were_changed(make_scene) -> None:
    path = make_scene(DATED, ground(), names=S2, nodata=0, **TILES)
    content = bytearray(Path(path).read_bytes())
    content[len(content) // 3 : len(content) * 2 // 3] = bytes(len(content) * 2 // 3 - len(content) // 3)
    Path(path).write_bytes(content)
    assert topics(quick(path)) == {'damaged'}
    close_datasets()
    with pytest.raises(SceneReadError, match=r'20210601.tif is damaged \('):
        rewrite_raster(path, 'out.tif')


# Consistency.


def pair(make_scene, first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    common = {'names': S2, 'nodata': 0} | TILES
    found = []
    for folder, options in (('a', first), ('b', second)):
        options = dict(options)
        name, array = options.pop('name', DATED), options.pop('array', ground())
        found.append(make_scene(f'{folder}/{name}', array, **common | options))
    return found


def test_mixed_crs(make_scene) -> None:
    paths = pair(make_scene, {}, {'crs': 'EPSG:32632'})
    found = one(quick(paths), 'mixed_crs')
    assert found.severity == 'note'
    assert found.files == tuple(paths)
    assert 'EPSG:32631 (1, such as' in found.detail
    assert data_options(found.remedies[0]) == {'crs': 'EPSG:32631'}


def test_mixed_resolution(make_scene) -> None:
    paths = pair(make_scene, {'res': 10.0}, {'res': 20.0})
    found = one(quick(paths), 'mixed_resolution')
    assert found.severity == 'error'
    module = PretrainingDataModule(paths, chip_size=16, batch_size=4, **data_options(found.remedies[0]))
    assert {scene.grid.res for scene in module.scenes.scenes} == {(20.0, 20.0)}
    degrees = pair(make_scene, {'res': 10.0}, {'crs': 'EPSG:4326', 'transform': Affine(9e-5, 0, 3, 0, -9e-5, 0.1)})
    assert topics(quick(degrees)) == {'mixed_crs', 'degrees'}  # 9e-5 degrees at the equator are 10 m
    far = [{'crs': 'EPSG:4326', 'transform': Affine(9e-5, 0, 3, 0, -9e-5, north)} for north in (0.1, 60)]
    assert topics(quick(pair(make_scene, *far))) == {'degrees'}  # of one size in degrees
    other = {'crs': 'EPSG:4326', 'transform': Affine(18e-5, 0, 3, 0, -18e-5, 0.1)}
    assert topics(quick(pair(make_scene, far[0], other))) == {'degrees', 'mixed_resolution'}


def test_a_local_plane_has_its_own_unit(make_scene) -> None:
    local = 'LOCAL_CS["site",UNIT["foot",0.3048]]'
    paths = pair(make_scene, {'crs': local, 'res': 10.0}, {'crs': local, 'res': 20.0})
    assert '3.048 m (1, such as' in one(quick(paths), 'mixed_resolution').detail
    moon = {'crs': '+proj=longlat +R=1737400', 'transform': Affine(1e-3, 0, 3, 0, -1e-3, 0.15)}
    detail = one(quick(make_scene('moon.tif', ground(), **moon)), 'degrees').detail
    assert detail == 'a pixel is 30.32 m wide and 30.32 m high'


def test_mixed_types(make_scene) -> None:
    paths = pair(make_scene, {}, {'array': ground().astype('float32'), 'predictor': 3})
    assert topics(quick(paths)) == {'mixed_dtype'}


def test_mixed_bands(make_scene) -> None:
    paths = pair(make_scene, {}, {'array': ground(3), 'names': ('B03', 'B04', 'B11')})
    found = one(quick(paths), 'mixed_bands')
    assert found.severity == 'note'
    assert data_options(found.remedies[0]) == {'bands': ['B03', 'B04']}
    apart = pair(make_scene, {}, {'array': ground(3, dtype='uint8'), 'names': ('red', 'green', 'blue'), 'res': 0.1})
    assert topics(quick(apart)) == {'mixed_bands'}


def test_mixed_eras(make_scene) -> None:
    paths = pair(make_scene, {}, {'name': 'T31TFJ_20230601.tif', 'array': ground() + 1000})
    found = one(quick(paths), 'mixed_offsets')
    assert found.severity == 'note'
    assert '-1000 (1, such as T31TFJ_20230601)' in found.detail


def test_bands_that_a_scene_lacks(make_scene) -> None:
    path = make_scene(DATED, ground(), names=S2, nodata=0, **TILES)
    found = one(quick(path, bands=['B02', 'B12']), 'missing_bands')
    assert found.severity == 'error'
    assert 'B12' in found.message


# Rewriting.


def test_turning_without_a_nodata_value_gives_alpha(make_scene) -> None:
    turned = Affine.translation(600000, 5000000) @ Affine.rotation(30) @ Affine.scale(10, -10)
    path = make_scene('a.tif', ground(2), names=('nir', 'red'), transform=turned, **TILES)
    rewrite_raster(path, 'b.tif')
    with rasterio.open('b.tif') as dataset:
        assert dataset.descriptions == ('nir', 'red', 'alpha')
        assert dataset.colorinterp[2].name == 'alpha'
        assert (dataset.read(3) > 0).sum() == pytest.approx(300 * 400, rel=0.01)
    assert {'alpha', 'unknown_sensor'} == topics(quick('b.tif'))


def test_rewriting_keeps_everything(make_scene) -> None:
    mask = np.ones((300, 400), bool)
    mask[5:50, 7:90] = False
    path = make_scene('a.tif', ground(3).astype('float32'), names=('x', 'y', 'z'), mask=mask, tags={'KEY': 'value'})
    with rasterio.open(path, 'r+') as dataset:
        dataset.scales, dataset.offsets = (0.5, 1, 2), (1, 2, 3)
    rewrite_raster(path, 'out/b.tif')
    with rasterio.open(path) as before, rasterio.open('out/b.tif') as after:
        np.testing.assert_array_equal(before.read(), after.read())
        np.testing.assert_array_equal(before.dataset_mask(), after.dataset_mask())
        for what in ('descriptions', 'scales', 'offsets', 'crs', 'transform', 'dtypes'):
            assert getattr(before, what) == getattr(after, what)
        assert after.tags()['KEY'] == 'value'
        assert after.block_shapes == [(256, 256)] * 3
    assert [file.name for file in Path('out').iterdir()] == ['b.tif']
    with pytest.raises(ConfigurationError, match='is the source itself'):
        rewrite_raster(path, path)


def test_rewriting_numbers_of_few_bits(make_scene) -> None:
    path = make_scene('a.tif', ground(1), names=('B02',), nbits=12)
    rewrite_raster(path, 'b.tif')
    with rasterio.open('b.tif') as dataset:
        np.testing.assert_array_equal(dataset.read(), ground(1))
        assert dataset.tags(ns='IMAGE_STRUCTURE')['PREDICTOR'] == '2'
