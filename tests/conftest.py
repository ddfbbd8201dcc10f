"""Small GeoTIFFs for tests, and a separate cache folder."""

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

# Read when NumPy and PyTorch are imported. A second thread gains nothing on tensors of this size, and processes of
# pytest-xdist would wait for each other: networks take four times the processor time with two threads.
os.environ.setdefault('OMP_NUM_THREADS', '1')

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

from torchgeo_msssl.geo.open_datasets import close_datasets
from torchgeo_msssl.geo.sample import SampleArea, write_sample_area

#: Markers of tests that run a large number of trials, which take long and are therefore asked for by name.
TRIALS = ('fuzz', 'faults')

# While modules are imported nothing can be freed; looking for it takes seconds. `pytest_collection_finish` enables it.
gc.disable()

#: Upper left corner of the scenes of ``make_scene`` by default, in EPSG:32631.
ORIGIN = (600000.0, 5000000.0)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect tests that run many trials, unless ``-m`` names their marker."""
    left_out = [name for name in TRIALS if name not in config.option.markexpr]
    kept: list[pytest.Item] = []
    many: list[pytest.Item] = []
    for item in items:
        (many if any(map(item.get_closest_marker, left_out)) else kept).append(item)
    config.hook.pytest_deselected(items=many)
    items[:] = kept


def pytest_collection_finish() -> None:
    """Exempt libraries and tests, which stay to the end, from garbage collection."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope='session', autouse=True)
def cache_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Use a temporary cache folder instead of the user's."""
    folder = tmp_path_factory.mktemp('cache')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('TORCHGEO_MSSSL_CACHE', str(folder))
        yield folder


@pytest.fixture
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in the temporary folder, with a cache folder in it; afterwards no file is open."""
    monkeypatch.setenv('TORCHGEO_MSSSL_CACHE', str(tmp_path / 'cache'))
    monkeypatch.chdir(tmp_path)
    yield
    close_datasets()


@pytest.fixture(scope='session')
def small_area(tmp_path_factory: pytest.TempPathFactory) -> SampleArea:
    """The sample area at a quarter of its size, generated once. Tests that write into its folder need a copy."""
    return write_sample_area(tmp_path_factory.mktemp('small_area'), scale=0.25)


def write_scene(
    path: Path,
    array: NDArray[Any],
    *,
    names: Sequence[str] | None = None,
    crs: Any = 'EPSG:32631',
    transform: Affine | None = None,
    res: float = 10.0,
    placed: bool = True,
    nodata: float | None = None,
    mask: NDArray[np.bool_] | None = None,
    alpha: bool = False,
    tags: dict[str, str] | None = None,
    **options: Any,
) -> str:
    """Write a GeoTIFF.

    Args:
        path: File to write.
        array: Shape (band, height, width), or (height, width) for one band.
        names: Band descriptions.
        crs: CRS; None writes none.
        transform: Geotransform; default: north up at ``ORIGIN``.
        res: Pixel size, if ``transform`` is not given.
        placed: Whether the file has a geotransform.
        nodata: Declared nodata value.
        mask: Valid pixels, written as a mask (internal, or ``.msk`` with GDAL_TIFF_INTERNAL_MASK=NO).
        alpha: Whether the last band is an alpha band.
        tags: Dataset tags.
        **options: Creation options of GDAL's GTiff driver.

    Returns:
        The path as a string.
    """
    array = array[None] if array.ndim == 2 else array
    transform = transform or Affine(res, 0, ORIGIN[0], 0, -res, ORIGIN[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    profile: dict[str, Any] = {
        'driver': 'GTiff',
        'count': len(array),
        'height': array.shape[1],
        'width': array.shape[2],
        'dtype': array.dtype,
        'nodata': nodata,
        'photometric': 'MINISBLACK',
    }
    if crs is not None:
        profile |= {'crs': crs}
    if crs is not None and placed:
        profile |= {'transform': transform}
    with rasterio.open(path, 'w', **(profile | options)) as scene:
        if names is not None:
            scene.descriptions = list(names)
        if alpha:  # before the pixels: GDAL cannot write it into the header afterwards
            scene.colorinterp = [*scene.colorinterp[:-1], ColorInterp.alpha]
        scene.write(array)
        if mask is not None:
            scene.write_mask(mask)
        if tags:
            scene.update_tags(**tags)
    return str(path)


@pytest.fixture
def make_scene(tmp_path: Path) -> Callable[..., str]:
    """Return ``make_scene(name_or_path, array, …)``: write a GeoTIFF with :func:`write_scene`, return its path."""

    def make(path: str | Path, array: NDArray[Any], **options: Any) -> str:
        return write_scene(tmp_path / path, array, **options)

    return make


@pytest.fixture
def random_array() -> Callable[..., NDArray[Any]]:
    """Return ``random_array(shape, dtype)``, which draws values from 1 to 120 with a fixed seed."""

    def make(shape: Sequence[int], dtype: str = 'uint16', seed: int = 0) -> NDArray[Any]:
        return np.random.default_rng(seed).integers(1, 121, shape).astype(dtype)

    return make


@pytest.fixture
def tiles(make_scene: Callable[..., str]) -> tuple[list[str], str]:
    """Two tiles that overlap by half, on two dates, and labels of all their ground."""
    rng = np.random.default_rng(0)
    classes = np.kron(rng.integers(1, 3, (8, 12)), np.ones((16, 16), int))  # 128 × 192 pixels
    paths = []
    for date in ('20210601', '20210701'):
        for col in (0, 64):
            image = classes[None, :, col : col + 128] * 500 + rng.integers(0, 100, (2, 128, 128))
            path = f'scenes/T31TFJ_{date}_{col}.tif'
            transform = Affine(10, 0, 600000 + 10 * col, 0, -10, 5000000)
            paths.append(make_scene(path, image.astype(np.uint16), names=('B02', 'B03'), transform=transform))
    return paths, make_scene('labels.tif', classes.astype(np.uint8), nodata=0)
