"""Fingerprints of the input files of chips."""

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from torchgeo_msssl.geo.scene import BandFile, Scene

if TYPE_CHECKING:  # what labels need takes long to import
    from torchgeo_msssl.geo.chipping.labels import ChipLabels

#: Path, bytes and time of the last change of each file, in order.
type State = list[list[str | int]]


def state_of_scene(scene: Scene) -> State:
    """The state of a scene's files with their sidecars."""
    return _state_of_rasters(scene.files)


def state_of_labels(labels: 'ChipLabels | None') -> State:
    """Return the state of the files that masks are made from; empty without labels."""
    return [] if labels is None else _state(labels.source.files)


def state_of_split(split: str | None) -> State:
    """The state of the file of regions; empty where the ground is split otherwise."""
    return [] if split in (None, 'blocks', 'scenes') else _state([split])


def _state_of_rasters(files: Iterable[BandFile]) -> State:
    return _state(path for file in files for path in file.sources or (file.path,))


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
