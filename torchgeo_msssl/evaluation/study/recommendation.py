"""Design of a recommendation: candidates, and the score that decides."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.evaluation.study.design import Initialisation, Options, Study
from torchgeo_msssl.shipped_configs import ConfigFile

#: Options of the scenes, which apply to pretrainings too.
SCENES = ('data.paths', 'data.bands', 'data.sensor', 'data.offset', 'data.crs', 'data.res', 'data.sample_dir')

#: Options of the split, which all candidates share.
_SPLIT = ('data.split', 'data.seed')


@dataclass(frozen=True)
class Recommendation:
    """Design of a recommendation.

    Attributes:
        name: Its name.
        fit: Configuration of the candidates.
        output: Folder for runs, results and the recommended model.
        candidates: Models to compare, the simplest first: a tie goes to the earlier one. Each has a `name`, and
            `options`, a `pretraining`, or a `fit` of its own.
        weights: Starting weights to compare in addition, such as `encoder.safetensors`.
        options: Options of every candidate by dotted name, such as ``{'trainer.max_epochs': 5}``.
        seeds: Seeds of weights and chips, and with `data.shots` or `data.label_fraction` of the choice of labelled
            blocks; the split is the same for all.
        metric: Score on the validation ground that decides.
        margin: Lead up to which two candidates are equal.
    """

    name: str
    fit: ConfigFile
    output: str
    candidates: list[Initialisation] = field(default_factory=lambda: [Initialisation('random')])
    weights: list[str] = field(default_factory=list)
    options: Options = field(default_factory=dict)
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    metric: str = 'val_mean_iou'
    margin: float = 0.01

    def __post_init__(self) -> None:
        """Check the options that need no files.

        Raises:
            ConfigurationError: If options contradict each other or are out of range.
        """
        if not self.metric.startswith('val_'):
            raise ConfigurationError(
                f'metric: expected a score on validation ground, such as val_mean_iou, got {self.metric}; the test '
                'ground must not decide.'
            )
        if self.margin < 0:
            raise ConfigurationError(f'margin: expected 0 or more, got {self.margin}.')

    def study(self, regions: Sequence[str]) -> Study:
        """Return the study whose cells are the candidates, scored on validation ground.

        Args:
            regions: File of the split, or nothing for a folder of chips.

        Raises:
            ConfigurationError: If options contradict each other or are out of range.
        """
        candidates = list(self.candidates)
        for weights in self.weights:
            candidates.append(Initialisation(f'from {Path(weights).stem}', {'model.weights': weights}))
        shared = {name: value for name, value in self.options.items() if name in SCENES}
        for candidate in candidates:
            if candidate.pretraining is not None:
                for name, value in shared.items():
                    candidate.pretraining.options.setdefault(name, value)
        return Study(
            name=self.name,
            fit=self.fit,
            output=self.output,
            options={name: value for name, value in self.options.items() if name not in _SPLIT},
            initialisations=candidates,
            regions=list(regions) or ['blocks'],
            seeds=self.seeds,
            metrics=[self.metric],
            reference=candidates[0].name if candidates else '',
            part='val',
        )
