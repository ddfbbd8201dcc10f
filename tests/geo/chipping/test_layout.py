"""A chip that is put together is the chip that GDAL writes: the same tags with the same values, and the same pixels."""

from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.io import MemoryFile

from torchgeo_msssl.geo.chipping.layout import Layout
from torchgeo_msssl.geo.tags import PLACES, Tag, first_directory, read_directory

HERE = Affine(10, 0, 600000, 0, -10, 5000000)
THERE = Affine(10, 0, 612345.5, 0, -10, 4987654.25)
TURN = Affine.rotation(33) @ Affine.scale(0.0321, -0.0321)
SOUTH_UP = Affine.scale(1, -1)
DIFFERENCES: dict[str, Any] = {'compress': 'zstd', 'zstd_level': 1, 'predictor': 2}
TILE: dict[str, Any] = {'tiled': True, 'blockxsize': 32, 'blockysize': 32}


def with_gdal(image: NDArray[Any], transform: Affine, mask: bool = False, **options: Any) -> bytes:
    options = {'crs': 'EPSG:32631', 'interleave': 'band', **options}
    names = [f'band {k}' for k in range(len(image))]
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK='YES'), MemoryFile() as memory:
        with memory.open(
            driver='GTiff', count=len(image), height=image.shape[1], width=image.shape[2], dtype=image.dtype,
            transform=transform, nodata=7, photometric='MINISBLACK', **options,
        ) as file:  # fmt: skip
            file.descriptions = names
            file.update_tags(PROCESSING_BASELINE='05.10', NAME='Äcker')
            file.scales, file.offsets = [1e-4] * len(names), [-0.1] * len(names)
            if len(names) == 4:
                file.colorinterp = [ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.alpha]
            file.write(image)
            if mask:
                file.write_mask(np.zeros(image.shape[1:], dtype=np.bool_))
        return bytes(memory.getbuffer())


def tags_of(content: bytes) -> dict[int, Tag]:
    def at(start: int, length: int) -> bytes:
        return content[start : start + length]

    found = first_directory(at)
    assert found is not None
    tags, following = read_directory(at, *found, without=PLACES)
    assert following == 0
    return tags


def told(file: Any) -> list[Any]:
    """Everything that rasterio tells of a file but its name and pixels."""
    return [
        file.profile, file.tags(), [file.tags(k) for k in file.indexes], file.tags(ns='IMAGE_STRUCTURE'),
        file.nodatavals, file.descriptions, file.colorinterp, file.scales, file.offsets, file.mask_flag_enums,
        file.block_shapes, file.units,
    ]  # fmt: skip


@pytest.mark.parametrize('dtype', ['uint8', 'int8', 'int16', 'uint16', 'uint32', 'int32', 'int64'])
@pytest.mark.parametrize('bands', [1, 2, 4, 12])
@pytest.mark.parametrize('options', [DIFFERENCES | TILE, DIFFERENCES | {'blockysize': 32}, TILE, {'blockysize': 32}])
@pytest.mark.parametrize('turn', [None, TURN, SOUTH_UP])
def test_a_chip_is_what_gdal_writes(dtype: str, bands: int, options: dict[str, Any], turn: Affine | None) -> None:
    info = np.iinfo(dtype)
    pixels = np.random.default_rng(0).integers(info.min, info.max, (bands, 32, 32), dtype, endpoint=True)
    pixels[:, :16] = np.arange(32, dtype=dtype)
    here, there = (HERE, THERE) if turn is None else (HERE @ turn, THERE @ turn)
    layout = Layout.of(with_gdal(np.zeros_like(pixels), here, **options), here)
    assert layout is not None
    chip, expected = layout.chip(pixels, there), with_gdal(pixels, there, **options)
    assert tags_of(chip) == tags_of(expected)
    with MemoryFile(chip) as ours, MemoryFile(expected) as theirs, ours.open() as file, theirs.open() as other:
        assert told(file) == told(other)
        assert file.transform == there
        np.testing.assert_array_equal(file.read(), pixels)


def test_a_layout_serves_many_chips() -> None:
    rng = np.random.default_rng(0)
    layout = Layout.of(with_gdal(np.zeros((3, 32, 32), np.uint16), HERE, **DIFFERENCES, **TILE), HERE)
    assert layout is not None
    images = [rng.integers(0, high, (3, 32, 32), np.uint16) for high in (2, 60000, 300)]
    chips = [layout.chip(image, HERE) for image in images]
    for image, chip in zip(images, chips, strict=True):
        assert layout.chip(image, HERE) == chip  # whatever was made in between
        with MemoryFile(chip) as memory, memory.open() as file:
            np.testing.assert_array_equal(file.read(), image)


@pytest.mark.parametrize(
    ('dtype', 'options'),
    [
        ('uint16', TILE | {'compress': 'deflate', 'predictor': 2}),
        ('uint16', TILE | {'compress': 'zstd'}),
        ('float32', TILE | DIFFERENCES | {'predictor': 3}),
        ('float32', TILE | DIFFERENCES),
        ('uint16', DIFFERENCES | {'blockysize': 8}),
        ('uint16', DIFFERENCES | {'tiled': True, 'blockxsize': 16, 'blockysize': 16}),
        ('uint16', DIFFERENCES | TILE | {'interleave': 'pixel'}),
        ('uint16', DIFFERENCES | TILE | {'mask': True}),
        ('uint16', DIFFERENCES | TILE | {'BIGTIFF': 'YES'}),
        ('uint16', DIFFERENCES | TILE | {'ENDIANNESS': 'BIG'}),
    ],
)
def test_other_kinds_are_left_to_gdal(dtype: str, options: dict[str, Any]) -> None:
    assert Layout.of(with_gdal(np.zeros((3, 32, 32), dtype), HERE, **options), HERE) is None


def test_a_chip_that_lies_elsewhere_than_said_teaches_nothing() -> None:
    chip = with_gdal(np.zeros((3, 32, 32), np.uint16), HERE, **TILE)
    assert Layout.of(chip, HERE) is not None
    assert Layout.of(chip, THERE) is None
    assert Layout.of(chip, HERE @ TURN) is None


def test_values_that_are_not_compressed_may_be_floats() -> None:
    image = np.random.default_rng(0).normal(size=(2, 32, 32)).astype(np.float32)
    layout = Layout.of(with_gdal(np.zeros_like(image), HERE, **TILE), HERE)
    assert layout is not None
    with MemoryFile(layout.chip(image, THERE)) as memory, memory.open() as file:
        np.testing.assert_array_equal(file.read(), image)
