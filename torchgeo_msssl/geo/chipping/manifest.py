"""Manifest and summary of a folder of chips.

They depend neither on the time, nor on the order in which chips were written, nor on the number of processes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS

from torchgeo_msssl.files import atomic_path, write_json
from torchgeo_msssl.geo.band_statistics.moments import BandStatistics
from torchgeo_msssl.geo.chipping.cutting import Job, Outcome
from torchgeo_msssl.geo.chipping.inputs import Inputs, common_dtype
from torchgeo_msssl.geo.chipping.options import ALL, IGNORE
from torchgeo_msssl.geo.chipping.progress_log import GEOJSON, MANIFEST, SUMMARY
from torchgeo_msssl.geo.chipping.split import Split, footprints
from torchgeo_msssl.geo.ground.file import write_split
from torchgeo_msssl.geo.ground.parts import SPLIT_FILE
from torchgeo_msssl.geo.scene import Scene
from torchgeo_msssl.geo.vector.antimeridian import cut_at_antimeridian

if TYPE_CHECKING:
    from torchgeo_msssl.geo.chipping.labels import ChipLabels

#: Numbers or texts; None for a column without values.
type Column = NDArray[Any] | list[str] | None

#: Increase when the meaning of a column or entry changes.
FORMAT = 2


@dataclass(frozen=True)
class Content:
    """Content of a folder of chips.

    Attributes:
        job: The job that wrote the chips.
        inputs: The scenes.
        options: Options as plain values.
        chips: The chips that were kept, in order.
        counts: Number of windows, of chips kept, and of windows left out by reason.
        split: Result of the split, or None.
        failed: Reason why a scene could not be read, by its name.
    """

    job: Job
    inputs: Inputs
    options: dict[str, Any]
    chips: tuple[Outcome, ...]
    counts: dict[str, int]
    split: Split | None
    failed: dict[str, str]


def write_manifest(content: Content, geojson: bool) -> None:
    """Write ``chips.parquet``, ``split.geojson``, with ``geojson`` ``chips.geojson``, and ``summary.json`` last.

    Args:
        content: Content of the folder.
        geojson: Whether to write the footprints as GeoJSON too, in longitude and latitude.

    Raises:
        OutputError: If a file cannot be written.
    """
    _write_parquet(content)
    if content.split is not None:
        write_split(content.job.folder / SPLIT_FILE, content.split.regions, content.split.crs)
    if geojson:
        write_geojson(content.job.folder)
    write_json(content.job.folder / SUMMARY, summary(content))


def _write_parquet(content: Content) -> None:
    """Write the table as GeoParquet."""
    import geopandas as gpd  # imported here: it takes longer than a small scene
    import pandas as pd

    scenes = content.job.scenes
    crs = manifest_crs(scenes)
    shapes = footprints([outcome.chip for outcome in content.chips], scenes, crs)
    empty = pd.array([None] * len(shapes), dtype='string')
    table = {name: empty if values is None else values for name, values in columns(content).items()}
    frame = gpd.GeoDataFrame(table, geometry=shapes, crs=crs.to_wkt())
    with atomic_path(content.job.folder / MANIFEST) as temporary:
        frame.to_parquet(temporary, index=False, compression='zstd')


def write_geojson(folder: Path) -> None:
    """Write the footprints of a manifest as GeoJSON.

    Args:
        folder: The folder.

    Raises:
        OutputError: If the file cannot be written.
    """
    import geopandas as gpd  # imported here: it takes longer than a small scene

    frame = gpd.read_parquet(folder / MANIFEST)
    frame = frame.to_crs('EPSG:4326')
    frame = frame.set_geometry(cut_at_antimeridian(frame.geometry.to_numpy(), frame.crs)[0], crs=frame.crs)
    with atomic_path(folder / GEOJSON) as temporary:
        frame.to_file(temporary, driver='GeoJSON', index=False)


def manifest_crs(scenes: Sequence[Scene]) -> CRS:
    """Return the CRS of footprints: that of the scenes if all have the same, else longitude and latitude."""
    first = scenes[0].grid.crs
    return first if all(scene.grid.crs == first for scene in scenes) else CRS.from_epsg(4326)


def columns(content: Content) -> dict[str, Column]:
    """Return the columns except the footprint, one row per chip, in the order of scene, row and column."""
    job, scenes, outcomes = content.job, content.job.scenes, content.chips
    chips = [outcome.chip for outcome in outcomes]
    virtual = job.options.virtual
    table: dict[str, Column] = {
        'scene': [scenes[chip.scene].name for chip in chips],
        'source': [content.inputs.sources[scenes[chip.scene].name] for chip in chips],
        **{
            side: np.array([getattr(chip.window, side) for chip in chips], dtype=np.int32)
            for side in ('row', 'col', 'height', 'width')
        },
        'split': [chip.part for chip in chips],
        'image': None if virtual else [job.image(chip) for chip in chips],
        'mask': None if virtual or job.labels is None else [job.mask(chip) for chip in chips],
    }
    facts = [outcome.facts for outcome in outcomes if outcome.facts is not None]
    area = job.options.chip_size**2
    table['valid_fraction'] = np.array([fact.valid for fact in facts]) / area
    for value, name in enumerate(job.labels.class_names if job.labels else ()):
        table[f'fraction_{name}'] = np.array([fact.classes[value] for fact in facts]) / area
    return table


def summary(content: Content) -> dict[str, Any]:
    """Return the content of ``summary.json``."""
    job, inputs = content.job, content.inputs
    scenes, options = job.scenes, job.options
    res = {scene.grid.res for scene in scenes}
    nodata = {form.nodata for form in job.formats}
    return {
        'format': FORMAT,
        'options': content.options,
        'virtual': options.virtual,
        'chip_size': options.chip_size,
        'bands': list(inputs.bands),
        'sensor': inputs.sensor.name if inputs.sensor else None,
        'dtype': common_dtype(scenes).name,
        'nodata': nodata.pop() if len(nodata) == 1 else None,
        'crs': manifest_crs(scenes).to_string(),
        'res': list(res.pop()) if len(res) == 1 else None,
        'counts': content.counts,
        'splits': {part: _part(content, part) for part in options.parts},
        'scenes': {scene.name: _scene(content, i) for i, scene in enumerate(scenes)},
        'labels': labels_entry(job.labels, content.options) if job.labels else None,
        'statistics': _statistics(content),
        'gap': _gap(content.split),
        'failed': content.failed,
    }


def _part(content: Content, part: str) -> dict[str, Any]:
    chips = [outcome for outcome in content.chips if outcome.chip.part == part]
    names = [content.job.scenes[outcome.chip.scene].name for outcome in chips]
    entry: dict[str, Any] = {'chips': len(chips), 'scenes': {name: names.count(name) for name in sorted(set(names))}}
    if content.job.labels is not None:
        counts = [outcome.facts.classes for outcome in chips if outcome.facts is not None]
        pixels = np.array(counts, dtype=np.int64).reshape(len(counts), -1).sum(axis=0).tolist()
        pixels = pixels or [0] * len(content.job.labels.class_names)
        total = max(sum(pixels), 1)
        entry['classes'] = {
            name: {'pixels': count, 'share': count / total}
            for name, count in zip(content.job.labels.class_names, pixels, strict=True)
        }
    return entry


def _scene(content: Content, index: int) -> dict[str, Any]:
    scene, form = content.job.scenes[index], content.job.formats[index]
    return {
        'source': content.inputs.sources[scene.name],
        'files': list(content.inputs.files[scene.name]),
        'chips': sum(outcome.chip.scene == index for outcome in content.chips),
        'dtype': scene.dtype.name,
        'nodata': form.nodata,
        'crs': scene.grid.crs.to_string(),
        'transform': list(scene.grid.transform)[:6],
        'height': scene.grid.height,
        'width': scene.grid.width,
    }


def labels_entry(labels: 'ChipLabels', options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a reader needs to burn the same masks.

    Args:
        labels: The labels.
        options: Options as plain values, with absolute paths.

    Returns:
        Plain values.
    """
    return {
        'paths': list(options['labels']),
        'class_names': list(labels.class_names),
        **{name: options[name] for name in ('column', 'layer', 'buffer', 'extent', 'priority', 'all_touched')},
        'background': labels.source.background,
        'ignore_index': IGNORE,
        'unlabelled_scenes': sorted(labels.bare),
    }


def _statistics(content: Content) -> dict[str, Any] | None:
    """Statistics of the digital numbers of valid training pixels per band; None if no pixel was read."""
    part = content.job.options.parts[0]
    found = [
        outcome.facts.moments
        for outcome in content.chips
        if outcome.chip.part in (part, ALL) and outcome.facts is not None and outcome.facts.moments is not None
    ]
    found = [moments for moments in found if moments[0, 0] > 0]
    if not found:
        return None
    merged = BandStatistics(0, np.zeros(len(content.inputs.bands)), np.zeros(len(content.inputs.bands)))
    for count, mean, m2, _, _ in found:
        merged = merged.merge(BandStatistics(int(count[0]), mean, m2))
    least, most = np.min([m[3] for m in found], axis=0), np.max([m[4] for m in found], axis=0)
    return {
        band: {
            'count': merged.count,
            'mean': float(merged.mean[i]),
            'std': float(merged.std[i]),
            'min': float(least[i]),
            'max': float(most[i]),
        }
        for i, band in enumerate(content.inputs.bands)
    }


def _gap(split: Split | None) -> dict[str, Any] | None:
    if split is None:
        return None
    return {
        'pixels': split.gap,
        'smallest_distance': split.distance,
        'pixel': list(split.pixel),
        'crs': split.crs.to_string(),
        'left_out': split.left_out,
        'blocks': split.blocks,
    }
