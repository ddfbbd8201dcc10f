"""Base of tasks that classify every pixel: classes and bands, forward pass, labels, evaluation."""

import logging
from abc import abstractmethod
from typing import Any, cast

import torch
from torch import Tensor, nn

from torchgeo_msssl.contract import ClassMaps, LabelledData, spectral_data
from torchgeo_msssl.errors import BandError, ConfigurationError
from torchgeo_msssl.models.metadata import EncoderMetadata
from torchgeo_msssl.models.segmentation import pad_to_multiple
from torchgeo_msssl.models.weights import CHECKPOINT_KEY
from torchgeo_msssl.tasks.confusion import accuracy, class_scores, confusion_matrix, mean_iou
from torchgeo_msssl.tasks.segmentation_figures import metric_name
from torchgeo_msssl.tasks.training import TrainingTask
from torchgeo_msssl.transforms.normalize import valid_pixels

log = logging.getLogger(__name__)


class PixelClassification(TrainingTask):
    """A task that classifies every pixel.

    Attributes:
        class_names: Names of the classes, in the order of the logits.
        ignore_index: Value of unlabelled pixels in a mask.
        stride: Images are padded to multiples of this inside :meth:`forward`.
        confusion: Counts (label, prediction) of the current or last evaluation.
        maps: Maps that a test scores, which a callback may set; None to score each test chip by itself.
        baselines: Counts of other classifiers on the same test pixels, which a callback may add, by name.
    """

    monitor = 'val_mean_iou'
    mode = 'max'

    criterion: nn.Module
    ignore_index: int
    stride: int
    confusion: Tensor
    maps: ClassMaps | None = None
    baselines: dict[str, Tensor]
    _class_names: list[str] | None

    @property
    @abstractmethod
    def num_classes(self) -> int:
        """Number of classes."""

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of the logits."""
        return self._class_names or [f'class_{index}' for index in range(self.num_classes)]

    def configure_metrics(self) -> None:
        """Allocate the counts from which every score is computed."""
        counts = torch.zeros(self.num_classes, self.num_classes, dtype=torch.int64)
        self.register_buffer('confusion', counts, persistent=False)
        self.baselines = {}

    @property
    def bands(self) -> list[str]:
        """Canonical names of the bands in the order of the channels; empty if no data module has named them."""
        return list(self._provenance.get('bands', ()))

    # Data and checkpoints.

    @abstractmethod
    def metadata(self) -> EncoderMetadata:
        """Return what is known about the network besides its tensors."""

    def setup(self, stage: str) -> None:
        """Take over bands, statistics and class names from the data module; prediction has them in the checkpoint.

        Raises:
            BandError: If the data have other bands than the network.
            ConfigurationError: If the data have other classes, or an option does not suit this run.
        """
        if stage == 'predict':
            return
        data = spectral_data(self.trainer)
        if isinstance(data, LabelledData):
            self._check_classes(data.class_names)
        data = self.attached_data()
        self._check_bands()
        # without training the data module may have no statistics
        if data is not None and not self._provenance and len(data.mean):
            self.take_data(data)

    def _check_classes(self, names: Any) -> None:
        """Take over the class names of a data module, and check them against the task's."""
        self._class_names = self._class_names or (list(names) if names else None)
        if len(self.class_names) != self.num_classes:
            raise ConfigurationError(
                f'num_classes: the network has {self.num_classes} and the data {len(self.class_names)} '
                f'({", ".join(self.class_names)}); set model.num_classes to {len(self.class_names)}.'
            )
        if names and list(names) != self.class_names:
            raise ConfigurationError(
                f'class_names: the network has {", ".join(self.class_names)} and the data have {", ".join(names)}; '
                'name the same classes in the same order.'
            )

    def _check_bands(self) -> None:
        known, given = self.bands, self._data_bands
        if known and given and known != given:
            raise BandError(
                f'bands: the network was trained on {", ".join(known)} and the data have {", ".join(given)}; set '
                f'data.bands to [{", ".join(known)}].'
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the encoder's metadata and the classes."""
        super().on_save_checkpoint(checkpoint)
        classes = {'class_names': self.class_names, 'ignore_index': self.ignore_index}
        checkpoint[CHECKPOINT_KEY] = self.metadata().to_dict() | classes

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore bands and class names.

        Raises:
            BandError: If the data module has other bands.
        """
        super().on_load_checkpoint(checkpoint)
        saved = checkpoint.get(CHECKPOINT_KEY, {})
        self.restore_provenance(saved)
        self._class_names = saved.get('class_names') or self._class_names
        self._check_bands()

    # Forward.

    def forward(
        self, x: Tensor, valid: Tensor | None = None, scale: Tensor | None = None, offset: Tensor | None = None
    ) -> Tensor:
        """Score every pixel for every class.

        Images may have any size: they are padded at the bottom and on the right with the bands' means (like invalid
        pixels) to a multiple of :attr:`stride`, and the scores are cropped.

        Args:
            x: Digital numbers (batch, band, height, width); :attr:`normalize` is applied.
            valid: Valid pixels (batch, 1, height, width), bool.
            scale: Scale of each sample (batch, band), instead of the buffer's.
            offset: Offset of each sample (batch, band), instead of the buffer's.

        Returns:
            Logits (batch, class, height, width).
        """
        return self.segment(self.normalize(x, valid, scale, offset), self.predictor)

    @property
    def predictor(self) -> nn.Module:
        """Network that is evaluated and predicts: (batch, band, height, width) to logits."""
        return self.model

    def segment(self, x: Tensor, network: nn.Module | None = None) -> Tensor:
        """Score every pixel of standardized images.

        Args:
            x: Standardized values (batch, band, height, width).
            network: Network to apply; None for the trained one.

        Returns:
            Logits (batch, class, height, width).
        """
        height, width = x.shape[-2:]
        network = self.model if network is None else network
        return cast(Tensor, network(pad_to_multiple(x, self.stride))[..., :height, :width])

    def labels(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the labels of a batch.

        Args:
            batch: ``mask`` (batch, height, width), ``image``, and ``valid`` where known.

        Returns:
            Classes (batch, height, width), int64; ``ignore_index`` for unlabelled and for invalid pixels.
        """
        mask = batch['mask'].long()
        mask = mask.squeeze(1) if mask.ndim == 4 else mask
        valid = valid_pixels(batch['image'], batch.get('valid')).squeeze(1)
        return torch.where(valid, mask, self.ignore_index)

    # Evaluation.

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Count labels and predictions of a batch; returns predicted classes (batch, height, width)."""
        return self._evaluate(batch, 'val')

    def test_step(self, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Count labels and predictions of a batch; returns predicted classes (batch, height, width).

        Predictions are those of :attr:`maps`, if there are any.
        """
        if self.maps is None:
            return self._evaluate(batch, 'test')
        mask = self.labels(batch)
        predicted = self.maps.classes(batch).to(mask.device)
        # at the edge of warped scenes, a pixel may hold data in a chip and none in the larger windows of the map
        mask = torch.where(predicted < self.num_classes, mask, self.ignore_index)
        return self._count(predicted, mask)

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Compute class probabilities of a batch without ``mask``.

        Returns:
            ``probabilities`` (batch, class, height, width), and all other keys of the batch but its pixels.
        """
        logits = self._logits(batch)
        others = {key: value for key, value in batch.items() if key not in ('image', 'mask', 'scale', 'offset')}
        return {'probabilities': logits.float().softmax(dim=1), **others}

    def _logits(self, batch: dict[str, Tensor]) -> Tensor:
        return cast(Tensor, self(*(batch.get(key) for key in ('image', 'valid', 'scale', 'offset'))))

    def _evaluate(self, batch: dict[str, Tensor], stage: str) -> Tensor:
        mask, logits = self.labels(batch), self._logits(batch)
        self.log(f'{stage}_loss', self.criterion(logits, mask), batch_size=len(mask), sync_dist=True)
        return self._count(logits.argmax(dim=1), mask)

    def _count(self, prediction: Tensor, mask: Tensor) -> Tensor:
        self.confusion += confusion_matrix(prediction, mask, self.num_classes, self.ignore_index)
        return prediction

    def on_test_start(self) -> None:
        """Check that the task is trained.

        Raises:
            ConfigurationError: If it is neither trained nor loaded.
        """
        self.check_trained()
        if self.maps is None:
            log.info('The test scores chips one by one, not a map.')

    def on_validation_epoch_start(self) -> None:
        """Reset the counts."""
        self.confusion.zero_()
        self.baselines = {}

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_epoch_end(self) -> None:
        """Log the scores."""
        self._log_scores('val')

    def on_test_epoch_end(self) -> None:
        """Log the scores."""
        self._log_scores('test')

    def _log_scores(self, stage: str) -> None:
        if self.trainer.world_size > 1:
            self.confusion.copy_(self.trainer.strategy.reduce(self.confusion, reduce_op='sum'))
        for score, values in class_scores(self.confusion).items():
            for name, value in zip(self.class_names, values.tolist(), strict=True):
                self.log(f'{stage}_{score}_{metric_name(name)}', value)
        self.log(f'{stage}_accuracy', accuracy(self.confusion))
        self.log(f'{stage}_mean_iou', mean_iou(self.confusion), prog_bar=True)
