"""Options of ``probe``."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.evaluation.encoder_names import (
    CONSTANT,
    CONVOLUTIONS,
    RANDOM,
    STATISTICS,
    TEXTURE,
    Features,
    encoder_name,
)
from torchgeo_msssl.evaluation.scores import Average, Metric, metric_name
from torchgeo_msssl.geo.ground.parts import part_names
from torchgeo_msssl.runs import weights_of_run
from torchgeo_msssl.validation import check_choice

ProbeName = Literal['knn', 'linear']
Distance = Literal['cosine', 'euclidean']

#: Inverse regularization strengths to try, scikit-learn's ``C``.
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)


@dataclass(frozen=True)
class ProbeData:
    """Labelled chips.

    Attributes:
        paths: Scenes: files, folders or patterns; chips are cut from them where `labels` has one class. Or a folder of
            chips with masks, whose `train` and `test` parts are used if it is divided. Without paths, folder and csv
            the generated sample area with its fine land cover is used.
        labels: Class rasters of the scenes. If their file names have dates, each raster applies to scenes of its date.
        folder: Use the files of a folder as chips instead, ROOT/CLASS/*.tif or *.jpg, one folder per class; or
            ROOT/train/CLASS/* and ROOT/test/CLASS/*. Images without a CRS are split one by one.
        csv: Use the files of a table as chips instead, with the columns path (absolute or relative to the table),
            label, and optionally split (train or test).
        class_names: For `labels` and masks: names in the order of the values from 0, or names with their values,
            `clear=[1,2],cloud=3`; other values are then unlabelled. Default: every value is a class.
        bands: Bands by name; default: the spectral bands that the files have.
        sensor: Sensor of the scenes, if the files do not name it.
        chip_size: Side of a chip in pixels. Files are cropped to their centre.
        purity: For `labels` and masks: minimum fraction of a chip's pixels that its class covers.
        min_valid: For `labels` and masks: minimum fraction of valid pixels per chip.
        split: How to split the ground: `blocks`; `scenes`, to hold out whole scenes; or a file of polygons with a
            column `split` that holds train, val or test, such as the `split.geojson` of `fit` or `chip`.
        fractions: Fractions of the ground for training and test, or for training, validation and test as in `fit` and
            `chip`. The last part is tested on, the others are for training.
        block_size: Side of a ground block in pixels. Blocks are assigned to training or testing, and resampled for the
            intervals.
        test_scenes: Test on the scenes whose file names match these patterns, such as `2017-10-*`, instead of on
            blocks.
        label_fraction: Fraction of the training chips of each class whose labels are used, at least one; smaller
            fractions lie within larger ones.
        label_draws: Number of draws of these chips; scores are means over them, and intervals include their spread.
        max_chips: Maximum number of training chips and of test chips; more are sampled at random.
        seed: Seed of the assignment of blocks, of that sample, and of the first draw of labels.
        offset: Digital number added before scaling; `auto` reads it from metadata or date.
        sample_dir: Folder of the sample area, which is generated if missing.
    """

    paths: str | list[str] | None = None
    labels: str | list[str] | None = None
    folder: str | None = None
    csv: str | None = None
    class_names: list[str] | dict[str, int | list[int]] | None = None
    bands: list[str] | None = None
    sensor: str | None = None
    chip_size: int = 32
    purity: float = 0.7
    min_valid: float = 0.9
    split: str = 'blocks'
    fractions: tuple[float, ...] = (0.5, 0.5)
    block_size: int = 128
    test_scenes: str | list[str] | None = None
    label_fraction: float = 1.0
    label_draws: int = 1
    max_chips: int = 10_000
    seed: int = 0
    offset: float | Literal['auto'] = 'auto'
    sample_dir: str = 'data/sample'

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ConfigurationError: If options are out of range or contradict each other.
        """
        if sum(value is not None for value in (self.paths, self.folder, self.csv)) > 1:
            raise ConfigurationError('data: expected one of paths (with labels), folder and csv, got several.')
        if self.paths is not None and self.labels is None and not self.is_chip_folder:
            raise ConfigurationError(
                'data.labels: scenes need a class raster; set labels, use csv, or give a folder of chips with masks.'
            )
        part_names(self.fractions)
        if not 0 < self.purity <= 1:
            raise ConfigurationError(f'data.purity: expected a fraction above 0, at most 1, got {self.purity}.')
        if self.block_size < self.chip_size:
            msg = f'data.block_size: expected at least chip_size {self.chip_size}, got {self.block_size}.'
            raise ConfigurationError(msg)
        if not 0 < self.label_fraction <= 1:
            msg = f'data.label_fraction: expected a fraction above 0, at most 1, got {self.label_fraction}.'
            raise ConfigurationError(msg)
        if self.label_draws < 1 or (self.label_draws > 1 and self.label_fraction == 1):
            raise ConfigurationError(
                f'data.label_draws: expected 1, or more with a label_fraction below 1, got {self.label_draws}.'
            )
        if self.max_chips < 2:
            raise ConfigurationError(f'data.max_chips: expected at least 2, got {self.max_chips}.')

    @property
    def is_chip_folder(self) -> bool:
        """Whether `paths` is a folder of chips."""
        if not isinstance(self.paths, str):
            return False
        from torchgeo_msssl.datasets.chip_folders import is_chip_folder  # imports torch, which `--help` does not need

        return is_chip_folder(self.paths)


@dataclass(frozen=True)
class ProbeSettings:
    """Classify frozen features of encoders and of baselines without learned weights.

    Attributes:
        data: Labelled chips.
        encoders: Checkpoints, encoder.safetensors files, runs such as `fastsiam_s2`, names of TorchGeo weights, or
            `imagenet`; one, several, or by name, `ours=run.ckpt`. The baselines are always included.
        model: timm name of the network for random weights, `imagenet`, and weights that do not name theirs.
        stem: Stride of the first layers of that network with random weights if no encoder is given: `standard`,
            `medium` or `small`.
        features: Features of all networks: the pooled `last` map, or the means of the maps of all `stages`,
            standardized over the training chips.
        probe: Probes: `knn`, `linear` (logistic regression).
        k: Number of neighbours.
        temperature: Weight the votes of neighbours by exp(similarity / temperature), 0.07 in the literature; null
            weights them equally.
        distance: Distance between neighbours.
        strengths: Inverse regularization strengths of the linear probe to choose from.
        metric: Scores; the first one is plotted and compared with random initialisation.
        average: Mean over classes of precision, recall, f1 and average_precision.
        top_k: For accuracy: also count a chip as correct if its class is among this many; 1 counts the first alone.
        interval: Units that the bootstrap resamples: ground blocks, or chips (intervals are then too narrow, because
            neighbouring chips are alike).
        level: Confidence level of the intervals.
        resamples: Number of bootstrap resamples.
        seeds: Number of draws of random weights.
        experiment: Name of the experiment in results.csv, and of the folder in `runs`.
        output: Folder to write into; default: the next runs/EXPERIMENT/version_N.
        batch_size: Chips per batch.
        device: `auto`, `cpu`, `cuda`, …
    """

    data: ProbeData = field(default_factory=ProbeData)
    encoders: str | list[str] | dict[str, str] | None = None
    model: str = 'resnet18'
    stem: Literal['standard', 'medium', 'small'] = 'standard'
    features: Features = 'last'
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
        """Check the options.

        Raises:
            ConfigurationError: If an option is out of its range.
        """
        given: dict[str, tuple[Sequence[str], Sequence[str]]] = {
            'probe': (self.probes, get_args(ProbeName)),
            'metric': (self.metrics, get_args(Metric)),
        }
        for name, (values, choices) in given.items():
            if not values or not set(values) <= set(choices):
                raise ConfigurationError(f'{name}: expected one or more of {", ".join(choices)}, got {values}.')
        check_choice('features', self.features, Features)
        check_choice('stem', self.stem, ('standard', 'medium', 'small'))
        metric_name(self.metrics[0], self.average, self.top_k)
        for option in ('k', 'top_k', 'seeds', 'resamples', 'batch_size'):
            if getattr(self, option) < 1:
                raise ConfigurationError(f'{option}: expected at least 1, got {getattr(self, option)}.')
        if self.top_k > 1 and 'accuracy' not in self.metrics:
            raise ConfigurationError(f'top_k: {self.top_k} applies to accuracy; add accuracy to metric.')
        if self.temperature is not None and not self.temperature > 0:
            msg = f'temperature: expected a number above 0, or null for equal votes, got {self.temperature}.'
            raise ConfigurationError(msg)
        if not 0 < self.level < 1:
            raise ConfigurationError(f'level: expected a fraction between 0 and 1, got {self.level}.')
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
        """Sources of the encoders by name, without ``random``, which is a baseline anyway.

        Raises:
            ConfigurationError: If two encoders have the same name, or one has the name of a baseline.
        """
        if isinstance(self.encoders, dict):
            pairs = list(self.encoders.items())
        else:
            listed = [self.encoders] if isinstance(self.encoders, str) else self.encoders or []
            pairs = [_named(text) for text in listed]
        kept = [(name, source) for name, source in pairs if source != 'random']
        if len(dict(kept)) < len(kept):
            names = ', '.join(name for name, _ in kept)
            raise ConfigurationError(f'encoders: two have the same name ({names}); name them, as in ours=run.ckpt.')
        for name, _ in kept:
            if name in (CONSTANT, STATISTICS, TEXTURE, CONVOLUTIONS) or name.startswith(RANDOM):
                msg = f'encoders: {name} is the name of a baseline; choose another, as in ours=run.ckpt.'
                raise ConfigurationError(msg)
        return dict(kept)


def _named(text: str) -> tuple[str, str]:
    name, equals, source = text.partition('=')
    if equals and name and not Path(text).exists():
        return name, str(weights_of_run(source) or source)
    path = str(weights_of_run(text) or text)
    return encoder_name(path), path
