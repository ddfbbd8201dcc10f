"""One chip as a small GeoTIFF that keeps what its scene says about its pixels.

A chip is made in memory and written in one go beside its place, then renamed: it is whole or absent. It is not forced
out of the system's buffers one by one, which would cost several times the writing itself on an ordinary disk; after a
power cut a chip may be short, and is found by its size when the run goes on.
"""

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

from torchgeo_msssl.bands import Sensor, infer_sensor, is_auxiliary
from torchgeo_msssl.errors import OutputError
from torchgeo_msssl.geo.chipping.layout import Layout
from torchgeo_msssl.geo.chipping.options import IGNORE, Compression
from torchgeo_msssl.geo.discover import date_of
from torchgeo_msssl.geo.grid import PixelGrid, Window
from torchgeo_msssl.geo.open_datasets import pooled_raster
from torchgeo_msssl.geo.radiometry import sentinel2_offset
from torchgeo_msssl.geo.scene import Scene, read_file, representable, with_data
from torchgeo_msssl.geo.write import GeoTIFFSpec, encode_geotiff

#: Suffix of files that are being written.
TEMPORARY = '.part'
#: GDAL's options for everything that is written here.
ENVIRONMENT = {'GDAL_TIFF_INTERNAL_MASK': 'YES'}
#: Chips up to this side are one block, so that reading one decodes nothing else; larger ones have blocks of 256.
_ONE_BLOCK = 512
#: Longer texts in a scene's tags (whole metadata files) would be larger than the chip.
_LONGEST_TAG = 1000
#: A tag about the placing of pixels, which chips tell in their own way.
_OWN_TAGS = frozenset({'AREA_OR_POINT'})


@dataclass(frozen=True)
class ChipFormat:
    """How the chips of one scene are written.

    Attributes:
        scene: The scene.
        bands: Canonical names of its bands, in the order written.
        nodata: Value declared as nodata, or None.
        assumed: Value that a reader takes for nodata where none is declared (that of the sensor), or None.
        alpha: Whether chips have an alpha band, the last one.
        plain: Whether a chip's declared nodata value tells all that the scene knows about validity.
        size: Side of a chip, in pixels.
        spec: Bands, metadata and storage of the files.
    """

    scene: Scene
    bands: tuple[str, ...]
    nodata: float | None
    assumed: float | None
    alpha: bool
    plain: bool
    size: int
    spec: GeoTIFFSpec = field(hash=False)

    def read(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Read a chip's bands and where they have data, see :meth:`~torchgeo_msssl.geo.scene.Scene.read`."""
        return self.scene.read(window, self.bands)

    def encode(self, image: NDArray[Any], valid: NDArray[np.bool_], window: Window) -> bytes:
        """Make a GeoTIFF in memory.

        Args:
            image: Shape (band, height, width).
            valid: Where there is data, shape (height, width).
            window: Where the chip lies on the scene's grid.

        Returns:
            The file's content.
        """
        transform = self.scene.grid.window_transform(window)
        pixels = np.concatenate([image, self._alpha(valid, window)]) if self.alpha else image
        mask = None if self.alpha or self._tells(image, valid) else valid
        if mask is None and self._layout is not None:
            return self._layout.chip(pixels, transform)
        return self._with_gdal(pixels, mask, transform)

    @cached_property
    def _layout(self) -> Layout | None:
        """How chips without a mask are laid out, where GDAL is not needed for each of them."""
        transform = self.scene.grid.transform
        chip = self._with_gdal(np.zeros((self.spec.count, self.size, self.size), self.spec.dtype), None, transform)
        return Layout.of(chip, transform)

    def _with_gdal(self, pixels: NDArray[Any], mask: NDArray[np.bool_] | None, transform: Affine) -> bytes:
        return encode_geotiff(pixels, PixelGrid(self.scene.grid.crs, transform, self.size, self.size), self.spec, mask)

    def _tells(self, image: NDArray[Any], valid: NDArray[np.bool_]) -> bool:
        """Whether a reader of the chip finds the very pixels without data that the scene has, without a mask."""
        if self.plain:
            return True
        if self.nodata is None and not valid.all():  # other programs know nothing of what a sensor's products assume
            return False
        return bool(np.array_equal(with_data(image, self.bands, self.nodata, self.assumed), valid))

    def _alpha(self, valid: NDArray[np.bool_], window: Window) -> NDArray[Any]:
        """The alpha band of a window, 0 outside the scene; shape (1, height, width)."""
        file = self.scene.files[0]
        alpha = np.zeros((1, window.height, window.width), dtype=self.scene.dtype)
        if file.grid != self.scene.grid:  # warped
            opaque = np.iinfo(alpha.dtype).max if alpha.dtype.kind in 'iu' else 255
            alpha[0][valid] = opaque
            return alpha
        inside = window.intersection(file.grid.window)
        if inside is not None:
            row, col = inside.row - window.row, inside.col - window.col
            place = slice(row, row + inside.height), slice(col, col + inside.width)
            alpha[:, *place] = read_file(file, inside, ['alpha'], file.grid)[0]
        return alpha


def chip_format(scene: Scene, bands: Sequence[str], sensor: Sensor | None, size: int, how: Compression) -> ChipFormat:
    """Find out how the chips of a scene are to be written.

    A nodata value that the scene goes by is declared, also one that is only known for the sensor (0 with
    Sentinel-2), unless a quality layer is among the bands, in which it is an ordinary value. Where no value tells
    (masks, padding of scenes without nodata), a chip has an internal mask.

    Args:
        scene: Scene.
        bands: Canonical names.
        sensor: Its sensor, or None where unknown.
        size: Side of a chip, in pixels.
        how: Compression.

    Returns:
        The format.
    """
    alpha = len(scene.files) == 1 and 'alpha' in scene.files[0].names
    nodata = _declared(scene, bands)
    known = infer_sensor(bands, scene.name) or sensor
    files = [scene.file_of(band) for band in bands] + ([scene.files[0]] if alpha else [])
    names = [*bands, 'alpha'] if alpha else list(bands)
    places = [(file.path, file.index(name)) for file, name in zip(files, names, strict=True)]
    plain = nodata is not None and scene.is_stored and len(scene.files) == 1 and not scene.files[0].masked
    scales = tuple(file.scales[file.index(name) - 1] for file, name in zip(files, names, strict=True))
    offsets = tuple(file.offsets[file.index(name) - 1] for file, name in zip(files, names, strict=True))
    plain_numbers = set(scales) == {1.0} and set(offsets) == {0.0}
    spec = GeoTIFFSpec(
        len(names),
        scene.dtype,
        names,
        nodata,
        colormap=_palette(places, scene.dtype) or None,
        colorinterp=_colours(places),
        scales=() if plain_numbers else scales,
        offsets=() if plain_numbers else offsets,
        tags=_tags(scene, sensor or known),
        compress=how,
        interleave='band',
        **_blocks(size),
    )
    assumed = None if alpha or known is None else known.nodata
    return ChipFormat(scene, tuple(bands), nodata, assumed, alpha, plain, size, spec)


def _declared(scene: Scene, bands: Sequence[str]) -> float | None:
    """The nodata value that chips declare."""
    stated = {repr(scene.file_of(band).nodata): scene.file_of(band).nodata for band in bands}
    if len(stated) > 1:
        return None
    (value,) = stated.values()
    if value is None and not any(map(is_auxiliary, bands)):
        value = scene.nodata
    return value if value is None or representable(value, scene.dtype) else None


def _colours(bands: Sequence[tuple[str, int]]) -> tuple[ColorInterp, ...]:
    """What each band is the colour of; nothing where that says no more than GDAL assumes by itself."""
    colours = tuple(pooled_raster(path).colorinterp[index - 1] for path, index in bands)
    return () if set(colours) <= {ColorInterp.gray, ColorInterp.undefined, ColorInterp.palette} else colours


def _palette(bands: Sequence[tuple[str, int]], dtype: np.dtype[Any]) -> dict[int, tuple[int, ...]]:
    """Colour of each value of a single band of bytes; that of 16 bits would be larger than the chip."""
    (path, index), *others = bands
    dataset = pooled_raster(path)
    if others or dtype != np.uint8 or dataset.colorinterp[index - 1] != ColorInterp.palette:
        return {}
    return dict(dataset.colormap(index))


def _tags(scene: Scene, sensor: Sensor | None) -> dict[str, str]:
    """The tags that chips keep, with the offset of Sentinel-2 where their names no longer tell it."""
    tags = {
        key: value
        for file in scene.files
        for key, value in file.tags.items()
        if key not in _OWN_TAGS and len(value) <= _LONGEST_TAG
    }
    if sensor is None or not sensor.name.startswith('sentinel2'):
        return tags
    path = f'images/{scene.name}_00000_00000.tif'
    chip = Scene(scene.name, (replace(scene.files[0], path=path, tags=tags),), date_of(path), scene.nodata)
    offset, _ = sentinel2_offset(scene)
    # The date may have been in the name of a folder only, the baseline in a long tag or in the path of the product.
    return tags if sentinel2_offset(chip)[0] == offset else tags | {'BOA_ADD_OFFSET': f'{offset:g}'}


def _blocks(size: int) -> dict[str, Any]:
    return {'blocksize': 256} if size > _ONE_BLOCK else {'blocksize': size, 'tiled': size % 16 == 0}


def encode_mask(mask: NDArray[np.uint8], grid: PixelGrid, how: Compression) -> bytes:
    """Make a GeoTIFF of a mask in memory.

    Args:
        mask: Classes, shape (height, width); 255, declared as nodata, is unlabelled.
        grid: Grid of the chip.
        how: Compression.

    Returns:
        The file's content.
    """
    spec = GeoTIFFSpec(
        1, 'uint8', ('class',), IGNORE, categorical=True, compress=how, interleave='band', **_blocks(grid.height)
    )
    return encode_geotiff(mask[None], grid, spec)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that is whole or absent; see the module for what a power cut can do.

    Args:
        path: Where to; its folder exists.
        content: What.

    Raises:
        OutputError: If it cannot be written, for example on a full disk.
    """
    temporary = path.with_name(f'.{path.name}.{os.getpid()}{TEMPORARY}')
    try:
        with open(temporary, 'wb', buffering=0) as file:
            write_all(file, content)
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        msg = (
            f'{path}: cannot be written ({error.strerror or error}); make room or choose another folder, and go on '
            'with the same command.'
        )
        raise OutputError(msg) from error


def write_all(file: FileIO, content: bytes) -> None:
    """Write all bytes; on a nearly full disk a part may be taken before the error comes.

    Args:
        file: Where to.
        content: What.

    Raises:
        OSError: If it cannot be written.
    """
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]
