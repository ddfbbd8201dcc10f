"""Encoding of chips as small GeoTIFFs that keep the metadata of their scene.

A chip is encoded in memory, written to a temporary file, and renamed, so that it is complete or absent. It is not
flushed to the disk, which would take several times as long as writing it. After a power cut a chip may be too short;
a resumed run finds it by its size.
"""

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

from torchgeo_msssl.bands import Sensor, infer_sensor, is_auxiliary
from torchgeo_msssl.errors import OutputError
from torchgeo_msssl.geo.chipping.options import IGNORE, Compression
from torchgeo_msssl.geo.discover import date_of
from torchgeo_msssl.geo.grid import PixelGrid, Window
from torchgeo_msssl.geo.nodata import representable, with_data
from torchgeo_msssl.geo.open_datasets import pooled_raster
from torchgeo_msssl.geo.scene import Scene, read_file
from torchgeo_msssl.geo.sentinel2 import GUESSED, sentinel2_offset
from torchgeo_msssl.geo.write import GeoTIFFSpec, encode_geotiff

#: Suffix of temporary files.
TEMPORARY = '.part'
#: Configuration options of GDAL for reading and writing chips.
ENVIRONMENT = {'GDAL_TIFF_INTERNAL_MASK': 'YES'}
#: Largest side of a chip that is stored as one block; larger chips have blocks of 256 pixels.
_ONE_BLOCK = 512
#: Longest tag that chips keep; longer ones, such as whole metadata files, would be larger than the chip.
_LONGEST_TAG = 1000
#: Tags that GDAL derives from the georeference.
_OWN_TAGS = frozenset({'AREA_OR_POINT'})


@dataclass(frozen=True)
class ChipFormat:
    """Format of the chips of one scene.

    Attributes:
        scene: The scene.
        bands: Canonical names of its bands, in the order written.
        nodata: Value declared as nodata, or None.
        assumed: Value that readers treat as nodata if none is declared (that of the sensor), or None.
        alpha: Whether chips have an alpha band, the last one.
        plain: Whether the declared nodata value alone decides which pixels are valid.
        spec: Bands, metadata and storage of the files.
    """

    scene: Scene
    bands: tuple[str, ...]
    nodata: float | None
    assumed: float | None
    alpha: bool
    plain: bool
    spec: GeoTIFFSpec = field(hash=False)

    def read(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Read the bands and the valid pixels of a chip, see :meth:`~torchgeo_msssl.geo.scene.Scene.read`."""
        return self.scene.read(window, self.bands)

    def encode(self, image: NDArray[Any], valid: NDArray[np.bool_], window: Window) -> bytes:
        """Encode a chip as a GeoTIFF.

        Args:
            image: Pixels, shape (band, height, width).
            valid: Valid pixels, shape (height, width).
            window: Window of the chip on the scene's grid.

        Returns:
            Content of the file.
        """
        pixels = np.concatenate([image, self._alpha(valid, window)]) if self.alpha else image
        mask = None if self.alpha or self._is_valid_known(image, valid) else valid
        return encode_geotiff(pixels, self.scene.grid.cut(window), self.spec, mask)

    def _is_valid_known(self, image: NDArray[Any], valid: NDArray[np.bool_]) -> bool:
        """Whether readers find the valid pixels of the chip without a mask."""
        if self.plain:
            return True
        if self.nodata is None and not valid.all():  # other programs do not know the nodata value of a sensor
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
    """Determine the format of the chips of a scene.

    Chips declare the nodata value of the scene, or that of its sensor (0 for Sentinel-2) unless a quality layer, in
    which it is an ordinary value, is among the bands. If no value marks the invalid pixels (masks, padding of scenes
    without nodata), a chip has an internal mask.

    Args:
        scene: Scene.
        bands: Canonical names.
        sensor: Its sensor, or None if unknown.
        size: Side of a chip in pixels.
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
        colorinterp=_colours(places, alpha),
        scales=() if plain_numbers else scales,
        offsets=() if plain_numbers else offsets,
        tags=_tags(scene, sensor or known),
        compress=how,
        interleave='band',
        **_blocks(size),
    )
    assumed = None if alpha or known is None else known.nodata
    return ChipFormat(scene, tuple(bands), nodata, assumed, alpha, plain, spec)


def _declared(scene: Scene, bands: Sequence[str]) -> float | None:
    """The nodata value that chips declare."""
    stated = {repr(scene.file_of(band).nodata): scene.file_of(band).nodata for band in bands}
    if len(stated) > 1:
        return None
    (value,) = stated.values()
    if value is None and not any(map(is_auxiliary, bands)):
        value = scene.nodata
    return value if value is None or representable(value, scene.dtype) else None


def _colours(bands: Sequence[tuple[str, int]], has_alpha: bool) -> tuple[ColorInterp, ...]:
    """Colour interpretation of each band; empty if GDAL would assume the same."""
    colours = tuple(pooled_raster(path).colorinterp[index - 1] for path, index in bands)
    if not has_alpha:  # a spectral band that is marked as alpha
        colours = tuple(ColorInterp.undefined if colour == ColorInterp.alpha else colour for colour in colours)
    return () if set(colours) <= {ColorInterp.gray, ColorInterp.undefined, ColorInterp.palette} else colours


def _palette(bands: Sequence[tuple[str, int]], dtype: np.dtype[Any]) -> dict[int, tuple[int, ...]]:
    """Colour map of a single uint8 band; one of 16 bits would be larger than the chip."""
    (path, index), *others = bands
    dataset = pooled_raster(path)
    if others or dtype != np.uint8 or dataset.colorinterp[index - 1] != ColorInterp.palette:
        return {}
    return dict(dataset.colormap(index))


def _tags(scene: Scene, sensor: Sensor | None) -> dict[str, str]:
    """Tags that chips keep, with the offset of Sentinel-2 if it does not follow from their names."""
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
    offset, reason = sentinel2_offset(scene)
    found, found_reason = sentinel2_offset(chip)
    # the date may be only in the name of a folder, and the baseline only in a long tag or in the path of the product
    is_same = found == offset and (GUESSED in found_reason) == (GUESSED in reason)
    return tags if is_same else tags | {'BOA_ADD_OFFSET': f'{offset:g}'}


def _blocks(size: int) -> dict[str, Any]:
    return {'blocksize': 256} if size > _ONE_BLOCK else {'blocksize': size, 'tiled': size % 16 == 0}


def encode_mask(mask: NDArray[np.uint8], grid: PixelGrid, how: Compression) -> bytes:
    """Encode a mask as a GeoTIFF.

    Args:
        mask: Classes, shape (height, width), 255 (declared as nodata) for unlabelled pixels.
        grid: Grid of the chip.
        how: Compression.

    Returns:
        Content of the file.
    """
    spec = GeoTIFFSpec(
        1, 'uint8', ('class',), IGNORE, categorical=True, compress=how, interleave='band', **_blocks(grid.height)
    )
    return encode_geotiff(mask[None], grid, spec)


def write_complete(path: Path, content: bytes) -> None:
    """Write a file that is complete or absent, except after a power cut, see the module.

    Args:
        path: Path, whose folder exists.
        content: Content.

    Raises:
        OutputError: If the file cannot be written, for example because the disk is full.
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
            f'{path}: cannot be written ({error.strerror or error}); free disk space or choose another folder, '
            'then run the same command to resume.'
        )
        raise OutputError(msg) from error


def write_all(file: FileIO, content: bytes) -> None:
    """Write all bytes; if the disk is nearly full, one call may write only some of them.

    Args:
        file: Unbuffered file.
        content: Content.

    Raises:
        OSError: If the content cannot be written.
    """
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]
