"""Semantic segmentation with an encoder that was pretrained elsewhere."""

import logging
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from torchgeo_msssl.errors import BandError, ConfigurationError
from torchgeo_msssl.files import write_json
from torchgeo_msssl.losses.segmentation import SegmentationLoss, SegmentationLossName
from torchgeo_msssl.models.metadata import EncoderMetadata, statistics_by_name
from torchgeo_msssl.models.report import LoadReport
from torchgeo_msssl.models.segmentation import Architecture, create_network, pad_to_multiple, total_stride
from torchgeo_msssl.models.weights import CHECKPOINT_KEY, load_encoder, load_network, read_source
from torchgeo_msssl.runs import run_folder
from torchgeo_msssl.tasks.confusion import accuracy, class_scores, confusion_matrix, mean_iou
from torchgeo_msssl.tasks.optimizers import (
    OptimizerName,
    ParameterGroup,
    cosine_with_warmup,
    create_optimizer,
    parameter_groups,
)
from torchgeo_msssl.tasks.segmentation_figures import SegmentationFolder, metric_name
from torchgeo_msssl.tasks.training import TrainingTask
from torchgeo_msssl.transforms.normalize import Normalize, valid_pixels
from torchgeo_msssl.transforms.spectral import apply_gain, check_interval, uniform_between
from torchgeo_msssl.transforms.symmetries import apply_symmetries, random_symmetries

log = logging.getLogger(__name__)

Transfer = Literal['encoder', 'network']
Freeze = Literal['none', 'encoder', 'encoder_until']
Scheduler = Literal['cosine', 'plateau', 'none']
Statistics = Literal['auto', 'weights', 'data']

#: Bands whose mean differs by more of the weights' standard deviations are worth a warning.
_FAR_STATISTICS = 3.0


class Segmentation(TrainingTask):
    """Label every pixel, on an smp network with any encoder and any number of bands.

    A batch has ``image`` (batch, band, height, width) in digital numbers of native dtype and ``mask`` (batch, height,
    width), and where they are known ``valid`` (batch, 1, height, width), ``scale`` and ``offset`` (batch, band).
    Invalid pixels are not labelled, whatever the mask says.

    **Normalisation travels with the weights.** Mean and standard deviation of reflectance are taken, once, from the
    weights if these are ours and have statistics for every band of the data, by name (and from the data otherwise);
    scale and offset, which say what digital numbers mean, from the data. From then on they are buffers of the task and
    stay, in every checkpoint. What was taken is logged and kept in ``weights_report.json``.

    Attributes:
        normalize: Digital numbers to standardised reflectance, saved with the weights.
        class_names: Names of the classes, in the order of the logits.
        stride: Images are padded to multiples of this inside :meth:`forward`.
        confusion: Counts (label, prediction) of the evaluation that is going on, or was the last.
    """

    monitor = 'val_mean_iou'
    mode = 'max'

    normalize: Normalize
    confusion: Tensor

    def __init__(
        self,
        model: Architecture = 'unet',
        backbone: str = 'resnet18',
        weights: str | None = None,
        in_channels: int = 12,
        num_classes: int = 2,
        class_names: list[str] | None = None,
        transfer: Transfer = 'encoder',
        statistics: Statistics = 'auto',
        loss: SegmentationLossName = 'ce',
        class_weights: list[float] | None = None,
        focal_gamma: float = 2.0,
        ignore_index: int = 255,
        optimizer: OptimizerName = 'adamw',
        lr: float = 1e-3,
        weight_decay: float = 1e-2,
        momentum: float = 0.9,
        encoder_lr_factor: float = 1.0,
        scheduler: Scheduler = 'cosine',
        warmup_epochs: float = 0,
        patience: int = 10,
        freeze: Freeze = 'none',
        freeze_until_step: int = 0,
        flips: bool = True,
        quarter_turns: bool = True,
        common_gain: tuple[float, float] = (0.8, 1.2),
        band_gain: tuple[float, float] = (0.9, 1.1),
    ) -> None:
        """Build the network.

        Args:
            model: Architecture.
            backbone: Encoder: a timm name, with or without ``tu-``, or one of smp's.
            weights: What to start from: a checkpoint, a safetensors file, the name of a TorchGeo weight, ``imagenet``,
                or None for random weights.
            in_channels: Number of bands (this package's command line takes it from the data).
            num_classes: Number of classes.
            class_names: Names of the classes; None takes the data module's.
            transfer: ``encoder`` hands over the encoder alone; ``network`` takes everything but the last layer from
                the checkpoint of another segmentation, say of coarser classes.
            statistics: Mean and standard deviation that normalise: of the ``weights``, of the ``data``, or ``auto``
                for those of the weights where these have every band.
            loss: ``ce``, ``dice``, ``focal``, ``jaccard`` or ``ce+dice``.
            class_weights: Weight of each class in the loss.
            focal_gamma: Exponent of the focal loss.
            ignore_index: Label of pixels without label.
            optimizer: ``sgd``, ``adam``, ``adamw`` or ``lars``.
            lr: Largest learning rate.
            weight_decay: Weight decay; norms and biases are exempt.
            momentum: Momentum of SGD and LARS.
            encoder_lr_factor: Factor on the encoder's learning rate.
            scheduler: ``cosine`` (with warm-up, by step), ``plateau`` of the mean IoU of validation, or ``none``.
            warmup_epochs: Epochs in which the learning rate rises (cosine only).
            patience: Epochs without progress after which the learning rate falls to a tenth (plateau only).
            freeze: ``none``; ``encoder`` for good; ``encoder_until`` the step ``freeze_until_step``.
            freeze_until_step: Optimizer steps for which the encoder is frozen.
            flips: Whether chips are mirrored at random in training.
            quarter_turns: Whether chips are turned at random in training.
            common_gain: Smallest and largest gain common to all bands in training.
            band_gain: Smallest and largest gain of one band in training.

        Raises:
            ConfigurationError: If an option is out of its range, or architecture and encoder do not go together.
        """
        _check_options(
            {'transfer': (transfer, Transfer), 'statistics': (statistics, Statistics), 'freeze': (freeze, Freeze),
             'scheduler': (scheduler, Scheduler)},
            {'warmup_epochs': warmup_epochs, 'patience': patience, 'encoder_lr_factor': encoder_lr_factor,
             'freeze_until_step': freeze_until_step, 'weight_decay': weight_decay},
        )  # fmt: skip
        if (freeze == 'encoder_until') != (freeze_until_step > 0):
            raise ConfigurationError(
                f'freeze_until_step: freeze {freeze!r} does not go with {freeze_until_step} steps; set both '
                "freeze='encoder_until' and the number of steps, or neither."
            )
        if class_names is not None and (len(class_names) != num_classes or len(set(class_names)) != num_classes):
            raise ConfigurationError(
                f'class_names: expected {num_classes} different names (num_classes), got {", ".join(class_names)}.'
            )
        # BaseTask.__init__ calls configure_models, which reads these; under a CLI, hparams hold the file's values,
        # before links were applied
        self._network_arguments = (model, backbone, in_channels, num_classes)
        self._loss_arguments = (loss, num_classes, ignore_index, class_weights, focal_gamma)
        self._class_names = list(class_names) if class_names else None
        self.weights = weights
        self.transfer: Transfer = transfer
        self.statistics: Statistics = statistics
        self.ignore_index = ignore_index
        self.optimizer: OptimizerName = optimizer
        self.lr = lr
        self.weight_decay = weight_decay
        self.momentum = momentum
        self.encoder_lr_factor = encoder_lr_factor
        self.scheduler: Scheduler = scheduler
        self.warmup_epochs = warmup_epochs
        self.patience = patience
        self.freeze_mode: Freeze = freeze
        self.freeze_until_step = freeze_until_step
        self.flips = flips
        self.quarter_turns = quarter_turns
        self.common_gain = check_interval('common_gain', common_gain, 0)
        self.band_gain = check_interval('band_gain', band_gain, 0)
        self.encoder_frozen = False
        self._started = False  # whether there is something learnt
        super().__init__()
        self.hparams.update({'in_channels': in_channels, 'num_classes': num_classes})
        self.freeze_encoder(freeze != 'none')

    def configure_models(self) -> None:
        """Build network and normalisation."""
        architecture, backbone, in_channels, num_classes = self._network_arguments
        self.model = create_network(architecture, backbone, in_channels, num_classes)
        self.stride = total_stride(self.model)
        self.normalize = Normalize(in_channels)

    def configure_losses(self) -> None:
        """Build the loss."""
        self.criterion = SegmentationLoss(*self._loss_arguments)

    def configure_metrics(self) -> None:
        """Make room for the counts, from which every score is computed."""
        counts = torch.zeros(self.num_classes, self.num_classes, dtype=torch.int64)
        self.register_buffer('confusion', counts, persistent=False)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self._network_arguments[3]

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of the logits."""
        return self._class_names or [f'class_{index}' for index in range(self.num_classes)]

    @property
    def bands(self) -> list[str]:
        """Canonical names of the bands in the order of the channels; empty where no data module has told them."""
        return list(self._provenance.get('bands', ()))

    # Weights.

    def setup(self, stage: str) -> None:
        """Take bands, statistics and class names over from the data module.

        Args:
            stage: ``fit``, ``validate``, ``test`` or ``predict``, for which everything is in the checkpoint.

        Raises:
            BandError: If the data have other bands than the network.
            ConfigurationError: If the data have other classes, or an option does not suit this run.
        """
        if stage == 'predict':
            return
        if stage == 'fit' and self.freeze_mode == 'encoder_until' and self.trainer.world_size > 1:
            raise ConfigurationError(
                'freeze: parameters that thaw later are not synchronised between devices; take encoder or none, or '
                'one device.'
            )
        data = getattr(self.trainer, 'datamodule', None)
        data = data if hasattr(data, 'bands') else None
        if data is not None:
            self._check_data(data)
            self._take_data(data)

    def on_fit_start(self) -> None:
        """Load the starting weights, unless there is something learnt to go on with.

        Only now is it known whether the run resumes a checkpoint, which needs no weights besides.

        Raises:
            ConfigurationError: If the weights have no statistics and only theirs are wanted.
            WeightsError: If the weights do not fit.
        """
        if self._started:
            return
        data = getattr(self.trainer, 'datamodule', None)
        data = data if hasattr(data, 'bands') else None
        report = self._load_weights(data)
        taken = self._take_statistics(data)
        self._started = True
        log.info('%s', report)
        log.info('Mean and standard deviation of the bands: %s.', taken)
        folder = run_folder(self.trainer)
        if folder is not None and self.trainer.is_global_zero:
            write_json(folder / 'weights_report.json', report.to_dict() | {'statistics': taken})

    def _load_weights(self, data: Any) -> LoadReport:
        bands = {} if data is None else {'bands': data.bands, 'sensor': data.sensor_name}
        if self.weights is not None and self.transfer == 'network':
            return load_network(self.model, self.weights, **bands)
        if self.weights is None and self.freeze_mode == 'encoder':
            log.warning('The encoder is frozen with random weights: set weights, or freeze none.')
        return load_encoder(self.model, self.weights, **bands)

    def _check_data(self, data: Any) -> None:
        """Take over the class names of a data module, and see that it has our classes and bands."""
        names = getattr(data, 'class_names', None)
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
        if len(data.bands) != self.normalize.in_channels:
            raise BandError(
                f'in_channels: the network takes {self.normalize.in_channels} bands and the data have '
                f'{len(data.bands)} ({", ".join(data.bands)}); set model.in_channels to {len(data.bands)}, or run '
                '`python -m torchgeo_msssl fit`, which does so.'
            )
        self._data_bands = list(data.bands)
        self._check_bands()

    def _take_data(self, data: Any) -> None:
        """Take over what the data module knows, once; it may have no statistics where nothing is trained."""
        if self._provenance or not len(data.mean):
            return
        self.normalize.set_statistics(data.mean, data.std, data.scale, data.offset)
        self.take_provenance(data)

    def _take_statistics(self, data: Any) -> str:
        """Take mean and standard deviation from the weights where these have them, and say where they are from."""
        if data is None:
            return 'none, since the data module names no bands; its values are taken as they are'
        source, known = self.weights, None
        if source is not None and self.statistics != 'data' and Path(source).is_file():
            metadata = read_source(source).metadata
            known = statistics_by_name(metadata, data.bands, data.sensor_name) if metadata else None
        if known is None:
            if source is not None and self.statistics == 'weights':
                raise ConfigurationError(
                    f'statistics: {source} has none for {", ".join(data.bands)}; take statistics auto or data.'
                )
            return 'from the data'
        distances = [abs(own - other) / spread for own, other, spread in zip(data.mean, *known, strict=True)]
        farthest = max(range(len(distances)), key=distances.__getitem__)
        if distances[farthest] > _FAR_STATISTICS:
            log.warning(
                'In band %s the mean of the data, %.4g, is %.1f standard deviations from what the weights saw, %.4g: '
                'check scale and offset, or take statistics: data.',
                data.bands[farthest], data.mean[farthest], distances[farthest], known[0][farthest],
            )  # fmt: skip
        self.normalize.set_statistics(*known, data.scale, data.offset)
        return f'from the weights ({source})'

    def _check_bands(self) -> None:
        known, given = self.bands, self._data_bands
        if known and given and known != given:
            raise BandError(
                f'bands: the network was trained on {", ".join(known)} and the data give {", ".join(given)}; set '
                f'data.bands to [{", ".join(known)}].'
            )

    def metadata(self) -> EncoderMetadata:
        """What has to be known about the encoder besides its tensors."""
        return self.metadata_of('segmentation', self._network_arguments[1].removeprefix('tu-'))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the encoder's metadata and the classes."""
        super().on_save_checkpoint(checkpoint)
        classes = {'class_names': self.class_names, 'ignore_index': self.ignore_index}
        checkpoint[CHECKPOINT_KEY] = self.metadata().to_dict() | classes

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take bands and class names back.

        Raises:
            BandError: If the data module has other bands.
        """
        super().on_load_checkpoint(checkpoint)
        self._started = True
        kept = checkpoint.get(CHECKPOINT_KEY, {})
        self.restore_provenance(kept)
        self._class_names = kept.get('class_names') or self._class_names
        self._check_bands()

    # Frozen encoder.

    def freeze_encoder(self, frozen: bool) -> None:
        """Freeze or thaw the encoder; while frozen it is in eval mode, so that running statistics stay too.

        Args:
            frozen: Whether to freeze.
        """
        self.encoder_frozen = frozen
        self.model.encoder.requires_grad_(not frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> 'Segmentation':
        """Switch between training and evaluation; a frozen encoder stays in evaluation.

        Args:
            mode: Whether to train.

        Returns:
            Itself.
        """
        super().train(mode)
        if self.encoder_frozen:
            self.model.encoder.eval()
        return self

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Thaw the encoder when it is time, which depends on the step alone."""
        frozen = self.freeze_mode == 'encoder' or self.global_step < self.freeze_until_step
        if frozen != self.encoder_frozen:
            log.info('The encoder is %s at step %d.', 'frozen' if frozen else 'trained', self.global_step)
            self.freeze_encoder(frozen)

    # Forward.

    def forward(
        self, x: Tensor, valid: Tensor | None = None, scale: Tensor | None = None, offset: Tensor | None = None
    ) -> Tensor:
        """Score every pixel for every class.

        Images of any size are taken: at the bottom and on the right they are padded with the bands' means (what
        invalid pixels are) to a multiple of :attr:`stride`, and the scores are cropped.

        Args:
            x: Digital numbers (batch, band, height, width); :attr:`normalize` is applied.
            valid: Valid pixels (batch, 1, height, width), bool.
            scale: Scale of each sample (batch, band), instead of the buffer's.
            offset: Offset of each sample (batch, band), instead of the buffer's.

        Returns:
            Logits (batch, class, height, width).
        """
        return self.segment(self.normalize(x, valid, scale, offset))

    def segment(self, x: Tensor) -> Tensor:
        """Score every pixel of images that are standardised already.

        Args:
            x: Standardised values (batch, band, height, width).

        Returns:
            Logits (batch, class, height, width).
        """
        height, width = x.shape[-2:]
        return cast(Tensor, self.model(pad_to_multiple(x, self.stride))[..., :height, :width])

    def reflectance(self, batch: dict[str, Tensor]) -> Tensor:
        """Turn the chips of a batch into reflectance.

        Args:
            batch: ``image`` with ``valid``, ``scale`` and ``offset`` where they are known.

        Returns:
            Reflectance (batch, band, height, width), the band's mean where there are no data.
        """
        known = (batch.get(key) for key in ('valid', 'scale', 'offset'))
        return self.normalize.reflectance(batch['image'], *known)

    def labels(self, batch: dict[str, Tensor]) -> Tensor:
        """Labels of the pixels that hold data.

        Args:
            batch: ``mask`` (batch, height, width), ``image``, and ``valid`` where it is known.

        Returns:
            Classes (batch, height, width), int64, ``ignore_index`` where there is no label or no data.
        """
        mask = batch['mask'].long()
        mask = mask.squeeze(1) if mask.ndim == 4 else mask
        valid = valid_pixels(batch['image'], batch.get('valid')).squeeze(1)
        return torch.where(valid, mask, self.ignore_index)

    @torch.no_grad()
    def augmented(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Augment chips for training: gains on reflectance; mirrored and turned together with their labels.

        Args:
            batch: A batch of chips.

        Returns:
            Standardised values (batch, band, height, width) and labels (batch, height, width).
        """
        image, mask = self.reflectance(batch), self.labels(batch)
        size, bands, height, width = image.shape
        common = uniform_between(torch.rand(size, 1, device=image.device), self.common_gain)
        per_band = uniform_between(torch.rand(size, bands, device=image.device), self.band_gain)
        valid = valid_pixels(batch['image'], batch.get('valid'))
        image = self.normalize.standardise(apply_gain(image, common * per_band), valid)
        symmetries = random_symmetries(size, height == width, self.flips, self.quarter_turns, image.device)
        return apply_symmetries(image, symmetries), apply_symmetries(mask, symmetries)

    # Steps.

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Compute the loss of a batch, log it, and stop where it is not finite.

        Args:
            batch: A batch of chips.
            batch_idx: Index in the epoch.

        Returns:
            Loss, a scalar.

        Raises:
            NonFiniteLossError: If the loss is NaN or infinite.
        """
        self.seed_step(self.trainer.fit_loop.total_batch_idx)
        image, mask = self.augmented(batch)
        loss: Tensor = self.criterion(self.segment(image), mask)
        self.check_finite(loss, batch)
        size = len(image)
        self.log('train_loss', loss, on_step=True, on_epoch=True, prog_bar=True, sync_dist=True, batch_size=size)
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Count labels and predictions of a batch.

        Args:
            batch: A batch of chips.
            batch_idx: Index in the epoch.
            dataloader_idx: Ignored.

        Returns:
            Predicted classes (batch, height, width).
        """
        return self._evaluate(batch, 'val')

    def test_step(self, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Count labels and predictions of a batch.

        Args:
            batch: A batch of chips.
            batch_idx: Index in the epoch.
            dataloader_idx: Ignored.

        Returns:
            Predicted classes (batch, height, width).
        """
        return self._evaluate(batch, 'test')

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Compute class probabilities.

        Args:
            batch: A batch of chips, without ``mask``.
            batch_idx: Index in the epoch.
            dataloader_idx: Ignored.

        Returns:
            ``probabilities`` (batch, class, height, width), and whatever else the batch had besides its pixels.
        """
        logits = self(*(batch.get(key) for key in ('image', 'valid', 'scale', 'offset')))
        place = {key: value for key, value in batch.items() if key not in ('image', 'mask', 'scale', 'offset')}
        return {'probabilities': logits.float().softmax(dim=1), **place}

    def _evaluate(self, batch: dict[str, Tensor], stage: str) -> Tensor:
        mask = self.labels(batch)
        logits = self(*(batch.get(key) for key in ('image', 'valid', 'scale', 'offset')))
        self.log(f'{stage}_loss', self.criterion(logits, mask), batch_size=len(mask), sync_dist=True)
        prediction = logits.argmax(dim=1)
        self.confusion += confusion_matrix(prediction, mask, self.num_classes, self.ignore_index)
        return prediction

    def on_test_start(self) -> None:
        """See that there is something to test.

        Raises:
            ConfigurationError: If the task is neither trained nor loaded.
        """
        self.check_trained()

    def on_validation_epoch_start(self) -> None:
        """Start counting."""
        self.confusion.zero_()

    def on_test_epoch_start(self) -> None:
        """Start counting."""
        self.confusion.zero_()

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

    # Optimizer.

    def parameter_groups(self) -> list[ParameterGroup]:
        """Parameter groups of the optimizer: the encoder, with its own rate, then the rest.

        An encoder that will thaw is among them from the beginning; without gradients nothing happens to it.
        """
        rest = [module for name, module in self.model.named_children() if name != 'encoder']
        groups = parameter_groups(rest, self.weight_decay)
        if self.freeze_mode == 'encoder':
            return groups
        self.model.encoder.requires_grad_(True)
        encoder = parameter_groups([self.model.encoder], self.weight_decay)
        self.model.encoder.requires_grad_(not self.encoder_frozen)
        rate = {'lr': self.lr * self.encoder_lr_factor}
        return [*(group | rate for group in encoder), *groups]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build optimizer and scheduler.

        Returns:
            Optimizer and scheduler.

        Raises:
            ConfigurationError: If the cosine has no end.
        """
        optimizer = create_optimizer(self.optimizer, self.parameter_groups(), self.lr, self.momentum)
        match self.scheduler:
            case 'none':
                return optimizer
            case 'plateau':
                plateau = ReduceLROnPlateau(optimizer, mode=cast(Any, self.mode), patience=self.patience)
                return {'optimizer': optimizer, 'lr_scheduler': {'scheduler': plateau, 'monitor': self.monitor}}
            case 'cosine':
                cosine = cosine_with_warmup(optimizer, *self.schedule_steps(self.warmup_epochs))
                return {'optimizer': optimizer, 'lr_scheduler': {'scheduler': cosine, 'interval': 'step'}}

    def configure_callbacks(self) -> list[Callback]:
        """The run folder is filled whatever command line starts the task."""
        return [SegmentationFolder()]


class VineSegmentation(Segmentation):
    """Find vines in drone or aerial images: :class:`Segmentation` with the defaults for that.

    Vines cover a small part of the ground in thin rows, so the loss also counts overlap, and a pretrained encoder
    learns more slowly than the new decoder.
    """

    def __init__(
        self,
        in_channels: int = 5,
        num_classes: int = 2,
        class_names: list[str] | None = None,
        loss: SegmentationLossName = 'ce+dice',
        encoder_lr_factor: float = 0.3,
        **kwargs: Any,
    ) -> None:
        """Build the network.

        Args:
            in_channels: Number of bands (this package's command line takes it from the data).
            num_classes: Number of classes.
            class_names: Names of the classes; None takes the data module's, else ``background`` and ``vine``.
            loss: ``ce``, ``dice``, ``focal``, ``jaccard`` or ``ce+dice``.
            encoder_lr_factor: Factor on the encoder's learning rate.
            **kwargs: The other options of :class:`Segmentation`, with its defaults.

        Raises:
            ConfigurationError: If an option is out of its range.
        """
        super().__init__(
            in_channels=in_channels,
            num_classes=num_classes,
            class_names=class_names,
            loss=loss,
            encoder_lr_factor=encoder_lr_factor,
            **kwargs,
        )

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of the logits."""
        return self._class_names or (['background', 'vine'] if self.num_classes == 2 else super().class_names)


def _check_options(choices: dict[str, tuple[str, Any]], numbers: dict[str, float]) -> None:
    for name, (value, allowed) in choices.items():
        if value not in get_args(allowed):
            raise ConfigurationError(f'{name}: {value!r} is not one of {", ".join(get_args(allowed))}.')
    for name, number in numbers.items():
        if not 0 <= number < float('inf'):
            raise ConfigurationError(f'{name}: expected 0 or more, got {number}.')
