"""Design of a study: its axes and the cells that follow from them."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from jsonargparse.typing import register_type

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.shipped_configs import ConfigFile

register_type(ConfigFile, str, ConfigFile, deserializer_exceptions=ConfigurationError)

#: Options that the study sets for every cell.
RESERVED = ('config', 'seed_everything', 'data.split', 'data.seed', 'ckpt_path', 'trainer.logger')

#: Options of a command line by their dotted names, such as ``{'trainer.max_epochs': 5}``.
Options = dict[str, Any]


@dataclass(frozen=True)
class Pretraining:
    """Run whose weights the cells of an initialisation start from.

    Attributes:
        config: Configuration of the run.
        options: Further options by dotted name.
        each_seed: Run it once for each seed, with that seed, instead of once for the study.
        same_split: Give it the region and the seed of the cell's split, so that it trains on the same ground as the
            cell. Required if it uses labels of that ground; needs ``each_seed`` and the same ``block_size``.
        weights: File in its run folder that the cells load.
    """

    config: ConfigFile
    options: Options = field(default_factory=dict)
    each_seed: bool = False
    same_split: bool = False
    weights: str = 'encoder.safetensors'


@dataclass(frozen=True)
class Initialisation:
    """Weights that a network starts from.

    Attributes:
        name: Name in tables and figures.
        options: Options of its cells, such as ``{'model.weights': 'encoder.safetensors'}``.
        pretraining: Run that produces the weights, which become ``model.weights``.
        fit: Configuration of its cells, for another kind of model than that of the study. Of the options and the
            variants of the study, those of the data then apply alone.
    """

    name: str
    options: Options = field(default_factory=dict)
    pretraining: Pretraining | None = None
    fit: ConfigFile | None = None


@dataclass(frozen=True)
class Variant:
    """One value of an axis of arbitrary options.

    Attributes:
        name: Name in tables and figures, such as ``4``.
        options: Options of its cells.
    """

    name: str
    options: Options = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """One training with its test.

    Attributes:
        index: Position in the study.
        initialisation: Weights to start from.
        variant: Value of the axis of options.
        fraction: Fraction of the training blocks whose labels are used.
        shots: Number of these blocks, as an alternative.
        scenes: Number of scenes that these blocks come from.
        steps: Number of optimizer steps; None for the length that the configuration gives.
        region: Held-out ground: ``blocks``, ``scene``, the name of a scene, or a file of polygons; None without a test.
        seed: Seed of weights, chips, split and choice of labels.
    """

    index: int
    initialisation: Initialisation
    variant: Variant | None
    fraction: float | None
    shots: int | None
    scenes: int | None
    region: str | None
    seed: int
    steps: int | None = None

    @property
    def name(self) -> str:
        """Name of the cell and of its folder, independent of the rest of the study."""
        parts = {
            'variant': self.variant.name if self.variant else None,
            'fraction': self.fraction,
            'shots': self.shots,
            'scenes': self.scenes,
            'steps': self.steps,
            'on': self.region,
            'seed': self.seed,
        }
        known = [f'{key}-{value}' for key, value in parts.items() if value is not None]
        return folder_name('_'.join([self.initialisation.name, *known]))

    @property
    def pretraining_name(self) -> str | None:
        """Name of its pretraining, which other cells may share."""
        pretraining = self.initialisation.pretraining
        if pretraining is None:
            return None
        parts = [self.initialisation.name]
        parts += [f'on-{self.region}'] if pretraining.same_split and self.region is not None else []
        if pretraining.same_split and self.scenes is not None:  # the split then depends on these numbers
            parts += [f'scenes-{self.scenes}', f'shots-{self.shots}']
        parts += [f'seed-{self.seed}'] if pretraining.each_seed else []
        return folder_name('_'.join(parts))


@dataclass(frozen=True)
class Study:
    """Design of the study.

    Its cells are the product of initialisations, label fractions or shots, scenes, steps, variants, regions and seeds.

    Attributes:
        name: Name of the study.
        fit: Configuration of every cell.
        output: Folder for runs, results and figures.
        options: Options of every cell by dotted name, such as ``{'trainer.max_epochs': 5}``.
        initialisations: Weights that the networks start from; default: random ones.
        fractions: Fractions of the training blocks whose labels are used.
        shots: Numbers of training blocks whose labels are used, as an alternative to fractions.
        scenes: Numbers of scenes from which the same number of labelled blocks is drawn, if scenes are held out.
        steps: Numbers of optimizer steps, such as ``[100, 300]``, instead of `trainer.max_epochs`, since what helps a
            short training may not help a long one. An epoch must not be longer, see `data.chips_per_epoch`.
        variants: Values of one more axis, of any options.
        regions: Held-out ground: `blocks`, assigned again for each seed; `scene`, another one for each seed;
            `scenes`, each in turn; or files of polygons with a column `split`.
        seeds: Seeds, each of weights, chips, split and choice of labels.
        flights: Number of synthetic vineyards to generate and to use instead of the data of `fit`.
        flights_dir: Folder of these vineyards, which are generated if missing.
        flights_side: Side of each of them in pixels of 8 cm.
        test: Test the cells on labels; otherwise only the metrics of training are collected.
        part: Ground on which they are scored: `test`, or `val` to leave the test ground alone.
        checkpoint: Weights that are scored: the `best` on the validation ground, or the `last`, such as where a split
            file holds out no ground for validation.
        metrics: Metrics of tables and figures, the most important one first.
        reference: Initialisation to compare the others with.
    """

    name: str
    fit: ConfigFile
    output: str
    options: Options = field(default_factory=dict)
    initialisations: list[Initialisation] = field(default_factory=lambda: [Initialisation('random')])
    fractions: list[float] = field(default_factory=list)
    shots: list[int] = field(default_factory=list)
    scenes: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    variants: list[Variant] = field(default_factory=list)
    regions: list[str] = field(default_factory=lambda: ['blocks'])
    seeds: list[int] = field(default_factory=lambda: [0])
    flights: int | None = None
    flights_dir: str = 'data/flights'
    flights_side: int = 900
    test: bool = True
    part: Literal['test', 'val'] = 'test'
    checkpoint: Literal['best', 'last'] = 'best'
    metrics: list[str] = field(default_factory=lambda: ['test_mean_iou'])
    reference: str = 'random'

    def __post_init__(self) -> None:
        """Check the options that need no files.

        Raises:
            ConfigurationError: If options contradict each other or are out of range.
        """
        names = [entry.name for entry in self.initialisations]
        axes: dict[str, Sequence[Any]] = {'initialisations': names, 'variants': [entry.name for entry in self.variants]}
        axes |= {axis: getattr(self, axis) for axis in ('seeds', 'fractions', 'shots', 'scenes', 'steps', 'regions')}
        for axis, values in axes.items():
            if len(set(values)) != len(values):
                raise ConfigurationError(f'{axis}: expected different values, got {", ".join(map(str, values))}.')
        for axis in ('initialisations', 'variants'):
            if len({folder_name(name) for name in axes[axis]}) != len(axes[axis]):
                msg = f'{axis}: two names give the same folder name; change one of {", ".join(axes[axis])}.'
                raise ConfigurationError(msg)
        for axis in ('initialisations', 'seeds', 'metrics', *(['regions'] if self.test else [])):
            if not getattr(self, axis):
                raise ConfigurationError(f'{axis}: expected at least one, got none.')
        if len(names) > 1 and self.reference not in names:
            raise ConfigurationError(f'reference: {self.reference!r} is not one of {", ".join(names)}.')
        self._check_labels()
        self._check_options()

    def _check_labels(self) -> None:
        if self.fractions and self.shots:
            raise ConfigurationError('shots: set fractions or shots, not both.')
        if any(not 0 < fraction <= 1 for fraction in self.fractions):
            raise ConfigurationError(f'fractions: expected above 0 and at most 1, got {self.fractions}.')
        if any(number < 1 for number in (*self.shots, *self.scenes, *self.steps)):
            counts = f'{self.shots}, {self.scenes} and {self.steps}'
            raise ConfigurationError(f'shots, scenes, steps: expected 1 or more, got {counts}.')
        if not self.test and (self.fractions or self.shots or self.scenes):
            raise ConfigurationError('test: fractions, shots and scenes need a test; leave them out, or set test.')
        held_out = set(self.regions) <= {'scene', 'scenes'}
        if self.scenes and (not held_out or not self.shots or min(self.shots) < max(self.scenes)):
            msg = 'scenes: numbers need `regions: [scene]` or `[scenes]`, and at least as many shots (blocks).'
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
                    raise ConfigurationError(f'options: {option} is set by the study; leave it out.')
        if any(one.same_split and not one.each_seed for one in pretrainings):
            raise ConfigurationError('same_split: the split depends on the seed; set each_seed too.')


def make_cells(study: Study, regions: Sequence[str | None]) -> list[Cell]:
    """List the cells, seed by seed, so that a study that is stopped early has all conditions of its first seeds.

    Args:
        study: The study.
        regions: Held-out regions, with scenes by name; ``[None]`` where nothing is tested.

    Returns:
        Cells in the order in which they run.
    """
    axes: list[Sequence[Any]] = [study.seeds, regions]
    axes += [values or [None] for values in (study.scenes, study.shots, study.fractions, study.steps, study.variants)]
    cells: list[Cell] = []
    for seed, region, scenes, shots, fraction, steps, variant, start in itertools.product(*axes, study.initialisations):
        cells.append(Cell(len(cells), start, variant, fraction, shots, scenes, region, seed, steps))
    return cells


def folder_name(text: str) -> str:
    """Convert a text to a name that is valid on every file system.

    Returns:
        The text with ``-`` instead of anything but letters, digits, ``.``, ``-`` and ``_``.
    """
    return ''.join(letter if letter.isalnum() or letter in '.-_' else '-' for letter in text)
