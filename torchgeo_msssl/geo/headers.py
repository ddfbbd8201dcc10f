"""Find out what scenes are, from the headers of their files."""

import logging
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.io import DatasetReader

from torchgeo_msssl.bands import Sensor, band_position, canonical_band_name, infer_sensor
from torchgeo_msssl.errors import BandError, MissingCRSError, SceneReadError
from torchgeo_msssl.geo.discover import date_of, find_files, group_files
from torchgeo_msssl.geo.grid import PixelGrid
from torchgeo_msssl.geo.header_cache import HeaderCache
from torchgeo_msssl.geo.open_datasets import open_raster
from torchgeo_msssl.geo.scene import BandFile, Scene, representable

log = logging.getLogger(__name__)

_COLOURS = {ColorInterp.red: 'red', ColorInterp.green: 'green', ColorInterp.blue: 'blue', ColorInterp.nir: 'nir'}
_RGB = ['blue', 'green', 'red']
#: Descriptions that number a band and do not name it.
_NUMBER_ONLY = re.compile(r'(?:band|layer)[\s_]*\d+', re.IGNORECASE)


def find_scenes(paths: Any, sensor: Sensor | None = None) -> list[Scene]:
    """Open every scene at some paths, once, and note what it is.

    Args:
        paths: Files, folders or patterns, see :func:`~torchgeo_msssl.geo.discover.find_files`.
        sensor: Gives unnamed bands their names where the counts agree.

    Returns:
        Scenes in the order of their paths.

    Raises:
        ScenesNotFoundError: If nothing is there.
        MissingCRSError: If a scene has no CRS.
        BandError: If bands cannot be named.
        SceneReadError: If a file cannot be opened.
    """
    found = find_files(paths)
    index = HeaderCache(found)
    scenes = [open_scene(name, files, sensor, index) for name, files in group_files(found)]
    index.save()
    return scenes


def open_scene(
    name: str, files: str | dict[str, str], sensor: Sensor | None = None, index: HeaderCache | None = None
) -> Scene:
    """Note what a scene is, from the headers of its files.

    Args:
        name: Short name.
        files: The multi-band file, or single-band files by band name.
        sensor: Gives unnamed bands their names where the counts agree.
        index: Headers that are known already; takes those that are not.

    Returns:
        The scene.

    Raises:
        MissingCRSError: If it has no CRS.
        BandError: If bands cannot be named.
        SceneReadError: If a file cannot be opened, or its band files do not lie on one place.
    """
    if isinstance(files, str):
        described = [_described(files, sensor, None, index)]
    elif len(files) == 1:
        (band, path), *_ = files.items()
        described = [_described(path, sensor, band, index)]
    else:
        described = [_described(path, sensor, band, index) for band, path in files.items()]
        _check_together(described)
        described.sort(key=lambda file: (file.grid.res, min(map(band_position, _spectral(file.names)))))
    first = described[0]
    nodata = next((file.nodata for file in described if file.nodata is not None), None)
    if nodata is None and not any(file.masked for file in described):
        names = [band for file in described for band in file.names]
        known = sensor or infer_sensor(names, name)
        nodata = known.nodata if known else None
    return Scene(name, tuple(described), date_of(first.path), nodata)


def _described(path: str, sensor: Sensor | None, band: str | None, index: HeaderCache | None) -> BandFile:
    asked = (sensor.names if sensor else None, band)
    file = index.find(path, asked) if index is not None else None
    if file is None:
        file = describe_file(path, sensor, band)
        if index is not None:
            index.keep(asked, file)
    return file


def describe_file(path: str, sensor: Sensor | None = None, band: str | None = None) -> BandFile:
    """Note what a raster file is, from its header.

    Args:
        path: Local or virtual path.
        sensor: Gives unnamed bands their names where the counts agree.
        band: Name of its only band, where the file's own name tells it.

    Returns:
        The description.

    Raises:
        MissingCRSError: If it has no CRS.
        BandError: If bands cannot be named.
        SceneReadError: If it cannot be opened.
    """
    with open_raster(path) as dataset:
        if dataset.crs is None:
            msg = (
                f'{path}: has no coordinate reference system, so it cannot be placed on the ground; '
                'assign one, for example with `gdal_edit.py -a_srs EPSG:32631`.'
            )
            raise MissingCRSError(msg)
        if dataset.transform.is_identity:
            msg = (
                f'{path}: has a coordinate reference system but no geotransform, so it cannot be placed on the ground; '
                'assign its corners, for example with `gdal_edit.py -a_ullr`.'
            )
            raise MissingCRSError(msg)
        alpha = [interp == ColorInterp.alpha for interp in dataset.colorinterp]
        if band is not None and dataset.count - sum(alpha) == 1:
            names = tuple('alpha' if is_alpha else band for is_alpha in alpha)
        else:
            names = name_bands(dataset, sensor)
        dtype = dtype_of(dataset, names)
        return BandFile(
            path=path,
            grid=PixelGrid(dataset.crs, dataset.transform, dataset.height, dataset.width),
            names=names,
            dtype=str(dtype),
            nodata=_nodata_of(dataset, names, dtype),
            masked='alpha' in names or any(map(is_masked, dataset.mask_flag_enums)),
            block_shape=dataset.block_shapes[0],
            scales=tuple(dataset.scales),
            offsets=tuple(dataset.offsets),
            tags=dict(dataset.tags()),
            sources=tuple(dataset.files) or (path,),
        )


def dtype_of(dataset: DatasetReader, names: Sequence[str]) -> np.dtype[Any]:
    """The type that holds the values of all bands but alpha.

    Args:
        dataset: Open dataset.
        names: Names of its bands.

    Returns:
        The type.

    Raises:
        SceneReadError: If it is none of real numbers.
    """
    kinds = [np.dtype(kind) for kind, name in zip(dataset.dtypes, names, strict=True) if name != 'alpha']
    dtype = np.result_type(*kinds)
    if dtype.kind not in 'iuf':
        msg = f'{dataset.name}: holds {dtype} numbers, and bands have to be real; write amplitude or parts as bands.'
        raise SceneReadError(msg)
    return dtype


def _nodata_of(dataset: DatasetReader, names: Sequence[str], dtype: np.dtype[Any]) -> float | None:
    declared = [value for value, name in zip(dataset.nodatavals, names, strict=True) if name != 'alpha']
    if len({repr(value) for value in declared}) > 1:
        msg = f'{dataset.name}: declares other nodata values for other bands ({declared}); give all bands one value.'
        raise SceneReadError(msg)
    if declared[0] is not None and not representable(declared[0], dtype):
        log.warning('%s: declares nodata %s, which %s cannot hold: ignored.', dataset.name, declared[0], dtype)
        return None
    return declared[0]


def is_masked(flags: Sequence[MaskFlags]) -> bool:
    """Whether a band's mask is stored (for all bands or for itself) and does not just follow from its nodata."""
    return MaskFlags.per_dataset in flags or not {MaskFlags.all_valid, MaskFlags.nodata}.intersection(flags)


def _spectral(names: Sequence[str]) -> list[str]:
    return [name for name in names if name != 'alpha']


def name_bands(dataset: DatasetReader, sensor: Sensor | None) -> tuple[str, ...]:
    """Name the bands of an open dataset.

    Names come from the band descriptions; else from the sensor's list where the counts agree; else, without a
    sensor, from the colour interpretation where that has red, green and blue; ``band_1``, ``band_2``, … are left.
    A description such as ``Band 3`` is a number and no name.

    Args:
        dataset: Open dataset.
        sensor: The sensor the user named, or None.

    Returns:
        Canonical names in file order, ``alpha`` for an alpha band.

    Raises:
        BandError: If a sensor was named and its band count differs, or two bands have one name.
    """
    alpha = [interp == ColorInterp.alpha for interp in dataset.colorinterp]
    spectral = [i for i in range(dataset.count) if not alpha[i]]
    if not spectral:
        raise BandError(f'{dataset.name}: has no band but alpha.')
    described = [_description(dataset.descriptions[i]) for i in spectral]
    if all(described):
        found = [canonical_band_name(name) for name in described]
    elif sensor is not None and len(sensor.names) == len(spectral):
        found = list(sensor.names)
    elif sensor is not None:
        msg = (
            f'{dataset.name}: its {len(spectral)} bands have no names and sensor {sensor.name} has '
            f'{len(sensor.names)} ({", ".join(sensor.names)}); name them in the file (band descriptions) or choose '
            'the sensor that made it.'
        )
        raise BandError(msg)
    else:
        colours = [_COLOURS.get(dataset.colorinterp[i], '') for i in spectral]
        coloured = not any(described) and sorted(filter(None, colours)) in (_RGB, sorted([*_RGB, 'nir']))
        known = colours if coloured else [canonical_band_name(name) for name in described]
        found = [name or f'band_{n}' for n, name in enumerate(known, start=1)]
    if len(set(found)) < len(found):
        twice = sorted({name for name in found if found.count(name) > 1})
        raise BandError(f'{dataset.name}: two bands are named {", ".join(twice)}; rename one of them.')
    if set(found) == {'alpha'}:
        raise BandError(f'{dataset.name}: has no band but alpha.')
    names = iter(found)
    return tuple('alpha' if is_alpha else next(names) for is_alpha in alpha)


def _description(text: str | None) -> str:
    text = (text or '').strip()
    return '' if _NUMBER_ONLY.fullmatch(text) else text


def _check_together(files: Sequence[BandFile]) -> None:
    first = files[0]
    for file in files:
        if len(_spectral(file.names)) != 1:
            msg = (
                f'{file.path}: has {len(file.names)} bands where its name says it is one band of a scene; '
                'give multi-band files a name that does not end in a band.'
            )
            raise BandError(msg)
        between = ~first.grid.transform @ file.grid.transform
        turned = max(abs(between.b) * file.grid.height, abs(between.d) * file.grid.width) > 0.1
        apart = max(abs(a - b) for a, b in zip(file.grid.bounds, first.grid.bounds, strict=True))
        if file.grid.crs != first.grid.crs or turned or apart > max(*file.grid.res, *first.grid.res):
            msg = (
                f'{file.path} and {first.path}: are bands of one scene by their names, yet their CRS or extents differ '
                f'({file.grid.crs}, {file.grid.bounds} against {first.grid.crs}, {first.grid.bounds}).'
            )
            raise SceneReadError(msg)
