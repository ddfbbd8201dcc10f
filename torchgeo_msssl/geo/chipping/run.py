"""Scenes cut into a folder of chips, from the first header to the summary."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from torchgeo_msssl.errors import ConfigurationError, ValidDataError
from torchgeo_msssl.geo.chipping.cutting import Job, Outcome, cache_bytes, cut, encode, tasks_of
from torchgeo_msssl.geo.chipping.inputs import Inputs, open_inputs
from torchgeo_msssl.geo.chipping.journal import JOURNAL, Found, Journal, clear_unfinished, look
from torchgeo_msssl.geo.chipping.manifest import Content, check_parquet, write_geojson, write_manifest
from torchgeo_msssl.geo.chipping.options import ALL, ChipOptions
from torchgeo_msssl.geo.chipping.plan import Chip, chips_of
from torchgeo_msssl.geo.chipping.split import Split, split_chips
from torchgeo_msssl.geo.chipping.survey import count_scene, measure, with_valid
from torchgeo_msssl.geo.chipping.workers import Workers
from torchgeo_msssl.geo.chipping.write import ENVIRONMENT, chip_format
from torchgeo_msssl.progress import progress_bar

#: Values (pixels × bands) that statistics are taken of at most, about.
_SAMPLED = 4_000_000
#: Chips that are encoded to tell how much disk all of them take.
_TRIED = 24

type Key = tuple[str, int, int]


@dataclass(frozen=True)
class Report:
    """What became of a run.

    Attributes:
        counts: Windows looked at (``windows``), chips kept (``chips``), and those left out by reason.
        parts: Chips in each part.
        size: Bytes of the chips; estimated in a dry run.
        split: What the split came to, or None.
        failed: Why a scene could not be read, by its name.
        earlier: Whether an earlier run had done everything.
    """

    counts: dict[str, int]
    parts: dict[str, int]
    size: int
    split: Split | None
    failed: dict[str, str]
    earlier: bool = False

    def lines(self, folder: str | Path, dry_run: bool = False) -> list[str]:
        """The report as people read it.

        Args:
            folder: The output folder.
            dry_run: Whether nothing was written.

        Returns:
            Lines.
        """
        counts = self.counts
        lines = [f'{counts["chips"]:,} of {counts["windows"]:,} windows are chips{self._left_out()}.']
        if list(self.parts) != [ALL]:
            lines.append('  ' + ', '.join(f'{part} {count:,}' for part, count in self.parts.items()))
        if self.split is not None:
            lines.append(self.split.sentence())
        if self.earlier:
            return [*lines, f'{folder} is complete already; nothing was to be done.']
        size = f'{self.size / 1e6:,.1f} MB'
        return [*lines, f'They would take about {size}.' if dry_run else f'Wrote {folder} ({size} of chips).']

    def _left_out(self) -> str:
        reasons = {
            'too_little_data': 'too little data', 'too_few_labels': 'too few labels', 'empty': 'no foreground class',
            'between_parts': 'between the parts',
        }  # fmt: skip
        said = [f'{self.counts[key]:,} {text}' for key, text in reasons.items() if self.counts[key]]
        return f' ({", ".join(said)})' if said else ''


def chip_scenes(
    paths: Sequence[str],
    output: str | Path,
    options: ChipOptions,
    *,
    workers: int = 1,
    overwrite: bool = False,
    dry_run: bool = False,
    geojson: bool = False,
    progress: bool = True,
) -> Report:
    """Cut scenes into chips, or go on with a run that was killed.

    Args:
        paths: Scenes: files, folders or patterns.
        output: Folder to write into.
        options: What is asked for.
        workers: Processes; what is written does not depend on their number.
        overwrite: Replace chips that are there.
        dry_run: Write nothing, and tell what would be.
        geojson: Write the footprints as GeoJSON too.
        progress: Whether to show a progress bar.

    Returns:
        What became of it.

    Raises:
        MSSSLError: If scenes, labels and options do not fit each other, or the folder cannot be written.
    """
    if workers < 1:
        raise ConfigurationError(f'workers: expected at least 1, got {workers}.')
    check_parquet()
    inputs = open_inputs(paths, options)
    folder = Path(output)
    plain = {'scenes': list(inputs.sources.values()), **options.as_dict()}
    chips = [chip for i, scene in enumerate(inputs.scenes) for chip in chips_of(scene, i, options)]
    job = _job(inputs, chips, folder, options)
    environment = ENVIRONMENT | {'GDAL_CACHEMAX': cache_bytes(job.scenes, len(inputs.bands), options.size)}
    found = Found(None, {}) if dry_run else look(folder, plain, inputs.scenes, overwrite)
    if found.complete is not None and not inputs.failed:
        return _earlier(found.complete, folder, geojson)
    with Workers(workers, environment) as pool:
        run = _Run(job, inputs, plain, pool, progress)
        return run.estimate(chips) if dry_run else run.write(chips, found.done, geojson)


def _job(inputs: Inputs, chips: Sequence[Chip], folder: Path, options: ChipOptions) -> Job:
    formats = tuple(
        chip_format(scene, inputs.bands, inputs.sensor, options.size, options.compress) for scene in inputs.scenes
    )
    labels = None
    if options.labels:
        # imported here: pandas and the like take longer than a small scene, and are for labels alone
        from torchgeo_msssl.geo.chipping.labels import open_labels

        labels = open_labels(options.labels, inputs.scenes)
    values = len(chips) * options.size**2 * len(inputs.bands)
    step = max(1, math.isqrt(max(values // _SAMPLED, 1)))
    return Job(inputs.scenes, formats, labels, options, folder, step)


def _earlier(summary: dict[str, Any], folder: Path, geojson: bool) -> Report:
    if geojson:
        write_geojson(folder)
    parts = {part: entry['chips'] for part, entry in summary['splits'].items()}
    return Report(summary['counts'], parts, 0, None, {}, earlier=True)


class _Run:
    """The stages of a run, with what has become of scenes and chips so far."""

    def __init__(self, job: Job, inputs: Inputs, options: dict[str, Any], workers: Workers, progress: bool) -> None:
        self.job, self.inputs, self.options = job, inputs, options
        self.workers, self.progress = workers, progress
        self.failed = dict(inputs.failed)
        self.rejected: Counter[str] = Counter()
        self.split: Split | None = None

    def estimate(self, chips: Sequence[Chip]) -> Report:
        """Survey the chips, and encode some to tell how much disk they take."""
        kept = self._survey(chips)
        tried = kept[:: max(1, len(kept) // _TRIED)]
        sizes = []
        for outcome in tried if not self.job.options.virtual else ():
            facts, image, mask = encode(self.job, outcome.chip, always=True)
            if facts is not None and image is not None:
                sizes.append(len(image) + len(mask))
        size = round(float(np.mean(sizes)) * len(kept)) if sizes else 0
        return self._report(chips, kept, size)

    def write(self, chips: Sequence[Chip], done: dict[Key, Outcome], geojson: bool) -> Report:
        """Write the chips that are wanted, then the manifest."""
        job, options = self.job, self.job.options
        known: dict[Chip, Outcome] = {}
        wanted = list(chips)
        if options.virtual or options.split:
            surveyed = self._survey(chips)
            known = {outcome.chip: outcome for outcome in surveyed}
            wanted = list(known)
        kept = list(known.values()) if options.virtual else self._cut(wanted, done)
        kept = sorted((outcome for outcome in kept if self._stays(outcome)), key=lambda outcome: outcome.chip)
        self._check_kept(kept)
        content = Content(
            job, self.inputs, self.options, tuple(kept), self._counts(chips, kept), self.split, self._failed()
        )
        write_manifest(content, geojson)
        clear_unfinished(job.folder)
        if not self.failed:
            (job.folder / JOURNAL).unlink(missing_ok=True)
        return self._report(chips, kept, sum(outcome.size + outcome.mask_size for outcome in kept))

    def _survey(self, chips: Sequence[Chip]) -> list[Outcome]:
        """Chips that are wanted, with what is in them and, with a split, their parts."""
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
            for task in tasks_of(self.job.scenes[index], len(self.inputs.bands), by_scene[index], self.workers.number):
                tasks.append([(chip, known[chip]) for chip in task])
        results = self._run(partial(measure, self.job), tasks, len, 'Measuring', 'chips')
        outcomes = self._settled(outcome for result in results for outcome in result)
        wanted = sorted((outcome for outcome in outcomes if self._take(outcome)), key=lambda outcome: outcome.chip)
        return self._divide(wanted) if self.job.options.split else wanted

    def _divide(self, wanted: Sequence[Outcome]) -> list[Outcome]:
        if not wanted:
            return []
        weights = np.array(
            [[outcome.facts.valid, *outcome.facts.classes] for outcome in wanted if outcome.facts is not None],
            dtype=np.float64,
        )
        chips = [outcome.chip for outcome in wanted]
        self.split = split_chips(chips, weights, self.job.scenes, self.job.options)
        part = {(chip.scene, chip.window): chip for chip in self.split.chips}
        return [
            replace(outcome, chip=part[outcome.chip.scene, outcome.chip.window])
            for outcome in wanted
            if (outcome.chip.scene, outcome.chip.window) in part
        ]

    def _cut(self, chips: Sequence[Chip], done: dict[Key, Outcome]) -> list[Outcome]:
        """Write chips that an earlier run has not."""
        job = self.job
        for part in job.options.parts:
            for kind in ('images', 'masks') if job.labels else ('images',):
                (job.folder / ('' if part == ALL else part) / kind).mkdir(parents=True, exist_ok=True)
        clear_unfinished(job.folder)
        outcomes = self._still_good(chips, done)
        there = {outcome.chip for outcome in outcomes}
        rest: dict[int, list[Chip]] = {}
        for chip in chips:
            if chip not in there:
                rest.setdefault(chip.scene, []).append(chip)
        tasks = [
            task
            for index, mine in rest.items()
            for task in tasks_of(job.scenes[index], len(self.inputs.bands), mine, self.workers.number)
        ]
        journal = Journal(job.folder, self.options, job.scenes, outcomes)
        try:
            for result in self._run(partial(cut, job), tasks, len, 'Cutting', 'chips', len(there)):
                journal.add(result)
                outcomes += result
        finally:
            journal.close()
        settled = self._settled(outcomes)
        if not job.options.split:  # else the survey has counted them already
            return [outcome for outcome in settled if self._take(outcome)]
        return settled

    def _still_good(self, chips: Sequence[Chip], done: dict[Key, Outcome]) -> list[Outcome]:
        """What an earlier run has done of these chips; files of chips that have no place any more are removed."""
        keys = {self._key(chip): chip for chip in chips}
        good = []
        for key, outcome in done.items():
            if keys.get(key) == outcome.chip:
                good.append(outcome)
            else:
                self._remove(outcome)
        return good

    def _key(self, chip: Chip) -> Key:
        return self.job.scenes[chip.scene].name, chip.window.row, chip.window.col

    def _remove(self, outcome: Outcome) -> None:
        for path in (self.job.image(outcome.chip), self.job.mask(outcome.chip)):
            (self.job.folder / path).unlink(missing_ok=True)

    def _settled(self, outcomes: Iterable[Outcome]) -> list[Outcome]:
        """Outcomes of scenes that could be read; of the others nothing stays."""
        settled = list(outcomes)
        for outcome in settled:
            if outcome.failure:
                self._fail(outcome.chip.scene, outcome.failure)
        for outcome in settled:
            if outcome.size and not self._stays(outcome):
                self._remove(outcome)
        return [outcome for outcome in settled if self._stays(outcome)]

    def _fail(self, index: int, failure: str) -> None:
        name = self.job.scenes[index].name
        self.failed[name] = min(failure, self.failed.get(name, failure))  # the same one whoever came first

    def _stays(self, outcome: Outcome) -> bool:
        return self.job.scenes[outcome.chip.scene].name not in self.failed

    def _take(self, outcome: Outcome) -> bool:
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
            f'{self.rejected["empty"]} no foreground class); ask for less.'
        )
        raise ValidDataError(msg)

    def _counts(self, chips: Sequence[Chip], kept: Sequence[Outcome]) -> dict[str, int]:
        return {
            'windows': len(chips),
            'chips': len(kept),
            'too_little_data': self.rejected['data'],
            'too_few_labels': self.rejected['labels'],
            'empty': self.rejected['empty'],
            'between_parts': self.split.left_out if self.split else 0,
        }

    def _report(self, chips: Sequence[Chip], kept: Sequence[Outcome], size: int) -> Report:
        parts = Counter(outcome.chip.part for outcome in kept)
        by_part = {part: parts[part] for part in self.job.options.parts}
        return Report(self._counts(chips, kept), by_part, size, self.split, self._failed())

    def _run[T, R](
        self,
        work: Callable[[T], R],
        tasks: Sequence[T],
        pieces: Callable[[R], int],
        description: str,
        unit: str,
        done: int = 0,
    ) -> Iterable[R]:
        """Run tasks with a progress bar that counts pieces."""
        total = done + sum(len(task) if isinstance(task, list) else 1 for task in tasks)
        bar = progress_bar(description, total, unit) if self.progress else nullcontext(_no_progress)
        with bar as advance:
            advance(done, 0.0)
            for result in self.workers.run(work, tasks):
                yield result
                done += pieces(result)
                advance(done, 0.0)


def _no_progress(piece: int, fraction: float) -> None:
    """Show nothing."""
