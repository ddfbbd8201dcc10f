"""Semantic segmentation with a pretrained encoder."""

import logging
from typing import Any, Literal, cast

import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from torchgeo_msssl.contract import SpectralData, spectral_data
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.files import write_json
from torchgeo_msssl.losses.segmentation import SegmentationLoss, SegmentationLossName
from torchgeo_msssl.models.matching import inner_encoder
from torchgeo_msssl.models.metadata import EncoderMetadata
from torchgeo_msssl.models.segmentation import (
    FIXED_STRIDES,
    Architecture,
    create_network,
    set_network_stem,
    total_stride,
)
from torchgeo_msssl.models.stems import Stem
from torchgeo_msssl.runs import run_folder
from torchgeo_msssl.tasks.encoder_training import EncoderTraining
from torchgeo_msssl.tasks.layer_rates import decayed_groups, encoder_depths
from torchgeo_msssl.tasks.optimizers import (
    OptimizerName,
    ParameterGroup,
    create_optimizer,
    parameter_groups,
)
from torchgeo_msssl.tasks.segmentation_folder import SegmentationFolder
from torchgeo_msssl.tasks.semi_supervision import SemiSupervisedClassification, SemiSupervision
from torchgeo_msssl.tasks.starting_weights import Statistics, Transfer, choose_statistics, load_starting_weights
from torchgeo_msssl.transforms.normalize import Normalize, valid_pixels
from torchgeo_msssl.transforms.spectral import apply_gain, uniform_between
from torchgeo_msssl.transforms.symmetries import move_at_random
from torchgeo_msssl.validation import check_at_least, check_choice, check_interval, check_probability

log = logging.getLogger(__name__)

Freeze = Literal['none', 'encoder', 'encoder_until']
Scheduler = Literal['cosine', 'plateau', 'none']


class Segmentation(EncoderTraining, SemiSupervisedClassification):
    """Classify every pixel with an smp network, any encoder and any number of bands.

    A batch has ``image`` (batch, band, height, width) in digital numbers of native dtype and ``mask`` (batch, height,
    width), and where known ``valid`` (batch, 1, height, width), ``scale`` and ``offset`` (batch, band). Invalid pixels
    count as unlabelled, independent of the mask.

    **Normalization travels with the weights.** Mean and standard deviation of reflectance are taken once: from the
    weights if these are ours and have statistics for every band of the data, by name, else from the data. Scale and
    offset, which define the meaning of digital numbers, are taken from the data. All four are buffers of the task and
    kept in every checkpoint. Their origin is logged and written to ``weights_report.json``.
    """

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
        encoder_lr_factor: float = 1.0,
        layer_decay: float = 1.0,
        scheduler: Scheduler = 'cosine',
        patience: int = 10,
        freeze: Freeze = 'none',
        freeze_until_step: int = 0,
        flips: bool = True,
        quarter_turns: bool = True,
        common_gain: tuple[float, float] = (0.8, 1.2),
        band_gain: tuple[float, float] = (0.9, 1.1),
        semi: SemiSupervision | dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Build the network.

        Args:
            model: Architecture.
            backbone: Encoder: a timm name, with or without ``tu-``, or one of smp's.
            weights: Starting weights: a checkpoint, a safetensors file, the name of a TorchGeo weight, ``imagenet``,
                or None for random weights.
            in_channels: Number of bands (this package's command line takes it from the data).
            num_classes: Number of classes.
            class_names: Names of the classes; None for the data module's.
            transfer: ``encoder`` loads the encoder alone; ``network`` loads everything but the last layer from the
                checkpoint of another segmentation, for example of coarser classes.
            statistics: Mean and standard deviation for normalization: of the ``weights``, of the ``data``, or ``auto``
                for those of the weights if these have every band.
            loss: ``ce``, ``dice``, ``focal``, ``jaccard`` or ``ce+dice``.
            class_weights: Weight of each class in the loss.
            focal_gamma: Exponent of the focal loss.
            ignore_index: Value of unlabelled pixels in a mask.
            optimizer: ``adamw``, ``adam``, ``sgd`` or ``lars``.
            lr: Maximum learning rate.
            weight_decay: Weight decay; normalization layers and biases are exempt.
            encoder_lr_factor: Factor on the learning rate of an encoder with loaded ``weights``; a random one learns at
                the full rate.
            layer_decay: Factor on the learning rate from each stage of a loaded encoder (block of a transformer) to the
                one before it, such as 0.75; 1 for one rate.
            scheduler: ``cosine`` (with warm-up, by step), ``plateau`` of the mean IoU of validation, or ``none``.
            patience: Epochs without improvement after which the learning rate is divided by 10 (plateau only).
            freeze: ``none``; ``encoder`` permanently; ``encoder_until`` the step ``freeze_until_step``.
            freeze_until_step: Number of optimizer steps for which the encoder is frozen and only decoder and last layer
                learn; sets ``freeze`` to ``encoder_until``.
            flips: Whether to flip training chips at random.
            quarter_turns: Whether to rotate training chips by quarter turns at random.
            common_gain: Smallest and largest gain common to all bands in training.
            band_gain: Smallest and largest gain of one band in training.
            semi: Train on unlabelled chips of the training ground too: method, weight, warmup_steps, threshold,
                class_fraction, ema, predict_with, and the strength of augmentation (see
                :class:`~torchgeo_msssl.tasks.SemiSupervision`); ``{}`` takes the defaults, None trains on labels only.
            **kwargs: Options of :class:`~torchgeo_msssl.tasks.EncoderTraining`; ``warmup_epochs``, ``warmup_steps`` and
                ``final_lr_factor`` are for ``cosine``.

        Raises:
            ConfigurationError: If an option is out of its range, or architecture and encoder are incompatible.
        """
        check_choice('transfer', transfer, Transfer)
        check_choice('statistics', statistics, Statistics)
        check_choice('freeze', freeze, Freeze)
        check_choice('scheduler', scheduler, Scheduler)
        check_at_least(
            0,
            patience=patience,
            encoder_lr_factor=encoder_lr_factor,
            freeze_until_step=freeze_until_step,
        )
        check_probability('layer_decay', layer_decay)
        if freeze == 'none' and freeze_until_step > 0:
            freeze = 'encoder_until'
        if (freeze == 'encoder_until') != (freeze_until_step > 0):
            raise ConfigurationError(
                f'freeze_until_step: freeze {freeze!r} and {freeze_until_step} steps contradict each other; set '
                'freeze_until_step to the number of steps, or freeze to encoder.'
            )
        if class_names is not None and (len(class_names) != num_classes or len(set(class_names)) != num_classes):
            raise ConfigurationError(
                f'class_names: expected {num_classes} different names (num_classes), got {", ".join(class_names)}.'
            )
        # set before BaseTask.__init__, which calls configure_models; under a CLI, hparams hold the file's values,
        # before links were applied
        self._network_arguments = (model, backbone, in_channels, num_classes)
        self._loss_arguments = (loss, num_classes, ignore_index, class_weights, focal_gamma)
        self._class_names = list(class_names) if class_names else None
        self.weights = weights
        self.transfer: Transfer = transfer
        self.statistics: Statistics = statistics
        self.ignore_index = ignore_index
        self.encoder_lr_factor = encoder_lr_factor
        self.layer_decay = layer_decay
        self.scheduler: Scheduler = scheduler
        self.patience = patience
        self.freeze_mode: Freeze = freeze
        self.freeze_until_step = freeze_until_step
        self.flips = flips
        self.quarter_turns = quarter_turns
        self.common_gain = check_interval('common_gain', common_gain, 0)
        self.band_gain = check_interval('band_gain', band_gain, 0)
        self.encoder_frozen = False
        self._gradients_while_frozen = False
        self.semi = SemiSupervision.of(semi)
        self._started = False  # whether weights were loaded or trained
        super().__init__(optimizer=optimizer, lr=lr, weight_decay=weight_decay, **kwargs)
        self.hparams.update({'in_channels': in_channels, 'num_classes': num_classes, 'semi': self.saved_semi()})
        self.freeze_encoder(freeze != 'none')

    def configure_models(self) -> None:
        """Build network and normalization."""
        architecture, backbone, in_channels, num_classes = self._network_arguments
        self.model = create_network(architecture, backbone, in_channels, num_classes)
        self.stride = total_stride(self.model)
        self.normalize = Normalize(in_channels)
        self.configure_teacher()

    @property
    def encoder(self) -> nn.Module:
        """The encoder inside the network."""
        return inner_encoder(self.model)

    def automatic_stem(self, size: int) -> Stem:
        """Stem of ``auto`` for chips of a size in pixels; some decoders allow the standard one only."""
        return 'standard' if self._network_arguments[0] in FIXED_STRIDES else super().automatic_stem(size)

    def apply_stem(self, stem: Stem) -> None:
        """Change the stem of the encoder, also in the teacher, and the padding that depends on its stride."""
        for network in (self.model, *([] if self.teacher is None else [self.teacher.encoder])):
            set_network_stem(network, stem)
        self.stride = total_stride(self.model)

    def configure_losses(self) -> None:
        """Build the loss."""
        self.criterion = SegmentationLoss(*self._loss_arguments)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self._network_arguments[3]

    # Data and weights.

    def setup(self, stage: str) -> None:
        """Take over bands, statistics and class names from the data module; prediction has them in the checkpoint.

        Raises:
            BandError: If the data have other bands than the network.
            ConfigurationError: If the data have other classes, or an option does not suit this run.
        """
        if stage == 'predict':
            return
        if stage == 'fit' and self.freeze_mode == 'encoder_until' and self.trainer.world_size > 1:
            # devices synchronize only parameters that have gradients from the beginning
            self._gradients_while_frozen = True
            self.freeze_encoder(self.encoder_frozen)
        super().setup(stage)
        if stage == 'fit':
            data = spectral_data(self.trainer)
            self.resolve_stem(self.weights, data.chip_size if data else None)

    def on_fit_start(self) -> None:
        """Load the starting weights, unless the run resumes a checkpoint, which only is known now.

        Raises:
            ConfigurationError: If only the weights' statistics are allowed and they have none.
            WeightsError: If the weights do not fit.
        """
        if self._started:
            return
        if self.weights is None and self.freeze_mode == 'encoder':
            log.warning('The encoder is frozen with random weights: set weights, or freeze to none.')
        data = spectral_data(self.trainer)
        report = load_starting_weights(self.model, self.weights, self.transfer, data)
        origin = self._take_statistics(data)
        self.start_teacher()
        self._started = True
        log.info('%s', report)
        log.info('Mean and standard deviation of the bands: %s.', origin)
        folder = run_folder(self.trainer)
        if folder is not None and self.trainer.is_global_zero:
            write_json(folder / 'weights_report.json', report.to_dict() | {'statistics': origin})

    def _take_statistics(self, data: SpectralData | None) -> str:
        """Set mean and standard deviation, and return their origin."""
        if data is None:
            return 'none, since the data module names no bands; its values are used as they are'
        known = choose_statistics(self.weights, self.statistics, data)
        if known is None:
            return 'from the data'
        self.normalize.set_statistics(*known, data.scale, data.offset)
        return f'from the weights ({self.weights})'

    def metadata(self) -> EncoderMetadata:
        """Return the metadata of the encoder."""
        return self.metadata_of('segmentation', self._network_arguments[1].removeprefix('tu-'))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore bands and class names.

        Raises:
            BandError: If the data module has other bands.
        """
        super().on_load_checkpoint(checkpoint)
        self._started = True

    # Frozen encoder.

    def freeze_encoder(self, frozen: bool) -> None:
        """Freeze or unfreeze the encoder; a frozen one is in eval mode, so that its running statistics stay.

        Args:
            frozen: Whether to freeze.
        """
        self.encoder_frozen = frozen
        self.model.encoder.requires_grad_(not frozen or self._gradients_while_frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> 'Segmentation':
        """Switch between training and evaluation mode; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.encoder_frozen:
            self.model.encoder.eval()
        return self

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Freeze or unfreeze the encoder, depending on the step alone."""
        frozen = self.freeze_mode == 'encoder' or self.global_step < self.freeze_until_step
        if frozen != self.encoder_frozen:
            log.info('The encoder is %s at step %d.', 'frozen' if frozen else 'trained', self.global_step)
            self.freeze_encoder(frozen)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Drop the gradients of a frozen encoder, so that neither parameters nor moments change."""
        super().on_before_optimizer_step(optimizer)
        if self.encoder_frozen:
            for parameter in self.model.encoder.parameters():
                parameter.grad = None

    @torch.no_grad()
    def augmented(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Augment training chips: gains on reflectance; flips and quarter turns of chips and labels together.

        Args:
            batch: A batch of chips.

        Returns:
            Standardized values (batch, band, height, width) and labels (batch, height, width).
        """
        image, mask = self.reflectance(batch), self.labels(batch)
        size, bands = image.shape[:2]
        common = uniform_between(torch.rand(size, 1, device=image.device), self.common_gain)
        per_band = uniform_between(torch.rand(size, bands, device=image.device), self.band_gain)
        valid = valid_pixels(batch['image'], batch.get('valid'))
        image = self.normalize.standardize(apply_gain(image, common * per_band), valid)
        image, mask = move_at_random(image, mask, flips=self.flips, quarter_turns=self.quarter_turns)
        return image, mask

    # Steps.

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Compute and log the loss of a batch.

        Raises:
            NonFiniteLossError: If the loss is NaN or infinite.
        """
        self.seed_step(self.trainer.fit_loop.total_batch_idx)
        image, mask = self.augmented(batch)
        loss = self.training_loss(batch, image, mask)
        self.check_finite(loss, batch)
        size = len(image)
        self.log('train_loss', loss, on_step=True, on_epoch=True, prog_bar=True, sync_dist=True, batch_size=size)
        return loss

    # Optimizer.

    def parameter_groups(self) -> list[ParameterGroup]:
        """Parameter groups of the optimizer: the encoder, with its own rates, then the other parts.

        An encoder that is unfrozen later is included from the beginning; without gradients it is not changed.

        Raises:
            ConfigurationError: If ``layer_decay`` is set and timm does not know the layers of the encoder.
        """
        others = [module for name, module in self.model.named_children() if name != 'encoder']
        groups = parameter_groups(others, self.weight_decay)
        if self.freeze_mode == 'encoder':
            return groups
        self.model.encoder.requires_grad_(True)
        encoder = parameter_groups([self.model.encoder], self.weight_decay)
        self.freeze_encoder(self.encoder_frozen)
        return [*self._with_rates(encoder), *groups]

    def _with_rates(self, encoder: list[ParameterGroup]) -> list[ParameterGroup]:
        """Set the learning rates of the encoder's groups."""
        if self.weights is None:
            if (self.encoder_lr_factor, self.layer_decay) != (1, 1):
                log.info('The encoder has random weights and learns at the full rate, %g.', self.lr)
            return [group | {'lr': self.lr} for group in encoder]
        rate = self.lr * self.encoder_lr_factor
        if self.layer_decay == 1:
            return [group | {'lr': rate} for group in encoder]
        depths = encoder_depths(self.model, self._network_arguments[1])
        groups = decayed_groups(encoder, depths, rate, self.layer_decay)
        log.info('The encoder learns at %g (first layer) to %g (last layer).', groups[0]['lr'], groups[-1]['lr'])
        return groups

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build optimizer and scheduler.

        Raises:
            ConfigurationError: If the cosine schedule has no end.
        """
        optimizer = create_optimizer(self.optimizer, self.parameter_groups(), self.lr, self.momentum)
        match self.scheduler:
            case 'none':
                return optimizer
            case 'plateau':
                plateau = ReduceLROnPlateau(optimizer, mode=cast(Any, self.mode), patience=self.patience)
                return {'optimizer': optimizer, 'lr_scheduler': {'scheduler': plateau, 'monitor': self.monitor}}
            case 'cosine':
                return self.with_cosine_schedule(optimizer)

    def configure_callbacks(self) -> list[Callback]:
        """Fill the run folder, under any command line."""
        return [SegmentationFolder()]
