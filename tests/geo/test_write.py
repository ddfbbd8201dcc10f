"""GeoTIFFs appear complete or not at all."""

import glob
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Compression
from rasterio.errors import RasterioError

from torchgeo_msssl.errors import ConfigurationError, OutputError, ScenesNotFoundError
from torchgeo_msssl.geo.discover import find_files
from torchgeo_msssl.geo.grid import PixelGrid, Window, covering_windows
from torchgeo_msssl.geo.write import GeoTIFFSpec, GeoTIFFWriter, copy_raster, encode_geotiff, write_geotiff

GRID = PixelGrid(CRS.from_epsg(32631), Affine(10, 0, 699960, 0, -10, 4860000), 300, 410)


def noise(count: int = 2, dtype: str = 'uint16', grid: PixelGrid = GRID) -> NDArray[np.generic]:
    values = np.random.default_rng(0).integers(0, 200, (count, grid.height, grid.width))
    return values.astype(dtype)


@pytest.mark.parametrize('dtype', ['uint8', 'int16', 'uint16', 'int32', 'float32', 'float64'])
def test_values_grid_and_metadata_come_back(tmp_path: Path, dtype: str) -> None:
    path, array = tmp_path / 'new' / 'folder' / 'scene.tif', noise(3, dtype)
    write_geotiff(path, array, GRID, band_names=['B02', 'B03', 'B04'], nodata=0, tags={'SENSOR': 'x'})
    with rasterio.open(path) as scene:
        np.testing.assert_array_equal(scene.read(), array)
        assert (scene.crs, scene.transform, scene.shape) == (GRID.crs, GRID.transform, (300, 410))
        assert scene.descriptions == ('B02', 'B03', 'B04')
        assert (scene.dtypes[0], scene.nodata, scene.tags()['SENSOR']) == (dtype, 0, 'x')
        assert scene.compression == Compression.zstd
        assert scene.block_shapes == [(256, 256)] * 3
    assert [file.name for file in path.parent.iterdir()] == ['scene.tif']


@pytest.mark.parametrize('compress', ['deflate', 'lzw', 'none', 'packbits'])
def test_other_compressions(tmp_path: Path, compress: str) -> None:
    write_geotiff(tmp_path / 'scene.tif', noise(), GRID, compress=compress, blocksize=64)
    with rasterio.open(tmp_path / 'scene.tif') as scene:
        np.testing.assert_array_equal(scene.read(), noise())
        assert scene.block_shapes[0] == (64, 64)


def test_grid_smaller_than_a_block(tmp_path: Path) -> None:
    grid = PixelGrid(GRID.crs, GRID.transform, 7, 5)
    write_geotiff(tmp_path / 'scene.tif', noise(grid=grid), grid)
    with rasterio.open(tmp_path / 'scene.tif') as scene:
        np.testing.assert_array_equal(scene.read(), noise(grid=grid))


def test_four_bytes_are_no_alpha_but_a_band_of_that_name_is(tmp_path: Path) -> None:
    write_geotiff(tmp_path / 'plain.tif', noise(4, 'uint8'), GRID)
    write_geotiff(tmp_path / 'alpha.tif', noise(4), GRID, band_names=['red', 'green', 'blue', 'alpha'])
    with rasterio.open(tmp_path / 'plain.tif') as plain, rasterio.open(tmp_path / 'alpha.tif') as alpha:
        assert ColorInterp.alpha not in plain.colorinterp
        assert [c == ColorInterp.alpha for c in alpha.colorinterp] == [False, False, False, True]


def test_colormap_of_labels(tmp_path: Path) -> None:
    labels = np.zeros((1, 300, 410), np.uint8)
    labels[:, 100:] = 7
    write_geotiff(tmp_path / 'map.tif', labels, GRID, colormap={0: (1, 2, 3), 7: (4, 5, 6, 255)})
    with rasterio.open(tmp_path / 'map.tif') as scene:
        assert scene.colormap(1)[7] == (4, 5, 6, 255)
        assert scene.colormap(1)[0][:3] == (1, 2, 3)
        np.testing.assert_array_equal(scene.read(), labels)
    assert [file.name for file in tmp_path.iterdir()] == ['map.tif']


def test_categories_are_read_by_gdal(tmp_path: Path) -> None:
    spec = GeoTIFFSpec(1, 'uint8', categorical=True, categories=('grass', 'vine & co'))
    with GeoTIFFWriter(tmp_path / 'map.tif', GRID, spec) as writer:
        writer.write(noise(1, 'uint8'), GRID.window)
    sidecar = (tmp_path / 'map.tif.aux.xml').read_text()
    assert '<Category>vine &amp; co</Category>' in sidecar


def test_encoding_in_memory_keeps_pixels_metadata_and_mask() -> None:
    grid = PixelGrid(GRID.crs, GRID.transform, 7, 5)
    valid = np.arange(35).reshape(7, 5) % 3 > 0
    spec = GeoTIFFSpec(
        2, 'uint16', ('B02', 'B03'), scales=(0.5, 1), offsets=(0, -1), tags={'A': 'b'}, blocksize=7, tiled=False
    )
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK='YES'):
        content = encode_geotiff(noise(grid=grid), grid, spec, valid)
    with rasterio.MemoryFile(content) as memory, memory.open() as dataset:
        np.testing.assert_array_equal(dataset.read(), noise(grid=grid))
        np.testing.assert_array_equal(dataset.dataset_mask() > 0, valid)
        assert (dataset.crs, dataset.transform) == (grid.crs, grid.transform)
        assert dataset.descriptions == ('B02', 'B03')
        assert (dataset.scales, dataset.offsets) == ((0.5, 1), (0, -1))
        assert dataset.tags()['A'] == 'b'


def test_a_failed_copy_raises_an_exception_of_rasterio(tmp_path: Path) -> None:
    """`rasterio.shutil.copy` raises exceptions of GDAL that have no public base class; copy_raster does not."""
    write_geotiff(tmp_path / 'scene.tif', noise(), GRID)
    for source, target in (('scene.tif', 'nowhere/copy.tif'), ('missing.tif', 'copy.tif')):
        with pytest.raises(RasterioError):
            copy_raster(tmp_path / source, tmp_path / target, driver='COG')


def test_streaming_equals_writing_at_once(tmp_path: Path) -> None:
    array = noise()
    with GeoTIFFWriter(tmp_path / 'scene.tif', GRID, GeoTIFFSpec(count=2, dtype='uint16', blocksize=64)) as writer:
        for window in covering_windows(GRID, (64, 64)):
            inside = window.intersection(GRID.window)
            assert inside is not None
            rows, cols = (
                slice(inside.row, inside.row + inside.height),
                slice(inside.col, inside.col + inside.width),
            )
            writer.write(array[:, rows, cols], inside)
        assert not (tmp_path / 'scene.tif').exists()
    with rasterio.open(tmp_path / 'scene.tif') as scene:
        np.testing.assert_array_equal(scene.read(), array)


def test_what_was_not_written_is_nodata(tmp_path: Path) -> None:
    with GeoTIFFWriter(tmp_path / 'scene.tif', GRID, GeoTIFFSpec(count=1, dtype='float32', nodata=-1)) as writer:
        writer.write(np.ones((1, 256, 256), np.float32), Window(0, 0, 256, 256))
    with rasterio.open(tmp_path / 'scene.tif') as scene:
        values = scene.read(1)
    assert (values[:256, :256] == 1).all()
    assert (values[256:] == -1).all()
    assert (values[:, 256:] == -1).all()


def test_an_exception_leaves_nothing_and_the_old_file_intact(tmp_path: Path) -> None:
    old = tmp_path / 'old.tif'
    write_geotiff(old, noise(), GRID)
    before = old.read_bytes()

    def fail_half_way(path: Path) -> None:
        with GeoTIFFWriter(path, GRID, GeoTIFFSpec(count=1, dtype='uint8', blocksize=64)) as writer:
            writer.write(np.ones((1, 64, 64), np.uint8), Window(0, 0, 64, 64))
            raise ZeroDivisionError

    for path in (old, tmp_path / 'new.tif'):
        with pytest.raises(ZeroDivisionError):
            fail_half_way(path)
    assert [file.name for file in tmp_path.iterdir()] == ['old.tif']
    assert old.read_bytes() == before


def test_a_stale_sidecar_does_not_outlive_the_file_it_described(tmp_path: Path) -> None:
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False):
        write_geotiff(tmp_path / 'scene.tif', noise(), GRID)
        with rasterio.open(tmp_path / 'scene.tif', 'r+') as scene:
            scene.write_mask(np.zeros(GRID.window.area, bool).reshape(GRID.height, GRID.width))
    (tmp_path / 'scene.tif.aux.xml').write_text('<PAMDataset/>')
    assert (tmp_path / 'scene.tif.msk').exists()
    write_geotiff(tmp_path / 'scene.tif', noise(), GRID)
    with rasterio.open(tmp_path / 'scene.tif') as scene:
        assert scene.dataset_mask().all()
    assert [file.name for file in tmp_path.iterdir()] == ['scene.tif']


@pytest.mark.parametrize('where', ['file/x.tif', '/proc/nowhere/x.tif'])
def test_a_folder_that_cannot_be_written(tmp_path: Path, where: str) -> None:
    (tmp_path / 'file').write_text('not a folder')
    with pytest.raises(OutputError, match=r'cannot be written .*choose another'):
        write_geotiff(tmp_path / where, noise(), GRID)


@pytest.mark.parametrize(
    ('count', 'dtype', 'options', 'message'),
    [
        (2, 'uint16', {'band_names': ['B02']}, 'band_names: expected one for each of 2 bands'),
        (1, 'uint8', {'nodata': 300}, 'nodata: 300 does not fit into uint8'),
        (1, 'uint8', {'nodata': float('nan')}, 'nodata: nan does not fit into uint8'),
        (2, 'uint8', {'colormap': {0: (0, 0, 0)}}, 'colormap: requires one band'),
        (1, 'uint8', {'blocksize': 100}, 'multiple of 16, got 100'),
        (1, 'bool', {}, 'dtype: expected one of uint8, .* got bool'),
        (1, 'complex64', {}, 'got complex64'),
        (1, 'float32', {'nodata': 1e300}, r'nodata: 1e\+300 does not fit into float32'),
    ],
)
def test_options_that_contradict_each_other(
    tmp_path: Path, count: int, dtype: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        write_geotiff(tmp_path / 'x.tif', noise(count, dtype), GRID, **options)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_arrays_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match='add the band axis'):
        write_geotiff(tmp_path / 'x.tif', noise()[0], GRID)
    with pytest.raises(ConfigurationError, match=r'expected uint16 values of the shape \(2, 300, 410\)'):
        write_geotiff(tmp_path / 'x.tif', noise()[:, :-1], GRID)
    writer = GeoTIFFWriter(tmp_path / 'x.tif', GRID, GeoTIFFSpec(count=1, dtype='uint8'))
    with pytest.raises(ConfigurationError, match='leaves the grid of 300 × 410'), writer:
        writer.write(np.ones((1, 64, 64), np.uint8), Window(256, 0, 64, 64))
    with pytest.raises(ConfigurationError, match='got float64'), writer:
        writer.write(np.ones((1, 64, 64)), Window(0, 0, 64, 64))
    assert not list(tmp_path.iterdir())


def run_python(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[2]
    environment = {**os.environ, 'PYTHONPATH': str(root)}
    command = [sys.executable, '-c', textwrap.dedent(code)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False)


PRELUDE = """
import os, resource, signal
import numpy as np
from affine import Affine
from rasterio.crs import CRS
from torchgeo_msssl.errors import OutputError
from torchgeo_msssl.geo.grid import PixelGrid, Window
from torchgeo_msssl.geo.write import GeoTIFFSpec, GeoTIFFWriter, write_geotiff
grid = PixelGrid(CRS.from_epsg(32631), Affine(10, 0, 699960, 0, -10, 4860000), 300, 300)
values = np.random.default_rng(0).integers(0, 60000, (2, 300, 300), dtype='uint16')
"""


def test_a_killed_writer_leaves_nothing_under_the_final_name(tmp_path: Path) -> None:
    result = run_python(
        PRELUDE
        + """
with GeoTIFFWriter('scene.tif', grid, GeoTIFFSpec(count=2, dtype='uint16', blocksize=64)) as writer:
    writer.write(values[:, :128], Window(0, 0, 128, 300))
    os.kill(os.getpid(), signal.SIGKILL)
""",
        tmp_path,
    )
    assert result.returncode == -signal.SIGKILL, result.stderr
    assert not list(tmp_path.glob('scene*'))
    assert len(list(tmp_path.iterdir())) == 1  # hidden, and not found as a scene:
    with pytest.raises(ScenesNotFoundError):
        find_files([tmp_path])
    assert not glob.glob(f'{tmp_path}/**/*', recursive=True)[1:]


@pytest.mark.skipif(sys.platform == 'win32', reason='needs a limit on the size of files')
def test_a_full_disk_is_noticed_wherever_it_strikes(tmp_path: Path) -> None:
    """The last blocks are flushed while closing, of which GDAL reports a failure only on its log."""
    result = run_python(
        PRELUDE
        + """
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for limit in (50, 1_000, 100_000, 300_000, 340_000, 355_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        write_geotiff('scene.tif', values, grid)
    except OutputError:
        print('noticed')
""",
        tmp_path,
    )
    assert result.stdout.split() == ['noticed'] * 6, result.stderr
    assert not list(tmp_path.iterdir())
