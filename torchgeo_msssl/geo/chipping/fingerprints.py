"""Fingerprints of the input files of chips."""

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from torchgeo_msssl.geo.scene import Scene

if TYPE_CHECKING:  # labels import pandas and geopandas
    from torchgeo_msssl.geo.chipping.labels import ChipLabels

#: Path, size in bytes and modification time of each file, in order.
type Fingerprint = list[list[str | int]]


def fingerprint_of_scene(scene: Scene) -> Fingerprint:
    """Return the fingerprint of a scene's files with their sidecars."""
    return _fingerprint(path for file in scene.files for path in file.sources or (file.path,))


def fingerprint_of_labels(labels: 'ChipLabels | None') -> Fingerprint:
    """Return the fingerprint of the files of labels; empty without labels."""
    return [] if labels is None else _fingerprint(labels.source.files)


def fingerprint_of_split(split: str | None) -> Fingerprint:
    """Return the fingerprint of a file of regions; empty if the ground is not split by a file."""
    return [] if split is None or split in ('blocks', 'scenes') else _fingerprint([split])


def _fingerprint(paths: Iterable[str]) -> Fingerprint:
    found: Fingerprint = []
    for path in dict.fromkeys(paths):
        try:
            status = os.stat(os.path.expanduser(path))
        except OSError:  # a virtual path or a layer has only a name
            found.append([path, 0, 0])
        else:
            found.append([os.path.abspath(path), status.st_size, status.st_mtime_ns])
    return found
