"""What a study varies, and the cells that follow from it."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from jsonargparse.typing import Path_fr

from torchgeo_msssl.errors import ConfigurationError

#: Options that the study itself sets for every cell.
RESERVED = ('config', 'seed_everything', 'data.split', 'data.seed', 'ckpt_path', 'trainer.logger')

#: Options of a command line by their dotted names, such as ``{'trainer.max_epochs': 5}``.
Options = dict[str, Any]


@dataclass(frozen=True)
class Pretraining:
    """A run that comes before the cells which start from its weights.

    Args:
        config: Configuration of the run.
        options: Options besides it, by dotted name.
        each_seed: Run it once for each seed, with that seed; otherwise once for the study.
        same_split: Give it the region and the seed of the split, so that it trains on no other ground than the cell.
            Needed where it uses labels of that ground; goes with ``each_seed`` and the same ``block_size``.
        weights: File of its run folder that is handed over.
    """

    config: Path_fr
    options: Options = field(default_factory=dict)
    each_seed: bool = False
    same_split: bool = False
    weights: str = 'encoder.safetensors'


@dataclass(frozen=True)
class Initialisation:
    """What a network starts from.

    Args:
        name: Name in tables and curves.
        options: Options of its cells, such as ``{'model.weights': 'encoder.safetensors'}``.
        pretraining: Run that makes the weights; they become ``model.weights``.
    """

    name: str
    options: Options = field(default_factory=dict)
    pretraining: Pretraining | None = None


@dataclass(frozen=True)
class Variant:
    """One value of an axis of any options.

    Args:
        name: Name in tables and figures, such as ``4``.
        options: Options of its cells.
    """

    name: str
    options: Options = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """One ``fit`` and its ``test``.

    Attributes:
        index: Position in the study.
        initialisation: What it starts from.
        variant: Value of the axis of options.
        fraction: Share of the training blocks whose labels are used.
        shots: Their number, instead.
        scenes: Number of scenes that they are from.
        region: Held-out ground: ``blocks``, ``scene``, the name of a scene, or a file of polygons; None where nothing
            is tested.
        seed: Of weights, chips, split and choice of labels.
    """

    index: int
    initialisation: Initialisation
    variant: Variant | None
    fraction: float | None
    shots: int | None
    scenes: int | None
    region: str | None
    seed: int

    @property
    def name(self) -> str:
        """Name of the cell and of its folder, which does not depend on what else is studied."""
        parts = {
            'variant': self.variant.name if self.variant else None, 'fraction': self.fraction, 'shots': self.shots,
            'scenes': self.scenes, 'on': self.region, 'seed': self.seed,
        }  # fmt: skip
        known = [f'{key}-{value}' for key, value in parts.items() if value is not None]
        return folder_name('_'.join([self.initialisation.name, *known]))

    @property
    def pretraining_name(self) -> str | None:
        """Name of the pretraining that it shares with other cells."""
        pretraining = self.initialisation.pretraining
        if pretraining is None:
            return None
        parts = [self.initialisation.name]
        parts += [f'on-{self.region}'] if pretraining.same_split and self.region is not None else []
        if pretraining.same_split and self.scenes is not None:  # then the split is of so many scenes and blocks
            parts += [f'scenes-{self.scenes}', f'shots-{self.shots}']
        parts += [f'seed-{self.seed}'] if pretraining.each_seed else []
        return folder_name('_'.join(parts))


@dataclass(frozen=True)
class Study:
    """Initialisations × label fractions or shots × scenes × variants × held-out regions × seeds.

    Args:
        name: Name of the study.
        fit: Configuration of every cell.
        output: Folder for runs, results and figures.
        options: Options of every cell by dotted name, such as ``{'trainer.max_epochs': 5}``.
        initialisations: What the networks start from.
        fractions: Shares of the training blocks whose labels are used.
        shots: Numbers of training blocks whose labels are used, instead of shares.
        scenes: Numbers of scenes from which the same number of labelled blocks is drawn, where scenes are held out.
        variants: Values of one more axis, of any options.
        regions: Held-out ground: ``blocks``, dealt out anew for each seed; ``scene``, another one for each seed;
            ``scenes``, each in turn; or files of polygons with a column ``split``.
        seeds: Each is the seed of weights, chips, split and choice of labels.
        flights: Synthetic vineyards to generate and to take, in place of the data of ``fit``.
        flights_dir: Where they are, or are made.
        flights_side: Side of each in pixels of 8 cm.
        test: Whether cells are tested on labels; without, what their own run folder tells is collected.
        metrics: What tables and figures show, the first one first.
        reference: Initialisation that the others are compared with.
    """

    name: str
    fit: Path_fr
    output: str
    options: Options = field(default_factory=dict)
    initialisations: list[Initialisation] = field(default_factory=lambda: [Initialisation('random')])
    fractions: list[float] = field(default_factory=list)
    shots: list[int] = field(default_factory=list)
    scenes: list[int] = field(default_factory=list)
    variants: list[Variant] = field(default_factory=list)
    regions: list[str] = field(default_factory=lambda: ['blocks'])
    seeds: list[int] = field(default_factory=lambda: [0])
    flights: int | None = None
    flights_dir: str = 'data/flights'
    flights_side: int = 900
    test: bool = True
    metrics: list[str] = field(default_factory=lambda: ['test_mean_iou'])
    reference: str = 'random'

    def __post_init__(self) -> None:
        """Check what can be checked without files.

        Raises:
            ConfigurationError: If options contradict each other or are out of range.
        """
        names = [entry.name for entry in self.initialisations]
        axes: dict[str, Sequence[Any]] = {
            'initialisations': names, 'variants': [entry.name for entry in self.variants], 'seeds': self.seeds,
            'fractions': self.fractions, 'shots': self.shots, 'scenes': self.scenes, 'regions': self.regions,
        }  # fmt: skip
        for axis, values in axes.items():
            if len(set(values)) != len(values):
                raise ConfigurationError(f'{axis}: every value may come once, got {", ".join(map(str, values))}.')
        for axis in ('initialisations', 'variants'):
            entries: list[Initialisation] | list[Variant] = getattr(self, axis)
            if len({folder_name(entry.name) for entry in entries}) != len(entries):
                told = ', '.join(entry.name for entry in entries)
                raise ConfigurationError(f'{axis}: two names make one name of a folder; change one of {told}.')
        for axis in ('initialisations', 'seeds', 'metrics', *(['regions'] if self.test else [])):
            if not getattr(self, axis):
                raise ConfigurationError(f'{axis}: expected at least one, got none.')
        if len(names) > 1 and self.reference not in names:
            raise ConfigurationError(f'reference: {self.reference!r} is not one of {", ".join(names)}.')
        self._check_labels()
        self._check_options()

    def _check_labels(self) -> None:
        if self.fractions and self.shots:
            raise ConfigurationError('shots: give fractions or shots, not both.')
        if any(not 0 < fraction <= 1 for fraction in self.fractions):
            raise ConfigurationError(f'fractions: expected above 0 and at most 1, got {self.fractions}.')
        if any(number < 1 for number in (*self.shots, *self.scenes)):
            raise ConfigurationError(f'shots, scenes: expected 1 or more, got {self.shots} and {self.scenes}.')
        if not self.test and (self.fractions or self.shots or self.scenes):
            raise ConfigurationError('test: fractions, shots and scenes are of labels; leave them out, or test.')
        held_out = set(self.regions) <= {'scene', 'scenes'}
        if self.scenes and (not held_out or not self.shots or min(self.shots) < max(self.scenes)):
            msg = 'scenes: numbers go with `regions: [scene]` or `[scenes]`, and with at least as many shots (blocks).'
            raise ConfigurationError(msg)

    def _check_options(self) -> None:
        pretrainings = [entry.pretraining for entry in self.initialisations if entry.pretraining]
        groups = [entry.options for entry in self.initialisations]
        groups += [entry.options for entry in self.variants]
        groups += [entry.options for entry in pretrainings]
        for options in (self.options, *groups):
            for option in options:
                taken = next((name for name in RESERVED if option == name or option.startswith(f'{name}.')), None)
                if taken:
                    raise ConfigurationError(f'options: {option} is set by the study itself; leave it out.')
        if any(one.same_split and not one.each_seed for one in pretrainings):
            raise ConfigurationError('same_split: the split is of a seed; set each_seed too.')


def make_cells(study: Study, regions: Sequence[str | None]) -> list[Cell]:
    """List the cells, seed by seed, so that a study that is stopped early has all conditions of its first seeds.

    Args:
        study: The study.
        regions: Held-out regions, with scenes by name; ``[None]`` where nothing is tested.

    Returns:
        Cells in the order in which they run.
    """
    axes: list[Sequence[Any]] = [
        study.seeds, regions, study.scenes or [None], study.shots or [None], study.fractions or [None],
        study.variants or [None], study.initialisations,
    ]  # fmt: skip
    return [
        Cell(index, initialisation, variant, fraction, shots, scenes, region, seed)
        for index, (seed, region, scenes, shots, fraction, variant, initialisation) in enumerate(
            itertools.product(*axes)
        )
    ]


def folder_name(text: str) -> str:
    """Make a name that every file system takes.

    Args:
        text: Any text.

    Returns:
        Letters, digits, ``.``, ``-`` and ``_``; anything else is ``-``.
    """
    return ''.join(letter if letter.isalnum() or letter in '.-_' else '-' for letter in text)
