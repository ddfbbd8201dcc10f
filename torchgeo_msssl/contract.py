"""Protocols between data modules, tasks and what evaluates them.

Data modules and tasks do not import each other. What one of them needs from the other is written down here; a class
satisfies a protocol by having its members, without inheriting from it. Data modules of other packages satisfy none and
remain usable: tasks then take bands and statistics from their own options.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from torchgeo_msssl.errors import ConfigurationError

if TYPE_CHECKING:
    import torch
    from lightning.pytorch import Trainer
    from shapely.geometry.base import BaseGeometry
    from torch import Tensor, nn

    from torchgeo_msssl.datasets.scenes import Scenes
    from torchgeo_msssl.models.metadata import EncoderMetadata

#: Key of the unlabelled chips in a training batch: a batch without ``mask``.
UNLABELLED = 'unlabelled'


#: Second chip of a training chip: itself, the same place on another (earlier, later) date, or a neighbouring place.
Positives = Literal['same', 'temporal', 'earlier', 'later', 'nearby']
#: Kinds of positives that lie on another date.
DATED_POSITIVES = ('temporal', 'earlier', 'later')


@runtime_checkable
class SpectralData(Protocol):
    """Data module that knows the bands of its chips and their statistics.

    Everything but ``mean`` and ``std`` is known as soon as the files are; these two once ``setup('fit')`` has run, and
    are empty before.
    """

    @property
    def bands(self) -> Sequence[str]:
        """Canonical names of the bands, in the order of the channels."""

    @property
    def in_channels(self) -> int:
        """Number of bands."""

    @property
    def wavelengths(self) -> Sequence[float | None]:
        """Central wavelength of each band in nanometres, None where unknown."""

    @property
    def sensor_name(self) -> str | None:
        """Key of the sensor in :data:`torchgeo_msssl.bands.SENSORS`, None where unknown."""

    @property
    def rgb_index(self) -> tuple[int, int, int]:
        """Channels to display as red, green and blue."""

    @property
    def chip_size(self) -> int:
        """Side of the chips in pixels."""

    @property
    def batch_size(self) -> int:
        """Chips per batch on each rank."""

    @property
    def scale(self) -> Sequence[float]:
        """Reflectance per digital number, for each band."""

    @property
    def offset(self) -> Sequence[float]:
        """Digital number added before scaling, for each band."""

    @property
    def mean(self) -> Sequence[float]:
        """Mean reflectance of each band."""

    @property
    def std(self) -> Sequence[float]:
        """Standard deviation of the reflectance of each band."""

    def describe_chips(self, batch: 'dict[str, Tensor]') -> list[str]:
        """Return file and window of each chip of a training batch, for messages."""


@runtime_checkable
class PixelSizeData(Protocol):
    """Data module that knows the size of its pixels on the ground."""

    @property
    def pixel_size(self) -> float | None:
        """Side of a pixel in metres, None where unknown."""


@runtime_checkable
class PretrainingData(SpectralData, Protocol):
    """Data module of unlabelled chips."""

    @property
    def epoch_chips(self) -> int | None:
        """Chips per epoch over all ranks, None where unknown before ``setup('fit')``."""

    @property
    def holds_out(self) -> bool:
        """Whether some chips are held out for validation."""


@runtime_checkable
class PositivesData(Protocol):
    """Data module whose chips may have a second one, from which half of the views are cut."""

    @property
    def positives(self) -> Positives:
        """Which one: the chip itself, the same place on another (earlier, later) date, or a neighbouring place."""


@runtime_checkable
class LabelledData(SpectralData, Protocol):
    """Data module of chips with class masks."""

    @property
    def class_names(self) -> Sequence[str] | None:
        """Names of the classes; the index is the value in a mask."""

    @property
    def ignore_index(self) -> int:
        """Value of unlabelled pixels in a mask."""

    def region_loader(self, part: str, context: int = 0) -> 'Iterable[dict[str, Tensor]]':
        """Return batches that cover a part once, in order, the same on every rank.

        Args:
            part: ``train``, ``val`` or ``test``.
            context: Pixels around each test chip of scenes that are read too, without labels.
        """


@runtime_checkable
class MappedData(LabelledData, Protocol):
    """Data module whose test may score a map of scenes instead of chips."""

    @property
    def mapped_ground(self) -> 'tuple[Scenes, BaseGeometry] | None':
        """Scenes whose map a test scores, with the test ground in their CRS; None for a folder of chips."""


class ClassMaps(Protocol):
    """Class maps of scenes, which a test scores."""

    def classes(self, batch: 'dict[str, Tensor]') -> 'Tensor':
        """Return the classes of a batch of windows.

        Args:
            batch: ``scene`` (batch,) and ``window`` (batch, 4): row, column, height and width.

        Returns:
            Classes (batch, height, width), int64.
        """


@runtime_checkable
class UnlabelledData(LabelledData, Protocol):
    """Data module that can add unlabelled chips of the training ground to its training batches."""

    def add_unlabelled(self) -> None:
        """Add as many unlabelled chips to each training batch as it has labelled ones, under :data:`UNLABELLED`.

        A task calls it in ``setup('fit')``, before loaders are made. The labelled chips stay the same. Unlabelled ones
        lie in the whole training ground, whether its labels are used or not, and never in that of validation or test.
        """


@runtime_checkable
class CountedClasses(Protocol):
    """Data module whose labels tell the number of classes, which the command line gives to the task."""

    @property
    def num_classes(self) -> int:
        """Number of classes, for which the labels may be opened."""


@runtime_checkable
class ProbedData(Protocol):
    """Data module of scenes, with class rasters if a frozen probe is to classify their chips."""

    @property
    def scenes(self) -> 'Scenes':
        """The scenes."""

    @property
    def labels(self) -> str | Sequence[str] | None:
        """Class rasters of the same ground: files, folders or patterns; None without any."""


@runtime_checkable
class PredictionData(Protocol):
    """Data module that names scenes to predict."""

    @property
    def predict_paths(self) -> str | Sequence[str] | None:
        """Scenes to predict: files, folders or patterns."""

    @property
    def sensor(self) -> str | None:
        """Sensor of the scenes, None to detect it."""

    @property
    def crs(self) -> str | None:
        """CRS to bring scenes to, None for their own."""

    @property
    def res(self) -> float | None:
        """Pixel size to bring scenes to, in units of the CRS, None for their own."""

    @property
    def offset_option(self) -> float | Literal['auto']:
        """Digital number added before scaling; ``auto`` reads it from metadata or date."""

    @property
    def on_bad_scene(self) -> Literal['raise', 'skip']:
        """Whether a scene that cannot be read is an error, or is left out and counted."""


class EncoderTask(Protocol):
    """Task whose encoder can be evaluated or exported.

    For type checkers only: ``isinstance`` does not see the submodules and buffers of a module.
    """

    @property
    def model(self) -> 'nn.Module':
        """The encoder, from standardized reflectance (batch, band, height, width) to features."""

    @property
    def normalize(self) -> 'nn.Module':
        """Standardization of ``(image, valid, scale, offset)``."""

    @property
    def hparams(self) -> Any:
        """Hyperparameters, with the encoder's timm name ``model`` and ``in_channels``."""

    @property
    def device(self) -> 'torch.device':
        """Device of the parameters."""

    def metadata(self) -> 'EncoderMetadata':
        """Return what is known about the encoder besides its tensors."""


class SegmentationTask(Protocol):
    """Task that assigns a class to each pixel. For type checkers only, like :class:`EncoderTask`."""

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the classes, in the order of the logits."""

    @property
    def device(self) -> 'torch.device':
        """Device of the parameters."""

    @property
    def ignore_index(self) -> int:
        """Value of unlabelled pixels in a mask."""

    @property
    def confusion(self) -> 'Tensor':
        """Pixels by class and predicted class (class, class) of the last evaluation."""

    def labels(self, batch: 'dict[str, Tensor]') -> 'Tensor':
        """Return the masks of a batch (batch, height, width), unlabelled where there are no data."""

    def reflectance(self, batch: 'dict[str, Tensor]') -> 'Tensor':
        """Return the chips of a batch in reflectance (batch, band, height, width)."""


def spectral_data(trainer: 'Trainer | None') -> SpectralData | None:
    """Find the data module attached to a trainer.

    Args:
        trainer: Trainer, or None for a task without one.

    Returns:
        The data module if it knows its bands and their statistics; None for those of other packages, or without any.

    Raises:
        ConfigurationError: If it has a part of :class:`SpectralData` only, which would silently remain unused.
    """
    data = trainer.datamodule if trainer is not None else None  # type: ignore[attr-defined]
    if isinstance(data, SpectralData):
        return data
    members = dict.fromkeys(dir(data))
    if 'bands' in members and 'sensor_name' in members:
        missing = [name for name in _MEMBERS if name not in members]
        raise ConfigurationError(
            f'data: {type(data).__name__} has bands and sensor_name and lacks {", ".join(missing)}; add what '
            'torchgeo_msssl.contract.SpectralData describes.'
        )
    return None


_MEMBERS = tuple(name for name in vars(SpectralData) if not name.startswith('_'))
