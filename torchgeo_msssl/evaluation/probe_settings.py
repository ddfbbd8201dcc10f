"""How encoders are probed: the options of `probe`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.evaluation.encoders import CONSTANT, CONVOLUTIONS, RANDOM, STATISTICS, encoder_name
from torchgeo_msssl.evaluation.probes import STRENGTHS, Distance
from torchgeo_msssl.evaluation.scores import Average, Metric, metric_name

ProbeName = Literal['knn', 'linear']


@dataclass(frozen=True)
class ProbeData:
    """Which chips are classified. Without any paths the generated sample area and its fine land cover are taken.

    Attributes:
        paths: Scenes: files, folders or patterns; chips are cut from them where `labels` has one class.
        labels: Class rasters of the scenes; where their names have dates, each is for the scenes of its date.
        folder: Instead: a folder with one folder a class, ROOT/<class>/*.tif, each file a chip.
        csv: Instead: a table with the columns path (of a file that is a chip, beside the table or absolute) and label,
            and perhaps split with train and test.
        classes: For `labels`: names in the order of the values from 0, or values by name,
            `{clear: [1, 2], cloud: [3]}`, where other values are no labels. Default: every value is a class.
        bands: Bands by name; default: the spectral bands that the files have.
        sensor: Sensor name, where the files do not tell.
        chip_size: Side of a chip in pixels; of files it is the middle.
        purity: For `labels`: smallest share of a chip's pixels that its class has.
        min_valid: For `labels`: smallest share of valid pixels in a chip.
        test_fraction: Share of the blocks of ground that is tested on.
        block_size: Side of a block of ground in pixels; blocks are what is split, and what intervals are drawn from.
        test_scenes: Instead of blocks: patterns of file names, `2017-10-*`; these scenes are tested on.
        max_chips: Most chips to learn from, and most to test on; more are drawn from, at random.
        seed: Of the deal of blocks and of such a draw.
        offset: Added to digital numbers before scaling; `auto` reads it from metadata or date.
        sample_dir: Where the sample area is, or is made.
    """

    paths: str | list[str] | None = None
    labels: str | list[str] | None = None
    folder: str | None = None
    csv: str | None = None
    classes: dict[str, list[int]] | list[str] | None = None
    bands: list[str] | None = None
    sensor: str | None = None
    chip_size: int = 32
    purity: float = 0.7
    min_valid: float = 0.9
    test_fraction: float = 0.5
    block_size: int = 128
    test_scenes: str | list[str] | None = None
    max_chips: int = 10_000
    seed: int = 0
    offset: float | Literal['auto'] = 'auto'
    sample_dir: str = 'data/sample'

    def __post_init__(self) -> None:
        """Check what nothing else checks.

        Raises:
            ConfigurationError: If options are out of range or contradict each other.
        """
        if sum(value is not None for value in (self.paths, self.folder, self.csv)) > 1:
            raise ConfigurationError('data: expected one of paths (with labels), folder and csv, got several.')
        if self.paths is not None and self.labels is None:
            raise ConfigurationError('data.labels: scenes are classified by a raster of classes; give one, or a csv.')
        if not 0 < self.test_fraction < 1:
            raise ConfigurationError(f'data.test_fraction: expected a share between 0 and 1, got {self.test_fraction}.')
        if not 0 < self.purity <= 1:
            raise ConfigurationError(f'data.purity: expected a share above 0, at most 1, got {self.purity}.')
        if self.block_size < self.chip_size:
            raise ConfigurationError(
                f'data.block_size: expected at least chip_size {self.chip_size}, got {self.block_size}.'
            )
        if self.max_chips < 2:
            raise ConfigurationError(f'data.max_chips: expected at least 2, got {self.max_chips}.')


@dataclass(frozen=True)
class ProbeSettings:
    """How encoders are probed, as `probe` takes it.

    Attributes:
        data: Labelled chips.
        encoders: Checkpoints, encoder.safetensors, names of TorchGeo's weights, `imagenet`, `random`: one, several, or
            by name (`{ours: run.ckpt}`, on the command line also `ours=run.ckpt`). The baselines are always there.
        model: timm name for `random`, `imagenet`, and weights that do not tell it.
        probe: Which probes: `knn`, `linear` (logistic regression).
        k: Neighbours.
        temperature: Votes of neighbours by exp(similarity / temperature), 0.07 in the literature; null: equal votes.
        distance: Of neighbours.
        strengths: Inverse strengths of the regularisation of the linear probe to choose from.
        metric: Scores; the first one is drawn, and compared with random initialisation.
        average: Mean over classes of precision, recall, f1 and average_precision.
        top_k: For accuracy: also count a chip as right whose class is among so many; 1 for the first one alone.
        interval: What the bootstrap draws: blocks of ground, or chips (too narrow where neighbours are alike).
        level: Of the intervals.
        resamples: Of the bootstrap.
        seeds: How often random weights are drawn.
        experiment: Name in the results, and of the folder in `runs`.
        output: Folder for the results; default: the next runs/<experiment>/version_N.
        batch_size: Chips at once.
        device: `auto`, `cpu`, `cuda`, …
    """

    data: ProbeData = field(default_factory=ProbeData)
    encoders: str | list[str] | dict[str, str] | None = None
    model: str = 'resnet18'
    probe: ProbeName | list[ProbeName] = field(default_factory=lambda: ['knn', 'linear'])
    k: int = 5
    temperature: float | None = None
    distance: Distance = 'cosine'
    strengths: list[float] = field(default_factory=lambda: [*STRENGTHS, 100.0])
    metric: Metric | list[Metric] = field(default_factory=lambda: ['accuracy', 'balanced_accuracy', 'f1'])
    average: Average = 'macro'
    top_k: int = 1
    interval: Literal['block', 'chip'] = 'block'
    level: float = 0.95
    resamples: int = 1000
    seeds: int = 3
    experiment: str = 'probe'
    output: str | None = None
    batch_size: int = 128
    device: str = 'auto'

    def __post_init__(self) -> None:
        """Check what nothing else checks before the work is done.

        Raises:
            ConfigurationError: If an option is out of its range.
        """
        for name, values, known in (
            ('probe', self.probes, get_args(ProbeName)), ('metric', self.metrics, get_args(Metric)),
        ):  # fmt: skip
            if not values or not set(values) <= set(known):
                raise ConfigurationError(f'{name}: expected one or more of {", ".join(known)}, got {values}.')
        metric_name(self.metrics[0], self.average, self.top_k)
        for option, least in (('k', 1), ('top_k', 1), ('seeds', 1), ('resamples', 1), ('batch_size', 1)):
            if getattr(self, option) < least:
                raise ConfigurationError(f'{option}: expected at least {least}, got {getattr(self, option)}.')
        if self.top_k > 1 and 'accuracy' not in self.metrics:
            raise ConfigurationError(
                f'top_k: {self.top_k} is of accuracy; name accuracy in metric, or leave top_k out.'
            )
        if self.temperature is not None and not self.temperature > 0:
            msg = f'temperature: expected a number above 0, or null for equal votes, got {self.temperature}.'
            raise ConfigurationError(msg)
        if not 0 < self.level < 1:
            raise ConfigurationError(f'level: expected a share between 0 and 1, got {self.level}.')
        if not self.strengths or min(self.strengths) <= 0:
            raise ConfigurationError(f'strengths: expected numbers above 0, got {self.strengths}.')

    @property
    def probes(self) -> list[ProbeName]:
        """The probes as a list."""
        return [self.probe] if isinstance(self.probe, str) else self.probe

    @property
    def metrics(self) -> list[Metric]:
        """The scores as a list."""
        return [self.metric] if isinstance(self.metric, str) else self.metric

    @property
    def sources(self) -> dict[str, str]:
        """Encoders by name, but for ``random``, which is a baseline anyway."""
        if isinstance(self.encoders, dict):
            pairs = list(self.encoders.items())
        else:
            listed = [self.encoders] if isinstance(self.encoders, str) else self.encoders or []
            pairs = [_named(text) for text in listed]
        kept = [(name, source) for name, source in pairs if source != 'random']
        if len(dict(kept)) < len(kept):
            names = ', '.join(name for name, _ in kept)
            raise ConfigurationError(f'encoders: two have one name ({names}); give names, as in ours=run.ckpt.')
        for name, _ in kept:
            if name in (CONSTANT, STATISTICS, CONVOLUTIONS) or name.startswith(RANDOM):
                raise ConfigurationError(
                    f'encoders: {name} is the name of a baseline; give another, as in ours=run.ckpt.'
                )
        return dict(kept)


def _named(text: str) -> tuple[str, str]:
    name, equals, source = text.partition('=')
    return (name, source) if equals and name and not Path(text).exists() else (encoder_name(text), text)
