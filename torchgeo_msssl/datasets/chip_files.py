"""Files of chips, each read as a small scene.

GeoTIFFs have band names and a nodata value; they need no georeference, and neither do JPEG and PNG. NumPy's ``.npy``
files have no names, so those of their bands are given, and the axis of the bands where their number does not tell it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.io import DatasetReader

from torchgeo_msssl.bands import Sensor, canonical_band_name, infer_sensor
from torchgeo_msssl.errors import BandError, ConfigurationError, SceneReadError
from torchgeo_msssl.geo.alpha import is_masked
from torchgeo_msssl.geo.discover import ARRAY_SUFFIX, IMAGE_SUFFIXES, date_of
from torchgeo_msssl.geo.grid import PixelGrid, Window
from torchgeo_msssl.geo.headers import dtype_of, name_bands
from torchgeo_msssl.geo.labels.classes import UNLABELLED, Classes, unlabelled_values
from torchgeo_msssl.geo.nodata import with_data
from torchgeo_msssl.geo.open_datasets import pooled_raster
from torchgeo_msssl.geo.scene import BandFile, Scene

#: Axis of the bands in a ``.npy`` file.
Channels = Literal['first', 'last']

SUFFIXES = ('.tif', '.tiff', ARRAY_SUFFIX, *sorted(IMAGE_SUFFIXES))


class ChipFile(NamedTuple):
    """A chip on disk.

    Attributes:
        image: Its file.
        mask: File of its mask, or None.
        scene: Name of the scene it was cut from; chips of a scene have the same scale and offset.
        source: Path with the scene's date and product.
    """

    image: str
    mask: str | None
    scene: str
    source: str


@dataclass(frozen=True)
class ArrayLayout:
    """What files may not say.

    Attributes:
        channels: Axis of the bands in a ``.npy`` file, None if not given.
        names: Names of the bands in order, empty if not given.
    """

    channels: Channels | None = None
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class ArrayScene(Scene):
    """A chip in a ``.npy`` file.

    Attributes:
        layout: Layout of its array.
    """

    layout: ArrayLayout = field(default_factory=ArrayLayout)

    def _read_inside(self, window: Window, bands: Sequence[str]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        (file,) = self.files
        array = load_array(file.path, self.layout.channels, len(file.names))
        rows, cols = slice(window.row, window.row + window.height), slice(window.col, window.col + window.width)
        image = np.stack([array[file.index(band) - 1, rows, cols] for band in bands]).astype(self.dtype, copy=False)
        valid = with_data(image, bands, None, self.nodata)
        if file.masked:
            valid &= array[file.index('alpha') - 1, rows, cols] > 0
        return image, valid


def load_array(path: str, channels: Channels | None, count: int | None = None) -> NDArray[Any]:
    """Memory-map a ``.npy`` file without executing anything in it.

    Args:
        path: The file.
        channels: Axis of the bands among three; two axes are one band. None for the only one, first or last, that is
            as long as there are bands.
        count: Number of bands, None if unknown.

    Returns:
        Shape (band, height, width).

    Raises:
        SceneReadError: If it is not a complete file of real numbers with two or three axes.
        ConfigurationError: If there are three axes, and neither ``channels`` nor ``count`` tells that of the bands.
    """
    try:
        array: NDArray[Any] = np.load(path, mmap_mode='r', allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        cause = (str(error) or type(error).__name__).splitlines()[0]
        msg = f'{path}: cannot be read as an array ({cause}); repair or remove the file.'
        raise SceneReadError(msg) from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in 'biuf' or array.ndim not in (2, 3):
        found = f'{array.dtype} {array.shape}' if isinstance(array, np.ndarray) else 'an archive of several arrays'
        msg = f'{path}: expected real numbers (band, height, width) or (height, width), got {found}; convert the file.'
        raise SceneReadError(msg)
    array = array.view(np.uint8) if array.dtype.kind == 'b' else array
    if array.ndim == 2:
        return array[None]
    if channels is None and (count == array.shape[0]) != (count == array.shape[2]):
        channels = 'first' if count == array.shape[0] else 'last'
    if channels is None:
        msg = (
            f'channels: {path} has the shape {array.shape}; set it to the axis of the bands, first or last, or name '
            'the bands with sensor or band_names.'
        )
        raise ConfigurationError(msg)
    return array if channels == 'first' else np.moveaxis(array, -1, 0)


def open_chip(path: str, sensor: Sensor | None, layout: ArrayLayout, name: str = '', source: str = '') -> Scene:
    """Read the header of a chip.

    Args:
        path: GeoTIFF or ``.npy`` file.
        sensor: Sensor that names unnamed bands if the counts agree.
        layout: What files may not say.
        name: Name of the scene it was cut from.
        source: Path with the date of that scene.

    Returns:
        The chip as a scene.

    Raises:
        BandError: If bands cannot be named.
        SceneReadError: If the file is damaged.
        ConfigurationError: If the axis of the bands in an array is unknown.
    """
    is_array = path.lower().endswith(ARRAY_SUFFIX)
    file = (
        _describe_array(path, sensor, layout)
        if is_array
        else _describe_raster(pooled_raster(path), path, sensor, layout)
    )
    nodata = file.nodata
    if nodata is None and not file.masked:  # as in geo.headers for scenes
        known = sensor or infer_sensor(file.names, name)
        nodata = known.nodata if known else None
    date = date_of(source) if source else None
    if is_array:
        return ArrayScene(name, (file,), date, nodata, layout)
    return Scene(name, (file,), date, nodata, filled=True)  # as in Scenes


def _describe_raster(dataset: DatasetReader, path: str, sensor: Sensor | None, layout: ArrayLayout) -> BandFile:
    """Describe an open raster, which may have no georeference."""
    names = name_bands(dataset, sensor) if not layout.names else _renamed(name_bands(dataset, None), path, layout.names)
    first = next(i for i, name in enumerate(names) if name != 'alpha')
    return BandFile(
        path=path,
        grid=PixelGrid(dataset.crs or CRS(), dataset.transform, dataset.height, dataset.width),
        names=names,
        dtype=dtype_of(dataset, names).name,
        nodata=dataset.nodatavals[first],
        masked=is_masked(dataset, [name == 'alpha' for name in names]),
        block_shape=dataset.block_shapes[0],
        scales=tuple(dataset.scales),
        offsets=tuple(dataset.offsets),
        tags=dict(dataset.tags()),
    )


def _renamed(names: Sequence[str], path: str, given: Sequence[str]) -> tuple[str, ...]:
    """Name unnamed bands; named ones have to agree."""
    own = [name for name in names if name != 'alpha']
    wanted = [canonical_band_name(name) for name in given]
    numbered = [f'band_{n}' for n in range(1, len(own) + 1)]
    if len(own) != len(wanted) or any(n not in (w, number) for n, w, number in zip(own, wanted, numbered, strict=True)):
        msg = f'{path}: has the bands {", ".join(own)}, and {", ".join(wanted)} are expected; correct band_names.'
        raise BandError(msg)
    rest = iter(wanted)
    return tuple('alpha' if name == 'alpha' else next(rest) for name in names)


def _describe_array(path: str, sensor: Sensor | None, layout: ArrayLayout) -> BandFile:
    names = tuple(canonical_band_name(name) for name in layout.names) or (sensor.names if sensor else ())
    array = load_array(path, layout.channels, len(names) or None)
    count, height, width = array.shape
    if names and len(names) != count:
        whose = 'band_names' if layout.names else f'sensor {sensor.name if sensor else ""}'
        msg = f'{path}: has {count} bands and {whose} {len(names)} ({", ".join(names)}); name those of the file.'
        raise BandError(msg)
    names = names or tuple(f'band_{n}' for n in range(1, count + 1))
    return BandFile(
        path=path,
        grid=PixelGrid(CRS(), Affine.identity(), height, width),
        names=names,
        dtype=array.dtype.name,
        nodata=None,
        masked='alpha' in names,
        block_shape=(height, width),
        scales=(1.0,) * count,
        offsets=(0.0,) * count,
        tags={},
    )


def check_alike(chip: Scene, first: Scene, dtype: np.dtype[Any]) -> None:
    """Raise unless a chip can be in one batch with the first one.

    Args:
        chip: A chip.
        first: The first chip.
        dtype: Dtype that has to hold its values without loss.

    Raises:
        BandError: If it has other bands.
        SceneReadError: If it has another size or dtype.
    """
    if chip.bands != first.bands:
        msg = (
            f'{chip.path}: has the {len(chip.bands)} band(s) {", ".join(chip.bands)} and the first chip, {first.path}, '
            f'has {len(first.bands)} ({", ".join(first.bands)}); keep chips of other bands in another folder.'
        )
        raise BandError(msg)
    own, other = ((scene.grid.height, scene.grid.width) for scene in (chip, first))
    if own != other or not np.can_cast(chip.dtype, dtype, 'safe'):
        msg = (
            f'{chip.path}: has {own[0]} × {own[1]} pixels of {chip.dtype} and the first chip, {first.path}, has '
            f'{other[0]} × {other[1]} of {first.dtype}; chips of one folder need the same size and dtype.'
        )
        raise SceneReadError(msg)


def read_mask(
    path: str, chip: Scene, window: Window, classes: Classes | None, unlabelled: tuple[int, ...] = (UNLABELLED,)
) -> NDArray[np.int64]:
    """Read the mask of a chip.

    Args:
        path: GeoTIFF or ``.npy`` file (height, width).
        chip: The chip.
        window: Window on the chip.
        classes: Classes of the values; None accepts every value.
        unlabelled: Values that mean unlabelled.

    Returns:
        Shape (height, width), the value of unlabelled pixels where the mask has nodata.

    Raises:
        ConfigurationError: If the mask has several bands, or a value that is not a class.
        SceneReadError: If it has another size than the chip, or is damaged.
    """
    mask = open_chip(path, None, ArrayLayout('first'))
    if len(mask.bands) != 1:
        msg = f'{path}: has {len(mask.bands)} bands, and a mask has one, of class values; give the mask.'
        raise ConfigurationError(msg)
    own, other = ((s.grid.height, s.grid.width) for s in (mask, chip))
    if own != other:
        msg = f'{path}: has {own[0]} × {own[1]} pixels and its image, {chip.path}, {other[0]} × {other[1]}; correct it.'
        raise SceneReadError(msg)
    image, labelled = mask.read(window, mask.bands)
    ignore_index, _ = unlabelled_values(unlabelled)
    if classes is not None and classes.values is not None:
        found, labelled = classes.of_pixels(image[0], labelled, path)
        return np.where(labelled, found, ignore_index).astype(np.int64)
    labelled &= ~np.isin(image[0], unlabelled)
    class_names = classes.names if classes is not None else ()
    values = np.where(labelled, image[0].astype(np.float64), ignore_index)
    most = len(class_names) or np.inf
    known = (values >= 0) & (values < most) & (values == np.floor(values)) | (values == ignore_index)
    if not known.all():
        unknown = ', '.join(f'{value:g}' for value in np.unique(values[~known])[:10])
        expected = 'classes are integers from 0'
        if class_names:
            expected = f'class_names ({", ".join(class_names)}) has 0 to {len(class_names) - 1}'
        remedy = 'add the names' if class_names else 'recode the mask'
        msg = (
            f'{path}: holds the value(s) {unknown}, and {expected}; {remedy}, or set ignore_index to those that mean '
            'unlabelled.'
        )
        raise ConfigurationError(msg)
    return values.astype(np.int64)
