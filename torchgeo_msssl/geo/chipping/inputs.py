"""Scenes that chips are cut from."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rasterio.crs import CRS
from rasterio.errors import CRSError

from torchgeo_msssl.bands import Sensor, get_sensor, infer_sensor
from torchgeo_msssl.errors import ConfigurationError, SceneReadError
from torchgeo_msssl.geo.band_choice import choose_bands
from torchgeo_msssl.geo.chipping.options import ChipOptions
from torchgeo_msssl.geo.discover import find_files, group_files
from torchgeo_msssl.geo.foreign_files import without_repeats
from torchgeo_msssl.geo.headers import open_scene
from torchgeo_msssl.geo.open_datasets import is_remote
from torchgeo_msssl.geo.scene import Scene
from torchgeo_msssl.geo.truncation import check_complete
from torchgeo_msssl.geo.warp import warp_scene


@dataclass(frozen=True)
class Inputs:
    """Opened scenes.

    Attributes:
        scenes: The scenes, warped if a CRS or resolution is set.
        bands: Canonical names of the bands to write.
        sensor: Their sensor, or None if unknown.
        sources: Path of each scene by name, failed ones included; the folder if a scene has several files.
        files: Paths of the files of each scene by name, failed ones included.
        failed: Reason why a scene could not be opened, by its name.
    """

    scenes: tuple[Scene, ...]
    bands: tuple[str, ...]
    sensor: Sensor | None
    sources: dict[str, str]
    files: dict[str, tuple[str, ...]]
    failed: dict[str, str]


def open_inputs(paths: Sequence[str], options: ChipOptions, output: Path | None = None) -> Inputs:
    """Open the scenes at some paths, and check that they fit each other.

    Args:
        paths: Files, folders or patterns.
        options: Bands, sensor, CRS and resolution.
        output: Folder that chips are written into; files in it are not read as scenes.

    Returns:
        The scenes. Those that cannot be opened are left out and listed, unless none can be opened.

    Raises:
        ScenesNotFoundError: If nothing is at a path.
        ConfigurationError: If a scene is given twice, two have one name, all lie in the output folder, or the CRS is
            unknown.
        MissingCRSError: If a scene has no CRS.
        BandError: If bands are missing or cannot be named.
        SceneReadError: If no scene can be opened.
    """
    named = get_sensor(options.sensor) if options.sensor else None
    _check_given_once(paths)
    scenes: list[Scene] = []
    failed: dict[str, SceneReadError] = {}
    groups = group_files(_outside(find_files(paths), output))
    for name, files in groups:
        try:
            scene = open_scene(name, files, named)
            check_complete(scene)
            scenes.append(scene)
        except SceneReadError as error:
            failed[name] = error
    if not scenes:
        raise next(iter(failed.values()))
    kept = without_repeats(scenes)
    dropped = {scene.path for scene in scenes} - {scene.path for scene in kept}
    scenes = kept
    groups = [(name, files) for name, files in groups if dropped.isdisjoint(_listed(files))]
    _check_names(scenes)
    bands = choose_bands(scenes, options.bands)
    sensor = named or infer_sensor(scenes[0].bands, scenes[0].path)
    warped = tuple(_warped(scene, options) for scene in scenes)
    sources = {name: absolute(_source(files)) for name, files in groups}
    listed = {name: tuple(map(absolute, _listed(files))) for name, files in groups}
    return Inputs(warped, bands, sensor, sources, listed, {name: str(error) for name, error in failed.items()})


def absolute(path: str) -> str:
    """Return the absolute path of a local file, and the path of a remote one as it is."""
    return path if is_remote(path) else os.path.abspath(os.path.expanduser(path))


def _source(files: str | dict[str, str]) -> str:
    return files if isinstance(files, str) else os.path.commonpath(list(files.values()))


def _listed(files: str | dict[str, str]) -> list[str]:
    return [files] if isinstance(files, str) else list(files.values())


def _outside(files: list[str], folder: Path | None) -> list[str]:
    """Files that are not in a folder."""
    if folder is None:
        return files
    inside = os.path.join(os.path.realpath(folder), '')
    outside = [file for file in files if is_remote(file) or not os.path.realpath(file).startswith(inside)]
    if not outside:
        msg = f'output: all scenes, such as {files[0]}, lie in {folder}; write the chips into a folder without scenes.'
        raise ConfigurationError(msg)
    return outside


def _check_given_once(paths: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for path in paths:
        for file in find_files(path):
            real = file if is_remote(file) else os.path.realpath(file)
            if real in seen:
                msg = f'paths: {file} is given twice (by {seen[real]!r} and {path!r}); name each scene once.'
                raise ConfigurationError(msg)
            seen[real] = path


def _check_names(scenes: Sequence[Scene]) -> None:
    first: dict[str, Scene] = {}
    for scene in scenes:
        other = first.setdefault(scene.name, scene)
        if other is not scene:
            msg = (
                f'paths: {other.path} and {scene.path} are both called {scene.name!r}, so their chips would be too; '
                'rename one, or chip them into different folders.'
            )
            raise ConfigurationError(msg)


def _warped(scene: Scene, options: ChipOptions) -> Scene:
    """The scene warped to the CRS and resolution of the options; without them on its own grid, even a rotated one."""
    if options.crs is None and options.res is None:
        return scene
    try:
        crs = scene.grid.crs if options.crs is None else CRS.from_user_input(options.crs)
    except CRSError as error:
        msg = f'crs: {options.crs!r} is not a coordinate reference system; give one such as EPSG:32631.'
        raise ConfigurationError(msg) from error
    return warp_scene(scene, crs, None if options.res is None else (options.res, options.res))


def common_dtype(scenes: Sequence[Scene]) -> np.dtype[np.generic]:
    """Return the dtype that holds the pixels of all scenes without loss."""
    return np.result_type(*(scene.dtype for scene in scenes))
