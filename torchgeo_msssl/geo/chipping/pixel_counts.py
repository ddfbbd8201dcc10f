"""Counts of valid pixels and classes per chip, before any chip is written."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from torchgeo_msssl.errors import SceneReadError
from torchgeo_msssl.geo.chipping.cutting import Job, Outcome
from torchgeo_msssl.geo.chipping.plan import Chip, Facts
from torchgeo_msssl.geo.valid_counts import ValidCells, count_valid

type Cells = tuple[int, ValidCells | None, str]


def count_scene(job: Job, index: int) -> Cells:
    """Count the valid pixels of a scene in small cells, which are cached in the user's cache folder.

    Args:
        job: The job.
        index: Index of the scene.

    Returns:
        The index, the counts (None if the scene cannot be read), and the reason why it cannot be read.
    """
    try:
        return index, count_valid(job.scenes[index], job.formats[index].bands), ''
    except SceneReadError as error:
        return index, None, str(error)


def count_chips(job: Job, chips: Sequence[tuple[Chip, int | None]]) -> list[Outcome]:
    """Count the pixels of the chips of a task.

    Args:
        job: The job.
        chips: Chips of one scene, with their valid pixels if the cells tell.

    Returns:
        Outcomes; the last one is the first that cannot be read.
    """
    outcomes = []
    for chip, count in chips:
        if count is not None and job.labels is None:
            outcomes.append(Outcome(chip, Facts(count)))
            continue
        try:
            valid = _valid(job, chip, count)
        except SceneReadError as error:
            outcomes.append(Outcome(chip, None, failure=str(error)))
            break
        count = int(np.count_nonzero(valid)) if count is None else count
        outcomes.append(Outcome(chip, Facts(count, _classes(job, chip, valid))))
    return outcomes


def _valid(job: Job, chip: Chip, count: int | None) -> NDArray[np.bool_]:
    """Valid pixels of a chip within its scene, shape (height, width); read only if the count does not decide."""
    inside = chip.window.intersection(job.scenes[chip.scene].grid.window)
    if count is not None and (count == 0 or (inside is not None and count == inside.area)):
        # beyond the scene this is not so, and there is no label either
        return np.full((chip.window.height, chip.window.width), count > 0)
    return job.formats[chip.scene].read(chip.window)[1]


def _classes(job: Job, chip: Chip, valid: NDArray[np.bool_]) -> tuple[int, ...]:
    """Pixels of each class; empty without labels."""
    return job.labels.count(job.labels.mask(job.scenes[chip.scene], chip.window), valid) if job.labels else ()


def with_valid(chips: Sequence[Chip], cells: ValidCells) -> list[tuple[Chip, int | None]]:
    """Look up the number of valid pixels of chips.

    Args:
        chips: Chips of one scene and one size.
        cells: Counts of the scene.

    Returns:
        Each chip with its number of valid pixels, or None where it cuts a cell that is neither full nor empty.
    """
    rows, cols = (np.array([getattr(chip.window, side) for chip in chips]) for side in ('row', 'col'))
    size = chips[0].window.height, chips[0].window.width
    least, most = cells.bounds(rows, cols, size)
    return [
        (chip, low if low == high else None)
        for chip, low, high in zip(chips, least.tolist(), most.tolist(), strict=True)
    ]
