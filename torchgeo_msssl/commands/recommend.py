"""``recommend``: train candidates, compare them on validation ground and keep the best."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torchgeo_msssl.commands.options import read_options
from torchgeo_msssl.commands.study import CellOptions, read_overrides, run_command, split_overrides
from torchgeo_msssl.evaluation.study.recommendation import Recommendation
from torchgeo_msssl.validation import check_at_least


@dataclass(frozen=True)
class RecommendOptions(CellOptions, Recommendation):
    """Train several models on the same labels and keep the one that your labels support.

    The candidates are trained on the training ground and compared on the validation ground; the recommended one is
    tested once. Options --data.… apply to every candidate, --model.… and --trainer.… to those without a configuration
    of their own, and all of them with --pretraining. before them to pretrainings. The same command resumes.
    """

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ConfigurationError: If options contradict each other or are out of range.
        """
        super().__post_init__()
        check_at_least(1, jobs=self.jobs)


def run(arguments: Sequence[str]) -> int:
    """Recommend a model, or list the runs that are needed.

    Args:
        arguments: Arguments that follow the command's name.

    Returns:
        Exit status: 1 if a candidate failed, 130 if the user stopped it.

    Raises:
        MSSSLError: If the options contradict each other, or the data do not fit.
    """
    options = read_recommendation(arguments)
    from torchgeo_msssl.evaluation.study.recommend import Recommender

    recommender = Recommender(options, run_command)
    if options.dry_run:
        recommender.list_cells()
        return 0
    return recommender.run_all(options.jobs)


def read_recommendation(arguments: Sequence[str]) -> RecommendOptions:
    """Read the options of the command.

    Args:
        arguments: Arguments that follow the command's name.

    Returns:
        The recommendation, with the options of candidates and pretrainings merged into it.

    Raises:
        ConfigurationError: If options contradict each other.
    """
    rest, cells, pretrainings = split_overrides(arguments)
    example = 'recommend --config recommend_vines --weights encoder.safetensors'
    found = read_options(RecommendOptions, 'recommend', rest, config=True, example=example)
    for entry in found.candidates:
        if entry.pretraining is not None:
            entry.pretraining.options.update(read_overrides(entry.pretraining.config, pretrainings))
    return replace(found, options=found.options | read_overrides(found.fit, cells))
