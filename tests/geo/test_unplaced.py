"""Files without a place are named with what gives them one."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC

from torchgeo_msssl.errors import MissingCRSError, ScenesNotFoundError
from torchgeo_msssl.geo.discover import find_files, group_files
from torchgeo_msssl.geo.doctor import examine
from torchgeo_msssl.geo.headers import find_scenes
from torchgeo_msssl.geo.plain_images import require_crs

PIXELS = np.random.default_rng(0).integers(1, 200, (3, 60, 80)).astype(np.uint8)


def write(path: Path, **options) -> str:
    """Write an image without a geotransform."""
    with rasterio.open(path, 'w', 'GTiff', width=80, height=60, count=3, dtype='uint8', **options) as dataset:
        dataset.write(PIXELS)
        if 'rpcs' in options:
            dataset.rpcs = options['rpcs']
    return str(path)


def control_points(path: Path) -> str:
    points = [GroundControlPoint(r, c, 3 + c / 1e3, 45 - r / 1e3) for r, c in ((0, 0), (0, 80), (60, 0), (60, 80))]
    return write(path, gcps=points, crs='EPSG:4326')


def polynomials(path: Path) -> str:
    one = [1.0, *[0.0] * 19]
    rpc = RPC(0.0, 1.0, 45.0, 0.1, one, one, 30.0, 30.0, 3.0, 0.1, one, one, 40.0, 40.0)
    return write(path, rpcs=rpc)


def frame(path: Path) -> str:
    image = Image.fromarray(PIXELS.transpose(1, 2, 0))
    exif = Image.Exif()
    exif.get_ifd(0x8825).update({1: 'N', 2: (45.0, 1.0, 0.0), 3: 'E', 4: (3.0, 0.0, 0.0)})
    image.save(path, exif=exif)
    return str(path)


@pytest.mark.filterwarnings('ignore::rasterio.errors.NotGeoreferencedWarning')
@pytest.mark.parametrize(
    ('make', 'remedy'),
    [
        (control_points, 'placed by ground control points only, .*`gdalwarp -t_srs EPSG:32631 .*_warped.tif`'),
        (polynomials, 'placed by rational polynomial coefficients only, .*`gdalwarp -rpc -t_srs'),
    ],
)
def test_control_points_and_polynomials_need_a_warp(tmp_path, make, remedy: str) -> None:
    path = make(tmp_path / 'raw.tif')
    with pytest.raises(MissingCRSError, match=remedy):
        find_scenes(path)
    with pytest.raises(MissingCRSError, match=f'labels: .*{remedy}'):
        require_crs(find_scenes(path, plain=True), 'labels')
    found = [finding for finding in examine(path, measured=False) if finding.severity == 'error']
    assert [finding.topic for finding in found] == ['no_grid']
    assert found[0].remedies[0].startswith('gdalwarp ')


@pytest.mark.filterwarnings('ignore::rasterio.errors.NotGeoreferencedWarning')
def test_raw_frames_are_one_finding(tmp_path) -> None:
    for name in ('P1.jpg', 'P2.jpg'):
        frame(tmp_path / name)
    write(tmp_path / 'DJI_20240601120000_0001_MS_NIR.tif')
    jpegs = examine([str(tmp_path / 'P1.jpg'), str(tmp_path / 'P2.jpg')], measured=False)
    assert [(finding.topic, len(finding.files)) for finding in jpegs] == [('raw_frames', 2)]
    assert [finding.topic for finding in examine(tmp_path, measured=False)] == ['raw_frames']
    with pytest.raises(MissingCRSError, match='it is a raw frame of a camera, so build an orthomosaic first'):
        find_scenes(str(tmp_path / 'P1.jpg'))


@pytest.mark.parametrize('name', ['S2A_MSIL2A_20240601.SAFE.zip', 'scenes.tar.gz'])
def test_archives_are_to_be_unpacked(tmp_path, name: str) -> None:
    (tmp_path / name).touch()
    for given in (tmp_path, tmp_path / name, tmp_path / '*'):
        with pytest.raises(ScenesNotFoundError, match=f'{name} is an archive.* unpack it, and give the folder'):
            find_files(given)


@pytest.mark.parametrize(
    ('files', 'scene', 'bands'),
    [
        (
            ['DJI_1_MS_G.TIF', 'DJI_1_MS_R.TIF', 'DJI_1_MS_RE.TIF', 'DJI_1_MS_NIR.TIF'],
            'DJI_1_MS',
            ['green', 'red', 'rededge', 'nir'],
        ),
        (
            ['vines_transparent_reflectance_green.tif', 'vines_transparent_reflectance_red edge.tif'],
            'vines_transparent_reflectance',
            ['green', 'rededge'],
        ),
    ],
)
def test_bands_of_dji_and_pix4d(files: list[str], scene: str, bands: list[str]) -> None:
    ((name, found),) = group_files(files)
    assert (name, found) == (scene, dict(zip(bands, files, strict=True)))


def test_a_single_letter_is_a_band_of_dji_only() -> None:
    assert [files for _, files in group_files(['plan_g.tif', 'plan_r.tif'])] == ['plan_g.tif', 'plan_r.tif']
