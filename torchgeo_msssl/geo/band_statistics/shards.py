"""Files with the counts of shards of scenes, from which their statistics are computed together.

A table of counts per pair of scale and offset describes integers of at most 16 bits completely, so that the statistics
of merged tables are those of a single run to the last bit. Wider values are counted in a second pass that depends on
the first pass over all scenes, and have no such files.
"""

import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.files import atomic_path
from torchgeo_msssl.geo.band_statistics.histograms import is_narrow
from torchgeo_msssl.geo.band_statistics.summary import ValueCounts
from torchgeo_msssl.geo.chipping.fingerprints import fingerprint_of_scene
from torchgeo_msssl.geo.radiometry import Radiometry
from torchgeo_msssl.geo.scene import Scene
from torchgeo_msssl.shards import Shard


def check_narrow(scenes: Sequence[Scene]) -> None:
    """Check that the values of scenes can be counted in shards.

    Args:
        scenes: The scenes.

    Raises:
        ConfigurationError: If a scene has other values than integers of at most 16 bits.
    """
    for scene in scenes:
        if not is_narrow(scene.dtype):
            raise ConfigurationError(
                f'shard: expected integers of at most 16 bits, whose counts can be merged, and {scene.path} is '
                f'{scene.dtype.name}; leave shard out, and set num_workers to the number of CPUs instead.'
            )


def identity(scenes: Sequence[Scene], bands: Sequence[str], radiometries: Sequence[Radiometry]) -> dict[str, Any]:
    """Return what counts depend on, as plain values.

    Args:
        scenes: All scenes, of every shard.
        bands: Canonical names.
        radiometries: Scale and offset of each scene.
    """
    found = {
        'bands': list(bands),
        'scenes': [[scene.path, fingerprint_of_scene(scene)] for scene in scenes],
        'radiometries': [[how.scale, how.offset] for how in radiometries],
    }
    plain: dict[str, Any] = json.loads(json.dumps(found))
    return plain


def shard_path(target: Path, shard: Shard) -> Path:
    """Return the path of the counts of a shard, next to the statistics."""
    return target.with_name(f'{target.stem}.{shard.file_part}.npz')


def write_counts(path: Path, counts: ValueCounts, depends_on: Mapping[str, Any], skipped: Sequence[str] = ()) -> None:
    """Write the counts of a shard.

    Args:
        path: See :func:`shard_path`; the file appears complete or not at all.
        counts: The counts.
        depends_on: See :func:`identity`.
        skipped: Paths of scenes of the shard that could not be read and are not counted.

    Raises:
        OutputError: If the file cannot be written.
    """
    header = {'depends_on': depends_on, 'keys': list(counts.tables), 'pixels': counts.pixels, 'skipped': list(skipped)}
    tables: dict[str, Any] = {f'table_{i}': table for i, table in enumerate(counts.tables.values())}
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, header=np.array(json.dumps(header)), band_pixels=counts.band_pixels, **tables)


def find_shards(target: Path) -> list[Path]:
    """Find the complete set of shards next to a statistics file.

    Args:
        target: The statistics file.

    Returns:
        Paths in the order of the shards.

    Raises:
        ConfigurationError: If there is none, shards are missing, or there are shards of several divisions.
    """
    pattern = re.compile(re.escape(target.stem) + r'\.(\d+)-of-(\d+)\.npz')
    matches = [match for path in target.parent.glob('*.npz') if (match := pattern.fullmatch(path.name))]
    found = {Shard(int(match[1]), int(match[2])) for match in matches}
    counts = sorted({shard.count for shard in found})
    if not counts:
        raise ConfigurationError(
            f'merge: there is no {target.with_suffix("")}.i-of-n.npz; run `statistics` with --shard i/n and the same '
            'output first.'
        )
    if len(counts) > 1:
        several = ' and '.join(map(str, counts))
        raise ConfigurationError(f'merge: {target.parent} holds shards of {several} parts; remove those not meant.')
    every = [Shard(index, counts[0]) for index in range(1, counts[0] + 1)]
    missing = [str(shard) for shard in every if shard not in found]
    if missing:
        raise ConfigurationError(f'merge: shard {", ".join(missing)} of {target} is missing; run it, then merge again.')
    return [shard_path(target, shard) for shard in every]


def read_counts(paths: Sequence[Path], depends_on: Mapping[str, Any]) -> tuple[ValueCounts, list[str]]:
    """Read and add the counts of all shards.

    Args:
        paths: See :func:`find_shards`.
        depends_on: See :func:`identity`.

    Returns:
        The counts of all scenes, and the paths of those that could not be read.

    Raises:
        ConfigurationError: If a file is damaged, or of other scenes, bands or offsets.
    """
    total: ValueCounts | None = None
    skipped: list[str] = []
    for path in paths:
        try:
            with np.load(path, allow_pickle=False) as content:
                header = json.loads(str(content['header']))
                keys = [(tuple(scale), tuple(offset)) for scale, offset in header['keys']]
                tables = {key: content[f'table_{i}'] for i, key in enumerate(keys)}
                counts = ValueCounts(tables, content['band_pixels'], header['pixels'])
                skipped += header['skipped']
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ConfigurationError(
                f'merge: {path} cannot be read ({error}); run that shard again with --overwrite.'
            ) from error
        if header['depends_on'] != depends_on:
            changed = [name for name, value in depends_on.items() if header['depends_on'].get(name) != value]
            raise ConfigurationError(
                f'merge: {path} was measured with other {", ".join(changed)}; give the same scenes and options, or run '
                'that shard again with --overwrite.'
            )
        total = counts if total is None else total.merge(counts)
    assert total is not None
    return total, skipped
