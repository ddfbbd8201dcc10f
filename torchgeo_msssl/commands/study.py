"""``study``: the same training repeated with one thing changed at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torchgeo_msssl.commands.options import read_options
from torchgeo_msssl.commands.spelling import split_argument
from torchgeo_msssl.commands.trainer_options import spell_trainer_options
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.evaluation.study.design import Options, Study
from torchgeo_msssl.validation import check_at_least

_OVERRIDES = ('model', 'data', 'trainer')


@dataclass(frozen=True)
class CellOptions:
    """How the runs of a study or a recommendation are started.

    Attributes:
        dry_run: List the runs and their commands only.
        jobs: Number of runs at the same time.
    """

    dry_run: bool = False
    jobs: int = 1


@dataclass(frozen=True)
class StudyOptions(CellOptions, Study):
    """Train a network repeatedly with one thing changed at a time, to measure whether it helps.

    Options --model.…, --data.… and --trainer.… apply to every cell, and with --pretraining. before them, as in
    --pretraining.trainer.max_epochs, to every pretraining. A study that was stopped resumes with the same command.

    Attributes:
        index: Run the cell of this number only, for arrays of batch jobs.
    """

    index: int | None = None

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ConfigurationError: If options contradict each other or are out of range.
        """
        super().__post_init__()
        check_at_least(1, jobs=self.jobs)


def run(arguments: Sequence[str]) -> int:
    """Run a study, or list its cells.

    Args:
        arguments: Arguments that follow the command's name.

    Returns:
        Exit status: 1 if a cell failed, 130 if the user stopped it.

    Raises:
        MSSSLError: If the options contradict each other, or the data do not fit.
    """
    options = read_study(arguments)
    from torchgeo_msssl.evaluation.study.session import Session

    session = Session(options, run_command)
    if options.dry_run:
        session.list_cells(options.jobs)
        return 0
    return session.run_all(options.jobs) if options.index is None else session.run_one(options.index)


def read_study(arguments: Sequence[str]) -> StudyOptions:
    """Read the options of the command.

    Args:
        arguments: Arguments that follow the command's name.

    Returns:
        The study, with the options of cells and pretrainings merged into it.

    Raises:
        ConfigurationError: If options contradict each other.
    """
    rest, cells, pretrainings = split_overrides(arguments)
    example = 'study --config study_vines --jobs 2'
    study = read_options(StudyOptions, 'study', rest, config=True, example=example)
    for entry in study.initialisations:
        if entry.pretraining is not None:
            entry.pretraining.options.update(read_overrides(entry.pretraining.config, pretrainings))
    return replace(study, options=study.options | read_overrides(study.fit, cells))


def run_command(arguments: Sequence[str]) -> None:
    """Run ``fit`` or ``test`` in this process.

    Args:
        arguments: The command and its options.
    """
    from torchgeo_msssl.cli import run_trainer

    run_trainer(arguments)


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Separate the arguments of a command from those of its cells and pretrainings.

    Args:
        arguments: Arguments that follow the command's name.

    Returns:
        Arguments of the command, of its cells, and of pretrainings.
    """
    rest: list[str] = []
    cells: list[str] = []
    pretrainings: list[str] = []
    target = rest
    for argument in arguments:
        if argument.startswith('--'):  # the values of an option follow it
            name = split_argument(argument)[0].removeprefix('pretraining.')
            section, dot, _ = name.partition('.')
            target = rest
            if dot and section in _OVERRIDES:
                target = pretrainings if argument.startswith('--pretraining.') else cells
                argument = argument.replace('--pretraining.', '--', 1)
        target.append(argument)
    return rest, cells, pretrainings


def read_overrides(config: str, arguments: Sequence[str]) -> Options:
    """Read the options of cells or pretrainings, spelled as those of the command ``fit`` with their configuration.

    Args:
        config: The configuration.
        arguments: Arguments such as ``--data.paths``.

    Returns:
        Options by dotted name.

    Raises:
        ConfigurationError: If an argument is no option, or has no value.
    """
    spelled = spell_trainer_options(['fit', '--config', config, *arguments])[3:]
    found: Options = {}
    while spelled:
        argument = spelled.pop(0)
        name, value = split_argument(argument)
        if not argument.startswith('--'):
            raise ConfigurationError(f'{argument}: unexpected; the names of options start with --.')
        if value is None and (not spelled or spelled[0].startswith('--')):
            raise ConfigurationError(f'{argument}: expected a value after it.')
        found[name] = spelled.pop(0) if value is None else value
    return found
