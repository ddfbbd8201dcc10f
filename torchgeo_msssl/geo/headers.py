"""Open scenes: read the headers of their files."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from rasterio.enums import ColorInterp
from rasterio.io import DatasetReader

from torchgeo_msssl.bands import Sensor, band_position, canonical_band_name, infer_sensor
from torchgeo_msssl.errors import BandError, MissingCRSError, SceneReadError
from torchgeo_msssl.geo.alpha import alpha_bands, described_name, doubtful_alpha, is_masked
from torchgeo_msssl.geo.bad_scenes import BadScenes
from torchgeo_msssl.geo.discover import date_of, find_files, group_files
from torchgeo_msssl.geo.foreign_files import without_repeats
from torchgeo_msssl.geo.grid import PixelGrid
from torchgeo_msssl.geo.header_cache import HeaderCache
from torchgeo_msssl.geo.nodata import representable
from torchgeo_msssl.geo.open_datasets import open_raster
from torchgeo_msssl.geo.plain_images import ignore_missing_georeference, image_grid, place_images
from torchgeo_msssl.geo.scene import BandFile, Scene
from torchgeo_msssl.geo.truncation import check_complete
from torchgeo_msssl.geo.unplaced import how_to_place
from torchgeo_msssl.shards import Shard

log = logging.getLogger(__name__)

_COLOURS = {ColorInterp.red: 'red', ColorInterp.green: 'green', ColorInterp.blue: 'blue', ColorInterp.nir: 'nir'}
_RGB = ['blue', 'green', 'red']


def find_scenes(
    paths: Any, sensor: Sensor | None = None, plain: bool = False, bad: BadScenes | None = None
) -> list[Scene]:
    """Open all scenes at paths.

    Args:
        paths: Files, folders or patterns, see :func:`~torchgeo_msssl.geo.discover.find_files`.
        sensor: Names unnamed bands if the number of bands agrees.
        plain: Accept images without a CRS, see :mod:`~torchgeo_msssl.geo.plain_images`.
        bad: What to do about scenes that cannot be opened, or whose files were cut short; None raises if one cannot be
            opened.

    Returns:
        Scenes in the order of their paths, without single bands whose stack is among them.

    Raises:
        ScenesNotFoundError: If there are no files.
        MissingCRSError: If a scene has no CRS, unless ``plain`` is set and none has one.
        BandError: If bands cannot be named.
        SceneReadError: If a file cannot be opened, or none can be.
    """
    bad = bad or BadScenes()
    found = find_files(paths)
    cache = HeaderCache(found)
    if plain:
        ignore_missing_georeference()
    scenes: list[Scene] = []
    for name, files in group_files(found):
        with bad.guard():
            scene = open_scene(name, files, sensor, cache, plain)
            if bad.skip:
                check_complete(scene)
            scenes.append(scene)
    cache.save()
    if not scenes:
        raise bad.errors[0]
    _question_alpha(scenes)
    scenes = without_repeats(scenes)
    return place_images(scenes) if plain else scenes


def own_scenes(scenes: Sequence[Scene], paths: Any, *shards: Shard | None) -> list[Scene]:
    """Select the scenes of a shard.

    The files are divided, and not the scenes that could be opened: a file that one machine cannot read changes nothing
    for the others.

    Args:
        scenes: Opened scenes.
        paths: Files, folders or patterns, at which they were found.
        *shards: The shard, and the part of it that belongs to a rank; None for all scenes.

    Returns:
        Its scenes, in the same order.
    """
    divided = [shard for shard in shards if shard is not None]
    if not divided:
        return list(scenes)
    groups: Sequence[tuple[str, dict[str, str] | str]] = group_files(find_files(paths))
    for shard in divided:
        groups = shard.of(groups)
    own = {file for _, files in groups for file in ([files] if isinstance(files, str) else files.values())}
    return [scene for scene in scenes if scene.path in own]


def _question_alpha(scenes: Sequence[Scene]) -> None:
    """Warn if the first alpha band seems to be a spectral one; scenes that are opened together are mostly alike."""
    file = next((file for scene in scenes for file in scene.files if 'alpha' in file.names), None)
    index = doubtful_alpha(file) if file is not None else None
    if file is not None and index is not None:
        log.warning(
            '%s: band %d is marked as alpha and masks pixels, but many of its values are neither opaque nor clear; if '
            'it is a spectral band, describe it (`rio edit-info --bidx %d --description nir`) or set `sensor` to one '
            'of %d bands.',
            file.path,
            index,
            index,
            len(file.names),
        )


def open_scene(
    name: str,
    files: str | dict[str, str],
    sensor: Sensor | None = None,
    cache: HeaderCache | None = None,
    plain: bool = False,
) -> Scene:
    """Open a scene from the headers of its files.

    Args:
        name: Short name.
        files: The multi-band file, or single-band files by band name.
        sensor: Names unnamed bands if the number of bands agrees.
        cache: Known headers; new ones are added.
        plain: Accept an image without a CRS.

    Returns:
        The scene.

    Raises:
        MissingCRSError: If it has no CRS, unless ``plain`` is set.
        BandError: If bands cannot be named.
        SceneReadError: If a file cannot be opened, or the band files do not cover the same area.
    """
    members = [(None, files)] if isinstance(files, str) else list(files.items())
    described = [_cached(path, sensor, band, cache, plain) for band, path in members]
    if len(described) > 1:
        _check_band_files(described)
        described.sort(key=lambda file: (file.grid.res, min(map(band_position, _spectral(file.names)))))
    first = described[0]
    nodata = next((file.nodata for file in described if file.nodata is not None), None)
    if nodata is None and not any(file.masked for file in described):
        names = [band for file in described for band in file.names]
        known = sensor or infer_sensor(names, name)
        nodata = known.nodata if known else None
    return Scene(name, tuple(described), date_of(first.path), nodata)


def _cached(path: str, sensor: Sensor | None, band: str | None, cache: HeaderCache | None, plain: bool) -> BandFile:
    if cache is None:
        return describe_file(path, sensor, band, plain)
    options = (sensor.names if sensor else None, band, plain)
    file = cache.find(path, options)
    if file is None:
        file = describe_file(path, sensor, band, plain)
        cache.keep(options, file)
    return file


def describe_file(path: str, sensor: Sensor | None = None, band: str | None = None, plain: bool = False) -> BandFile:
    """Read the header of a raster file.

    Args:
        path: Local or virtual path.
        sensor: Names unnamed bands if the number of bands agrees.
        band: Name of its only band, from the file name.
        plain: Accept an image without a CRS.

    Returns:
        The header.

    Raises:
        MissingCRSError: If it has no CRS, unless ``plain`` is set.
        BandError: If bands cannot be named.
        SceneReadError: If it cannot be opened.
    """
    with open_raster(path) as dataset:
        if dataset.crs is None and not plain:
            remedy = how_to_place(path)
            msg = f'{path}: has no coordinate reference system, which maps and labels by place need; {remedy}.'
            raise MissingCRSError(msg)
        if dataset.crs is not None and dataset.transform.is_identity:
            msg = f'{path}: has a coordinate reference system but no geotransform; set one with `rio edit-info`.'
            raise MissingCRSError(msg)
        alpha = alpha_bands(dataset, sensor)
        if band is not None and dataset.count - sum(alpha) == 1:
            names = tuple('alpha' if is_alpha else band for is_alpha in alpha)
        else:
            names = name_bands(dataset, sensor)
        dtype = dtype_of(dataset, names)
        return BandFile(
            path=path,
            grid=_grid_of(dataset),
            names=names,
            dtype=str(dtype),
            nodata=_nodata_of(dataset, names, dtype),
            masked=is_masked(dataset, [name == 'alpha' for name in names]),
            block_shape=dataset.block_shapes[0],
            scales=tuple(dataset.scales),
            offsets=tuple(dataset.offsets),
            tags=dict(dataset.tags()),
            sources=tuple(dataset.files) or (path,),
        )


def _grid_of(dataset: DatasetReader) -> PixelGrid:
    if dataset.crs is None:
        return image_grid(dataset.height, dataset.width)
    return PixelGrid(dataset.crs, dataset.transform, dataset.height, dataset.width)


def dtype_of(dataset: DatasetReader, names: Sequence[str]) -> np.dtype[Any]:
    """Return the dtype that holds the values of all bands but alpha.

    Args:
        dataset: Open dataset.
        names: Names of its bands.

    Raises:
        SceneReadError: If its numbers are not real.
    """
    kinds = [np.dtype(kind) for kind, name in zip(dataset.dtypes, names, strict=True) if name != 'alpha']
    dtype = np.result_type(*kinds)
    if dtype.kind not in 'iuf':
        msg = f'{dataset.name}: has {dtype} bands, which are not supported; write real numbers, such as the amplitude.'
        raise SceneReadError(msg)
    return dtype


def _nodata_of(dataset: DatasetReader, names: Sequence[str], dtype: np.dtype[Any]) -> float | None:
    declared = [value for value, name in zip(dataset.nodatavals, names, strict=True) if name != 'alpha']
    if len({repr(value) for value in declared}) > 1:
        msg = f'{dataset.name}: has different nodata values for its bands ({declared}); set one value for all bands.'
        raise SceneReadError(msg)
    if declared[0] is not None and not representable(declared[0], dtype):
        log.warning('%s: ignored its nodata value %s, which %s cannot represent.', dataset.name, declared[0], dtype)
        return None
    return declared[0]


def _spectral(names: Sequence[str]) -> list[str]:
    return [name for name in names if name != 'alpha']


def name_bands(dataset: DatasetReader, sensor: Sensor | None) -> tuple[str, ...]:
    """Name the bands of an open dataset.

    Names come from the band descriptions; or else from the sensor if the number of bands agrees; or else, without a
    sensor, from the colour interpretation if that has red, green and blue. Other bands are named ``band_1``,
    ``band_2``, … A description such as ``Band 3`` is not a name.

    Args:
        dataset: Open dataset.
        sensor: The sensor that the user named, or None.

    Returns:
        Canonical names in file order, ``alpha`` for an alpha band.

    Raises:
        BandError: If the sensor has another number of bands, or two bands have the same name.
    """
    alpha = alpha_bands(dataset, sensor)
    spectral = [i for i in range(dataset.count) if not alpha[i]]
    if not spectral:
        raise BandError(f'{dataset.name}: has only alpha bands.')
    described = [described_name(dataset.descriptions[i]) for i in spectral]
    if all(described):
        found = [canonical_band_name(name) for name in described]
    elif sensor is not None and len(sensor.names) == len(spectral):
        found = list(sensor.names)
    elif sensor is not None:
        msg = (
            f'{dataset.name}: its {len(spectral)} bands have no names and sensor {sensor.name} has '
            f'{len(sensor.names)} ({", ".join(sensor.names)}); set band descriptions in the file, or choose the right '
            'sensor.'
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
        raise BandError(f'{dataset.name}: has only alpha bands.')
    names = iter(found)
    return tuple('alpha' if is_alpha else next(names) for is_alpha in alpha)


def _check_band_files(files: Sequence[BandFile]) -> None:
    first = files[0]
    for file in files:
        if len(_spectral(file.names)) != 1:
            msg = (
                f'{file.path}: has {len(file.names)} bands but the name of a single band of a scene; '
                'give multi-band files a name that does not end in a band.'
            )
            raise BandError(msg)
        between = ~first.grid.transform @ file.grid.transform
        turned = max(abs(between.b) * file.grid.height, abs(between.d) * file.grid.width) > 0.1
        apart = max(abs(a - b) for a, b in zip(file.grid.bounds, first.grid.bounds, strict=True))
        if file.grid.crs != first.grid.crs or turned or apart > max(*file.grid.res, *first.grid.res):
            msg = (
                f'{file.path} and {first.path}: are bands of the same scene by name, but their CRS or extents differ '
                f'({file.grid.crs}, {file.grid.bounds}; {first.grid.crs}, {first.grid.bounds}); rename one.'
            )
            raise SceneReadError(msg)
