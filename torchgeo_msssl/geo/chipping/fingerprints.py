"""Fingerprints of the input files of chips."""

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from torchgeo_msssl.geo.chipping.options import LabelOptions
from torchgeo_msssl.geo.scene import BandFile, Scene

if TYPE_CHECKING:  # what labels need takes long to import
    from torchgeo_msssl.geo.chipping.labels import ChipLabels

#: Path, bytes and time of the last change of each file, in order.
type State = list[list[str | int]]

#: The files of a Shapefile beside its geometries.
_BESIDE_SHAPES = ('.dbf', '.shx', '.prj', '.cpg')


def state_of_scene(scene: Scene) -> State:
    """The state of a scene's files with their sidecars."""
    return _state_of_rasters(scene.files)


def state_of_labels(labels: 'ChipLabels | None', options: LabelOptions | None) -> State:
    """The state of the files that masks are made from.

    Args:
        labels: The labels, or None.
        options: Where they come from, or None.

    Returns:
        The state of mask rasters, or of vector files with that of the surveyed ground; empty without labels.
    """
    if labels is None or options is None:
        return []
    from torchgeo_msssl.geo.labels.raster import MaskRasters
    from torchgeo_msssl.geo.vector.files import split_layer

    if isinstance(labels.source, MaskRasters):
        return _state_of_rasters(labels.source.files)
    paths = [*labels.source.paths, *([options.extent] if options.extent else [])]
    return _state([file for path in paths for file in _of_vector(split_layer(path)[0])])


def _state_of_rasters(files: Iterable[BandFile]) -> State:
    return _state(path for file in files for path in file.sources or (file.path,))


def _of_vector(path: str) -> list[str]:
    """A vector file with what belongs to it; SQLite keeps changes of an open GeoPackage in a file beside it."""
    stem, suffix = os.path.splitext(path)
    beside = [f'{path}-wal', *(f'{stem}{other}' for other in _BESIDE_SHAPES if suffix.lower() == '.shp')]
    return [path, *filter(os.path.exists, beside)]


def _state(paths: Iterable[str]) -> State:
    states: State = []
    for path in dict.fromkeys(paths):
        try:
            status = os.stat(os.path.expanduser(path))
        except OSError:  # a virtual path, or a layer: its name has to do
            states.append([path, 0, 0])
        else:
            states.append([os.path.abspath(path), status.st_size, status.st_mtime_ns])
    return states
