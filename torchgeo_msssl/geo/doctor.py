"""Examine scenes before they are used: what will be slow, what will be wrong, and what mends it."""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader

from torchgeo_msssl.bands import Sensor, canonical_band_name
from torchgeo_msssl.errors import MissingCRSError, MSSSLError
from torchgeo_msssl.geo.checks.consistency import check_together
from torchgeo_msssl.geo.checks.finding import Finding
from torchgeo_msssl.geo.checks.interpretation import check_bands, check_values, sensor_of
from torchgeo_msssl.geo.checks.pixels import check_border, check_finite, look_at
from torchgeo_msssl.geo.checks.placement import check_placement, check_sidecars, check_turned
from torchgeo_msssl.geo.checks.storage import check_storage, check_whole, damaged
from torchgeo_msssl.geo.discover import find_files, group_files
from torchgeo_msssl.geo.headers import name_bands, open_scene
from torchgeo_msssl.geo.open_datasets import open_raster
from torchgeo_msssl.geo.scene import Scene

_SEVERITIES = ('wrong', 'slow', 'note')


def examine(
    paths: Any,
    bands: Sequence[str] | None = None,
    sensor: Sensor | None = None,
    measured: bool = True,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Finding]:
    """Examine scenes one by one and together.

    Args:
        paths: Files, folders or patterns.
        bands: Bands that will be used, by canonical name; None for all.
        sensor: The sensor, where the files do not tell.
        measured: Whether to read random chips of each file and tell by what factor it is slow.
        on_progress: Called with the files done and their number.

    Returns:
        Findings, what is wrong first.

    Raises:
        ScenesNotFoundError: If nothing is there.
        BandError: If two files are the same band of one scene by their names.
    """
    files = find_files(paths)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', NotGeoreferencedWarning)  # that is a finding
        found = _examine_files(files, bands, sensor, measured, on_progress)
    return sorted(found, key=lambda finding: _SEVERITIES.index(finding.severity))


def _examine_files(
    files: Sequence[str],
    bands: Sequence[str] | None,
    sensor: Sensor | None,
    measured: bool,
    on_progress: Callable[[int, int], None] | None,
) -> list[Finding]:
    scenes, found = _open_scenes(files, sensor)
    assumed = {file.path: scene.nodata for scene in scenes for file in scene.files if file.nodata is None}
    unreadable = {path for finding in found if finding.topic == 'damaged' for path in finding.files}
    classes = []
    for done, path in enumerate(files, start=1):
        if path not in unreadable:
            more, is_classes = _examine_file(path, bands, sensor, measured, assumed.get(path))
            found.extend(more)
            classes += [path] if is_classes else []
        if on_progress:
            on_progress(done, len(files))
    unreadable = {path for finding in found if finding.topic == 'damaged' for path in finding.files}
    if classes:
        message = 'Look(s) like a map of classes: what is to be known of pictures was not looked for.'
        found.append(Finding('note', 'classes', message, tuple(classes)))
    unreadable.update(classes)
    sound = [scene for scene in scenes if unreadable.isdisjoint(file.path for file in scene.files)]
    for scene in sound:
        missing = [band for band in bands or () if band not in scene.bands]
        if missing:
            message = f'Lacks bands that are wanted: {", ".join(missing)}.'
            found.append(Finding('wrong', 'missing_bands', message, (scene.path,), f'has {", ".join(scene.bands)}'))
        found.extend(_examine_scene(scene, sensor, measured))
    with _messages():
        found.extend(check_together(sound, sensor))
    return found


def _open_scenes(files: Sequence[str], sensor: Sensor | None) -> tuple[list[Scene], list[Finding]]:
    """The scenes that can be opened, and findings of those that cannot, and of what was noticed on the way."""
    scenes: list[Scene] = []
    found: list[Finding] = []
    for name, grouped in group_files(files):
        members = (grouped,) if isinstance(grouped, str) else tuple(grouped.values())
        with _messages() as messages:
            try:
                scenes.append(open_scene(name, grouped, sensor))
            except MissingCRSError:
                pass  # told of the file itself, with what mends it
            except MSSSLError as error:
                found.extend(_unopened(members, error))
        found += [Finding('note', 'noticed', 'Was noticed when it was opened.', members, text) for text in messages]
    return scenes, found


def _unopened(members: tuple[str, ...], error: MSSSLError) -> Iterator[Finding]:
    broken = []
    for path in members:
        try:
            open_raster(path).close()
        except MSSSLError as cause:
            broken.append(damaged(path, cause.__cause__ or cause))
    yield from broken or [Finding('wrong', 'unusable', 'Cannot be used as a scene.', members, str(error))]


def _examine_file(
    path: str, bands: Sequence[str] | None, sensor: Sensor | None, measured: bool, assumed: float | None
) -> tuple[list[Finding], bool]:
    """Findings of one file, and whether it looks like a map of classes."""
    found: list[Finding] = []
    try:
        with open_raster(path) as dataset:
            found += check_whole(path, dataset)
            if found:
                return found, False
            found += check_placement(path, dataset)
            found += check_sidecars(path, dataset)
            indexes = _indexes(dataset, bands, sensor)
            look = look_at(dataset, _indexes(dataset, None, sensor))
            found += check_border(path, dataset, look, assumed)
            found += check_finite(path, dataset, look)
            found += check_storage(path, dataset, indexes, measured)
    except (RasterioError, MSSSLError, OSError) as error:
        return [damaged(path, error)], False
    return found, look.is_classes


def _indexes(dataset: DatasetReader, bands: Sequence[str] | None, sensor: Sensor | None) -> list[int]:
    """GDAL's numbers of the bands that are wanted, or of all but alpha where there are none of these names."""
    colours = [i for i, colour in zip(dataset.indexes, dataset.colorinterp, strict=True) if colour != ColorInterp.alpha]
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
    with _messages():  # what radiometry warns of is a finding
        try:
            found += check_turned(scene, measured)
            found += check_values(scene, known)
        except MSSSLError as error:
            found.append(Finding('wrong', 'unusable', 'Cannot be used as a scene.', (scene.path,), str(error)))
    return found


@contextmanager
def _messages() -> Iterator[list[str]]:
    """Collect the warnings of the package's log instead of showing them."""
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
