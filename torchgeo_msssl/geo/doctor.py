"""Check scenes before training: find what is wrong or slow, and how to fix it."""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader

from torchgeo_msssl.bands import Sensor, canonical_band_name
from torchgeo_msssl.errors import MissingCRSError, MSSSLError
from torchgeo_msssl.geo.alpha import alpha_bands
from torchgeo_msssl.geo.checks.consistency import check_consistency
from torchgeo_msssl.geo.checks.finding import Finding
from torchgeo_msssl.geo.checks.interpretation import check_bands, check_values, sensor_of
from torchgeo_msssl.geo.checks.pixels import check_border, check_collar, check_finite, sample_pixels
from torchgeo_msssl.geo.checks.placement import check_placement, check_sidecars, check_turned
from torchgeo_msssl.geo.checks.storage import check_storage, check_truncation, damaged
from torchgeo_msssl.geo.discover import find_files, group_files
from torchgeo_msssl.geo.foreign_files import repeated_bands
from torchgeo_msssl.geo.headers import name_bands, open_scene
from torchgeo_msssl.geo.open_datasets import open_raster
from torchgeo_msssl.geo.scene import Scene
from torchgeo_msssl.geo.unplaced import is_raw_frame

_SEVERITIES = ('error', 'slow', 'note')


def examine(
    paths: Any,
    bands: Sequence[str] | None = None,
    sensor: Sensor | None = None,
    measured: bool = True,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Finding]:
    """Check scenes one by one and together.

    Args:
        paths: Files, folders or patterns.
        bands: Bands that will be used, by canonical name; None for all.
        sensor: Sensor of files that do not identify it.
        measured: Whether to measure the time to read random chips of each file.
        on_progress: Called with the number of files done and the number of all files.

    Returns:
        Findings, ``error`` ones first.

    Raises:
        ScenesNotFoundError: If there is no file.
        BandError: If the names of two files give the same band of one scene.
    """
    files = find_files(paths)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', NotGeoreferencedWarning)  # reported as a finding
        found = _examine_files(files, bands, sensor, measured, on_progress)
    return sorted(found, key=lambda finding: _SEVERITIES.index(finding.severity))


def _examine_files(
    files: Sequence[str],
    bands: Sequence[str] | None,
    sensor: Sensor | None,
    measured: bool,
    on_progress: Callable[[int, int], None] | None,
) -> list[Finding]:
    raw = [path for path in files if _is_raw(path)]
    files = [path for path in files if path not in raw]
    scenes, found = _open_scenes(files, sensor)
    found += _raw_frames(raw)
    assumed = {file.path: scene.nodata for scene in scenes for file in scene.files if file.nodata is None}
    unreadable = {path for finding in found if finding.topic == 'damaged' for path in finding.files}
    # a band file of a larger scene may hold few values, such as one of cirrus clouds
    bands_of_scenes = {file.path for scene in scenes if len(scene.files) > 1 for file in scene.files}
    classes = []
    for done, path in enumerate(files, start=1):
        if path not in unreadable:
            more, is_classes = _examine_file(path, bands, sensor, measured, assumed.get(path))
            found.extend(more)
            classes += [path] if is_classes and path not in bands_of_scenes else []
        if on_progress:
            on_progress(done, len(files))
    unreadable = {path for finding in found if finding.topic == 'damaged' for path in finding.files}
    unreadable.update(classes)
    found += _class_maps(classes, scenes)
    sound = [scene for scene in scenes if unreadable.isdisjoint(file.path for file in scene.files)]
    for scene in sound:
        missing = [band for band in bands or () if band not in scene.bands]
        if missing:
            message = f'The scene lacks bands given with --bands: {", ".join(missing)}.'
            found.append(Finding('error', 'missing_bands', message, (scene.path,), f'has {", ".join(scene.bands)}'))
        found.extend(_examine_scene(scene, sensor, measured))
    with _captured_warnings():
        found.extend(check_consistency(sound, sensor))
    return found


def _is_raw(path: str) -> bool:
    try:
        with open_raster(path) as dataset:
            return is_raw_frame(dataset)
    except MSSSLError:  # found again, with its reason
        return False


def _raw_frames(paths: Sequence[str]) -> Iterator[Finding]:
    """Report the frames of a camera once, instead of all that they lack."""
    if paths:
        message = (
            'These are raw frames of a camera: build an orthomosaic first (OpenDroneMap, Metashape, Pix4D). '
            'Pretraining could read them, each as ground of its own.'
        )
        yield Finding('error', 'raw_frames', message, tuple(paths))


def _class_maps(classes: Sequence[str], scenes: Sequence[Scene]) -> Iterator[Finding]:
    """Report maps of classes, as an error among scenes of several bands, which cannot be read with them."""
    images = [scene.path for scene in scenes if len(scene.bands) > 1]
    if classes and images:
        message = (
            'The file looks like labels among scenes of several bands, with which it cannot be read: move it to '
            'another folder, or choose the scenes with a quoted pattern.'
        )
        yield Finding('error', 'labels_among_scenes', message, tuple(classes), f'scenes such as {images[0]}')
    elif classes:
        message = 'The file looks like a map of classes; the checks of images were skipped.'
        yield Finding('note', 'classes', message, tuple(classes))


def _repeats(scenes: Sequence[Scene]) -> tuple[list[Scene], list[Finding]]:
    """Return the scenes that are read, and findings about single bands next to their stack, which are not."""
    repeats = repeated_bands(scenes)
    message = 'Another scene holds the same bands of the same ground; the pixels are read once, and these are left out.'
    found = [
        Finding('note', 'repeated_bands', message, tuple(file.path for file in scenes[drop].files), scenes[keep].path)
        for drop, keep in repeats.items()
    ]
    return [scene for i, scene in enumerate(scenes) if i not in repeats], found


def _open_scenes(files: Sequence[str], sensor: Sensor | None) -> tuple[list[Scene], list[Finding]]:
    """Return the scenes that can be opened, and findings about those that cannot and about warnings."""
    scenes: list[Scene] = []
    found: list[Finding] = []
    for name, grouped in group_files(files):
        members = (grouped,) if isinstance(grouped, str) else tuple(grouped.values())
        with _captured_warnings() as messages:
            try:
                scenes.append(open_scene(name, grouped, sensor))
            except MissingCRSError:
                pass  # found again by check_placement, with remedies
            except MSSSLError as error:
                found.extend(_unopened(members, error))
        found += [Finding('note', 'warning', 'Opening the scene gave a warning.', members, text) for text in messages]
    scenes, repeats = _repeats(scenes)
    return scenes, found + repeats


def _unopened(members: tuple[str, ...], error: MSSSLError) -> Iterator[Finding]:
    broken = []
    for path in members:
        try:
            open_raster(path).close()
        except MSSSLError as cause:
            broken.append(damaged(path, cause.__cause__ or cause))
    yield from broken or [Finding('error', 'unusable', 'The file cannot be used as a scene.', members, str(error))]


def _examine_file(
    path: str, bands: Sequence[str] | None, sensor: Sensor | None, measured: bool, assumed: float | None
) -> tuple[list[Finding], bool]:
    """Return findings about one file, and whether it looks like a map of classes."""
    found: list[Finding] = []
    try:
        with open_raster(path) as dataset:
            found += check_truncation(path)
            if found:
                return found, False
            found += check_placement(path, dataset)
            found += check_sidecars(path, dataset)
            indexes = _indexes(dataset, bands, sensor)
            sample = sample_pixels(dataset, _indexes(dataset, None, sensor))
            found += check_border(path, dataset, sample, assumed)
            found += check_collar(path, dataset, sample)
            found += check_finite(path, dataset, sample)
            found += check_storage(path, dataset, indexes, measured)
    except (RasterioError, MSSSLError, OSError) as error:
        return [damaged(path, error)], False
    return found, sample.is_classes


def _indexes(dataset: DatasetReader, bands: Sequence[str] | None, sensor: Sensor | None) -> list[int]:
    """Return the indexes of bands by name, or of all bands but alpha if none has these names."""
    alpha = alpha_bands(dataset, sensor)
    colours = [i for i, is_alpha in zip(dataset.indexes, alpha, strict=True) if not is_alpha]
    if bands is None:
        return colours or list(dataset.indexes)
    try:
        names = name_bands(dataset, sensor)
    except MSSSLError:
        return colours
    return [i for i, name in zip(dataset.indexes, names, strict=True) if canonical_band_name(name) in bands] or colours


def _examine_scene(scene: Scene, sensor: Sensor | None, measured: bool) -> list[Finding]:
    known = sensor_of(scene, sensor)
    found = list(check_bands(scene, known))
    with _captured_warnings():  # they are found again by check_values
        try:
            found += check_turned(scene, measured)
            found += check_values(scene, known)
        except MSSSLError as error:
            found.append(Finding('error', 'unusable', 'The file cannot be used as a scene.', (scene.path,), str(error)))
    return found


@contextmanager
def _captured_warnings() -> Iterator[list[str]]:
    """Collect the warnings of the package's loggers instead of showing them."""
    texts: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: texts.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger('torchgeo_msssl')
    propagated = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield texts
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagated
