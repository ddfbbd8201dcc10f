"""Cutting of scenes into a folder of chips."""

import importlib
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from shapely.geometry.base import BaseGeometry

from torchgeo_msssl.errors import ConfigurationError, ValidDataError
from torchgeo_msssl.geo.chipping.cutting import Job, Outcome, cache_bytes, cut, encode, tasks_of
from torchgeo_msssl.geo.chipping.fingerprints import fingerprint_of_labels, fingerprint_of_scene, fingerprint_of_split
from torchgeo_msssl.geo.chipping.folder import OutputFolder
from torchgeo_msssl.geo.chipping.inputs import Inputs, absolute, open_inputs
from torchgeo_msssl.geo.chipping.manifest import Content, write_geojson, write_manifest
from torchgeo_msssl.geo.chipping.options import ALL, ChipOptions
from torchgeo_msssl.geo.chipping.pixel_counts import count_chips, count_scene, with_valid
from torchgeo_msssl.geo.chipping.plan import Chip, chips_of
from torchgeo_msssl.geo.chipping.progress_log import Header
from torchgeo_msssl.geo.chipping.report import Report
from torchgeo_msssl.geo.chipping.resume import Key
from torchgeo_msssl.geo.chipping.split import Split, regions_of, split_chips
from torchgeo_msssl.geo.chipping.write import ENVIRONMENT, chip_format
from torchgeo_msssl.processes import WorkerPool
from torchgeo_msssl.shards import Shard

#: Approximate largest number of values (pixels × bands) from which statistics are computed.
_SAMPLED = 4_000_000
#: Number of chips that a dry run encodes to estimate the disk space of all.
_TRIED = 24


def chip_scenes(
    paths: Sequence[str],
    output: str | Path,
    options: ChipOptions,
    *,
    num_workers: int = 1,
    overwrite: bool = False,
    dry_run: bool = False,
    geojson: bool = False,
    progress: bool = True,
    shard: Shard | None = None,
) -> Report:
    """Cut scenes into chips, or resume a run that was killed.

    Several processes may cut the shards of one folder at the same time. A run without a shard takes over what they have
    written, cuts what is missing, and writes the manifest: the folder is that of a single run.

    Args:
        paths: Scenes: files, folders or patterns.
        output: Folder to write into.
        options: Options of the chips.
        num_workers: Number of processes; the output does not depend on it.
        overwrite: Replace existing chips.
        dry_run: Write nothing, and report what would be written.
        geojson: Write the footprints as GeoJSON too.
        progress: Show a progress bar.
        shard: Cut only this part of the chips, and write no manifest.

    Returns:
        Summary of the run.

    Raises:
        MSSSLError: If scenes, labels and options do not fit each other, or the folder cannot be written.
    """
    if num_workers < 1:
        raise ConfigurationError(f'num_workers: expected at least 1, got {num_workers}.')
    folder = Path(output)
    inputs = open_inputs(paths, options, folder)
    plain = _plain(inputs, options)
    chips = [chip for i, scene in enumerate(inputs.scenes) for chip in chips_of(scene, i, options)]
    job = _job(inputs, chips, folder, options)
    cache = cache_bytes(job.scenes, len(inputs.bands), options.chip_size)
    target = OutputFolder(folder, _header(job, inputs, plain), job.scenes, inputs.sources, shard)
    with target, WorkerPool(num_workers, partial(rasterio.Env, GDAL_CACHEMAX=cache, **ENVIRONMENT)) as pool:
        run = _Run(job, inputs, plain, pool, progress, shard)
        if dry_run:
            return run.estimate(chips)
        found = target.look(overwrite)
        if found.complete is not None and not inputs.failed:
            return _report_complete(found.complete, folder, geojson)
        return run.write(chips, target, found.done, geojson)


def _plain(inputs: Inputs, options: ChipOptions) -> dict[str, Any]:
    """The options as plain values, with absolute paths."""
    # an extent may also be a layer of the labels
    is_file = options.extent and os.path.exists(options.extent.split('|layername=')[0])
    extent = absolute(options.extent) if options.extent and is_file else options.extent
    plain = replace(options, labels=tuple(map(absolute, options.labels)), extent=extent).as_dict()
    return {'scenes': list(inputs.sources.values()), **plain}


def _header(job: Job, inputs: Inputs, plain: dict[str, Any]) -> Header:
    common = {
        'bands': inputs.bands,
        'sensor': inputs.sensor.name if inputs.sensor else None,
        'step': job.step,
        'labels': fingerprint_of_labels(job.labels),
        # mappings of class names that differ in their order alone are equal, and number other classes
        'class_names': list(job.labels.class_names) if job.labels else [],
        'split': fingerprint_of_split(job.options.split),
    }
    return Header(plain, common, {scene.name: fingerprint_of_scene(scene) for scene in job.scenes})


def _job(inputs: Inputs, chips: Sequence[Chip], folder: Path, options: ChipOptions) -> Job:
    formats = tuple(
        chip_format(scene, inputs.bands, inputs.sensor, options.chip_size, options.compress) for scene in inputs.scenes
    )
    labels = None
    if options.labels:
        # imported here, as pandas and geopandas take longer to import than a small scene to chip
        from torchgeo_msssl.geo.chipping.labels import open_chip_labels

        labels = open_chip_labels(options, inputs.scenes)
    values = len(chips) * options.chip_size**2 * len(inputs.bands)
    step = max(1, math.isqrt(max(values // _SAMPLED, 1)))
    return Job(inputs.scenes, formats, labels, options, folder, step)


def _report_complete(summary: dict[str, Any], folder: Path, geojson: bool) -> Report:
    if geojson:
        write_geojson(folder)
    parts = {part: entry['chips'] for part, entry in summary['splits'].items()}
    return Report(summary['counts'], parts, 0, None, {}, complete=True)


class _Run:
    """Stages of a run, with the state of scenes and chips so far."""

    def __init__(
        self,
        job: Job,
        inputs: Inputs,
        options: dict[str, Any],
        pool: WorkerPool,
        progress: bool,
        shard: Shard | None = None,
    ) -> None:
        self.job, self.inputs, self.options = job, inputs, options
        self.pool, self.progress, self.shard = pool, progress, shard
        self.failed = dict(inputs.failed)
        self.rejected: Counter[str] = Counter()
        self.split: Split | None = None

    def estimate(self, chips: Sequence[Chip]) -> Report:
        """Select chips, and encode some of them to estimate the disk space of all."""
        kept = self._select(chips)
        tried = kept[:: max(1, len(kept) // _TRIED)]
        sizes = []
        for outcome in tried if not self.job.options.virtual else ():
            facts, image, mask = encode(self.job, outcome.chip, always=True)
            if facts is not None and image is not None:
                sizes.append(len(image) + len(mask))
        size = round(float(np.mean(sizes)) * len(kept)) if sizes else 0
        return self._report(chips, kept, size)

    def write(self, chips: Sequence[Chip], target: OutputFolder, done: dict[Key, Outcome], geojson: bool) -> Report:
        """Write the selected chips, then the manifest."""
        options = self.job.options
        selected = self._select(chips) if options.virtual or options.split else None
        if selected is not None:
            self._check_kept(selected)  # before the chips of an earlier run are removed
        if options.virtual and selected is not None:
            target.begin((), (), ())
            made = selected
        else:
            made = self._cut(chips if selected is None else [outcome.chip for outcome in selected], target, done)
            if self.shard is not None:
                return self._finish_shard(made, target)
        kept = sorted((outcome for outcome in made if self._is_readable(outcome)), key=lambda outcome: outcome.chip)
        if not kept:
            target.discard()
        self._check_kept(kept)
        target.finish(self._files(kept), self.failed)
        counts = self._counts(chips, kept)
        write_manifest(
            Content(self.job, self.inputs, self.options, tuple(kept), counts, self.split, self._failed()), geojson
        )
        return self._report(chips, kept, sum(outcome.size + outcome.mask_size for outcome in kept))

    def _finish_shard(self, made: Sequence[Outcome], target: OutputFolder) -> Report:
        """Complete the log of a shard; the run that writes the manifest decides about scenes that cannot be read."""
        target.finish((), ())
        written = [outcome for outcome in made if outcome.size]
        size = sum(outcome.size + outcome.mask_size for outcome in written)
        failed, scenes = self._failed(), len(self.inputs.sources)
        return Report({'chips': len(written)}, {}, size, None, failed, scenes=scenes, shard=self.shard)

    def _select(self, chips: Sequence[Chip]) -> list[Outcome]:
        """Chips to keep, with their pixel counts and, with a split, their parts; none is written."""
        regions = None
        if self.job.options.split:  # before pixels are read, so that errors come at once
            labels = self.job.labels.source if self.job.labels else None
            regions = regions_of(self.job.scenes, self.job.options, labels)
        by_scene: dict[int, list[Chip]] = {}
        for chip in chips:
            by_scene.setdefault(chip.scene, []).append(chip)
        tasks: list[list[tuple[Chip, int | None]]] = []
        for index, cells, failure in self._run(
            partial(count_scene, self.job), list(by_scene), lambda result: 1, 'Finding data', 'scenes'
        ):
            if cells is None:
                self._fail(index, failure)
                continue
            known = dict(with_valid(by_scene[index], cells))
            for task in self._tasks(index, by_scene[index]):
                tasks.append([(chip, known[chip]) for chip in task])
        results = self._run(partial(count_chips, self.job), tasks, len, 'Counting', 'chips')
        outcomes = self._readable(outcome for result in results for outcome in result)
        kept = sorted((outcome for outcome in outcomes if self._is_kept(outcome)), key=lambda outcome: outcome.chip)
        return kept if regions is None else self._divide(kept, regions)

    def _divide(self, kept: Sequence[Outcome], regions: dict[str, BaseGeometry]) -> list[Outcome]:
        if not kept:
            return []
        self.split = split_chips([outcome.chip for outcome in kept], self.job.scenes, regions, self.job.options)
        part = {(chip.scene, chip.window): chip for chip in self.split.chips}
        return [
            replace(outcome, chip=part[outcome.chip.scene, outcome.chip.window])
            for outcome in kept
            if (outcome.chip.scene, outcome.chip.window) in part
        ]

    def _cut(self, chips: Sequence[Chip], target: OutputFolder, done: dict[Key, Outcome]) -> list[Outcome]:
        """Write the chips that an earlier run did not write."""
        job = self.job
        chips = chips if self.shard is None else self.shard.of(chips)
        earlier = ((chip, done.get(self._key(chip))) for chip in chips) if done else ()
        outcomes = [outcome for chip, outcome in earlier if outcome is not None and outcome.chip == chip]
        written = {outcome.chip for outcome in outcomes}
        rest: dict[int, list[Chip]] = {}
        for chip in chips:
            if chip not in written:
                rest.setdefault(chip.scene, []).append(chip)
        tasks = [task for index, mine in rest.items() for task in self._tasks(index, mine)]
        target.begin(outcomes, self._files(outcomes), self._folders())
        for result in self._run(partial(cut, job), tasks, len, 'Cutting', 'chips', len(written)):
            target.note(result)
            outcomes += result
        readable = self._readable(outcomes)
        if not job.options.split:  # otherwise rejected chips were counted by _select
            return [outcome for outcome in readable if self._is_kept(outcome)]
        return readable

    def _tasks(self, index: int, chips: Sequence[Chip]) -> Iterable[list[Chip]]:
        return tasks_of(self.job.scenes[index], len(self.inputs.bands), chips, self.pool.processes)

    def _key(self, chip: Chip) -> Key:
        return self.job.scenes[chip.scene].name, chip.window.row, chip.window.col

    def _folders(self) -> list[str]:
        kinds = ('images', 'masks') if self.job.labels else ('images',)
        return [kind if part == ALL else f'{part}/{kind}' for part in self.job.options.parts for kind in kinds]

    def _files(self, outcomes: Iterable[Outcome]) -> set[str]:
        """Files of chips, relative to the output folder."""
        written = [outcome.chip for outcome in outcomes if outcome.size]
        masks = map(self.job.mask, written) if self.job.labels else ()
        return {*map(self.job.image, written), *masks}

    def _readable(self, outcomes: Iterable[Outcome]) -> list[Outcome]:
        """Outcomes of scenes that could be read to the end; others keep no chip."""
        finished = list(outcomes)
        for outcome in finished:
            if outcome.failure:
                self._fail(outcome.chip.scene, outcome.failure)
        return [outcome for outcome in finished if self._is_readable(outcome)]

    def _fail(self, index: int, failure: str) -> None:
        name = self.job.scenes[index].name
        self.failed[name] = min(failure, self.failed.get(name, failure))  # the same one in whatever order they come

    def _is_readable(self, outcome: Outcome) -> bool:
        return self.job.scenes[outcome.chip.scene].name not in self.failed

    def _is_kept(self, outcome: Outcome) -> bool:
        assert outcome.facts is not None
        reason = self.job.rejection(outcome.chip, outcome.facts)
        self.rejected[reason] += 1
        return not reason

    def _failed(self) -> dict[str, str]:
        return dict(sorted(self.failed.items()))

    def _check_kept(self, kept: Sequence[Outcome]) -> None:
        if kept:
            return
        if self.failed:
            raise ValidDataError(next(iter(self._failed().values())))
        msg = (
            f'min_valid, min_labelled, keep_empty: none of the {sum(self.rejected.values())} chips is kept '
            f'({self.rejected["data"]} have too little data, {self.rejected["labels"]} too few labels, '
            f'{self.rejected["empty"]} no foreground class); use smaller values.'
        )
        raise ValidDataError(msg)

    def _counts(self, chips: Sequence[Chip], kept: Sequence[Outcome]) -> dict[str, int]:
        left_out = {
            'too_little_data': self.rejected['data'],
            'too_few_labels': self.rejected['labels'],
            'empty': self.rejected['empty'],
            'between_parts': self.split.left_out if self.split else 0,
        }
        unreadable = len(chips) - len(kept) - sum(left_out.values())
        return {'windows': len(chips), 'chips': len(kept), **left_out, 'unreadable': unreadable}

    def _report(self, chips: Sequence[Chip], kept: Sequence[Outcome], size: int) -> Report:
        parts = Counter(outcome.chip.part for outcome in kept)
        by_part = {part: parts[part] for part in self.job.options.parts}
        scenes = len(self.inputs.sources)
        return Report(self._counts(chips, kept), by_part, size, self.split, self._failed(), scenes=scenes)

    def _run[T, R](
        self,
        function: Callable[[T], R],
        tasks: Sequence[T],
        pieces: Callable[[R], int],
        description: str,
        unit: str,
        done: int = 0,
    ) -> Iterable[R]:
        """Apply a function to tasks with a progress bar that counts pieces."""
        results = self.pool.map(function, tasks)
        # imported here, for the progress and the manifest: worker processes are busy already
        from torchgeo_msssl.progress import progress_bar

        importlib.import_module('geopandas')
        total = done + sum(len(task) if isinstance(task, list) else 1 for task in tasks)
        bar = progress_bar(description, total, unit) if self.progress else nullcontext(_no_progress)
        with bar as advance:
            advance(done, 0.0)
            for result in results:
                yield result
                done += pieces(result)
                advance(done, 0.0)


def _no_progress(piece: int, fraction: float) -> None:
    """Show nothing."""
