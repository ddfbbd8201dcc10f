"""What every pretraining task shares: encoder, normalisation, optimiser, schedule, collapse signals."""

import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from torchgeo_msssl.errors import BandError, ConfigurationError, WeightsError
from torchgeo_msssl.models.encoders import create_encoder
from torchgeo_msssl.models.metadata import EncoderMetadata
from torchgeo_msssl.models.weights import CHECKPOINT_KEY, load_encoder
from torchgeo_msssl.tasks.collapse import CollapseMonitor
from torchgeo_msssl.tasks.optimizers import (
    OptimizerName,
    ParameterGroup,
    cosine_with_warmup,
    create_optimizer,
    parameter_groups,
)
from torchgeo_msssl.tasks.run_folder import RunFolder
from torchgeo_msssl.tasks.training import TrainingTask
from torchgeo_msssl.transforms.normalize import Normalize

log = logging.getLogger(__name__)


class PretrainingTask(TrainingTask):
    """A task that trains an encoder without labels.

    The encoder is ``self.model`` and ``hparams['model']`` its timm name, so that the checkpoint itself loads in
    TorchGeo's own tasks; no other attribute's name contains ``model.``.

    Attributes:
        method: Name of the method, for the encoder's metadata.
        normalize: Digital numbers to standardised reflectance, saved with the weights.
        betas: Of Adam and AdamW.
    """

    method: str
    betas: tuple[float, float] = (0.9, 0.999)
    normalize: Normalize

    def __init__(
        self,
        model: str,
        in_channels: int,
        weights: str | None,
        optimizer: OptimizerName,
        lr: float,
        weight_decay: float,
        momentum: float,
        warmup_epochs: float,
        collapse_patience: int | None,
    ) -> None:
        """Build the networks.

        Args:
            model: timm name of the encoder.
            in_channels: Number of bands.
            weights: What the encoder starts from, see :func:`~torchgeo_msssl.models.weights.load_encoder`.
            optimizer: Optimizer.
            lr: Largest learning rate.
            weight_decay: Weight decay; norms and biases are exempt.
            momentum: Momentum of SGD and LARS.
            warmup_epochs: Epochs in which the learning rate rises linearly; it then falls as half a cosine.
            collapse_patience: Stop after so many epochs of collapse in a row; None only warns.

        Raises:
            ConfigurationError: If a number is out of range.
        """
        if warmup_epochs < 0:
            raise ConfigurationError(f'warmup_epochs: expected 0 or more, got {warmup_epochs}.')
        # BaseTask.__init__ calls configure_models, which reads these; under a CLI, hparams hold the file's values,
        # before links were applied
        self._encoder_arguments = (model, in_channels)
        self.weights = weights
        self.optimizer: OptimizerName = optimizer
        self.lr = lr
        self.weight_decay = weight_decay
        self.momentum = momentum
        self.warmup_epochs = warmup_epochs
        self.collapse_patience = collapse_patience
        super().__init__()
        self.hparams.update({'model': model, 'in_channels': in_channels})

    def configure_models(self) -> None:
        """Build encoder and normalisation, then the method's own parts."""
        name, in_channels = self._encoder_arguments
        self.model = create_encoder(name, in_channels)
        self.normalize = Normalize(in_channels)
        self.configure_heads()

    @abstractmethod
    def configure_heads(self) -> None:
        """Build what the method has besides the encoder."""

    @abstractmethod
    def compute_loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the loss of a batch.

        Args:
            batch: ``image`` (batch, band, height, width) in digital numbers, ``valid``, ``scale``, ``offset``.

        Returns:
            ``(loss, features, embedding)``: a scalar, pooled features (n, features), and the embedding whose collapse
            is watched (n, dimension).
        """

    @property
    def trained_modules(self) -> Sequence[nn.Module]:
        """Modules whose parameters are trained on the schedule."""
        return [module for name, module in self.named_children() if name != 'normalize']

    def parameter_groups(self) -> list[ParameterGroup]:
        """Parameter groups of the optimizer."""
        return parameter_groups(self.trained_modules, self.weight_decay)

    # Data.

    def setup(self, stage: str) -> None:
        """Take bands and statistics over from the data module, and the starting weights.

        Args:
            stage: ``fit``, ``validate``, ``test`` or ``predict``.

        Raises:
            BandError: If the data module has another number of bands than the encoder.
        """
        data = getattr(self.trainer, 'datamodule', None)
        if data is None or not hasattr(data, 'bands'):
            return
        self._data_bands = list(data.bands)
        if data.in_channels != self.normalize.in_channels:
            msg = (
                f'in_channels: the encoder takes {self.normalize.in_channels} bands and the data have '
                f'{data.in_channels} ({", ".join(data.bands)}); set model.in_channels to {data.in_channels}, or run '
                '`python -m torchgeo_msssl fit`, which does so.'
            )
            raise BandError(msg)
        if stage != 'fit':  # what else there is to know, the checkpoint tells
            return
        self.normalize.set_statistics(data.mean, data.std, data.scale, data.offset)
        self.take_provenance(data)
        if self.weights is not None:
            report = load_encoder(self.model, self.weights, bands=data.bands, sensor=data.sensor_name)
            log.info('%s', report)
            self.weights = None  # once: a second fit goes on with what was learnt

    def metadata(self) -> EncoderMetadata:
        """What has to be known about the encoder besides its tensors."""
        return self.metadata_of(self.method, self.hparams['model'])

    def forward(self, x: Tensor) -> Tensor:
        """Embed images.

        Args:
            x: Digital numbers (batch, band, height, width); :attr:`normalize` is applied.

        Returns:
            Pooled embedding (batch, features).
        """
        return cast(Tensor, self.model(self.normalize(x)))

    def reflectance(self, batch: dict[str, Tensor], which: Literal['image', 'positive'] = 'image') -> Tensor:
        """Turn the chips of a batch into reflectance.

        Args:
            batch: ``image`` with ``valid``, ``scale`` and ``offset`` where they are known; the positive's keys begin
                with ``positive``.
            which: The chips themselves, or their positives.

        Returns:
            Reflectance (batch, band, height, width), the band's mean where there are no data.
        """
        prefix = '' if which == 'image' else 'positive_'
        known = (batch.get(f'{prefix}{key}') for key in ('valid', 'scale', 'offset'))
        return self.normalize.reflectance(batch[which], *known)

    # Training.

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Compute the loss of a batch, log it, and stop where it is not finite.

        Args:
            batch: A batch of chips.
            batch_idx: Index in the epoch.

        Returns:
            ``loss``, with the ``features`` and the ``embedding`` that :class:`CollapseMonitor` watches.

        Raises:
            NonFiniteLossError: If the loss is NaN or infinite.
        """
        self.seed_step(self.trainer.fit_loop.total_batch_idx)
        loss, features, embedding = self.compute_loss(batch)
        self.check_finite(loss, batch)
        self.log('train_loss', loss, on_step=True, on_epoch=True, prog_bar=True, sync_dist=True,
                 batch_size=len(batch['image']))  # fmt: skip
        return {'loss': loss, 'features': features.detach(), 'embedding': embedding.detach()}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build the optimizer and a cosine schedule with warm-up, both stepped once a batch.

        Returns:
            Optimizer and scheduler.
        """
        total, warmup = self.schedule_steps(self.warmup_epochs)
        optimizer = create_optimizer(self.optimizer, self.parameter_groups(), self.lr, self.momentum, self.betas)
        scheduler = cosine_with_warmup(optimizer, total, warmup)
        return {'optimizer': optimizer, 'lr_scheduler': {'scheduler': scheduler, 'interval': 'step'}}

    def configure_callbacks(self) -> list[Callback]:
        """Collapse is watched, and the run folder filled, whatever command line starts the task."""
        return [CollapseMonitor(self.collapse_patience), RunFolder()]

    # Checkpoints.

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the encoder's metadata."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[CHECKPOINT_KEY] = self.metadata().to_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take bands back.

        Raises:
            WeightsError: If the checkpoint is of another method, encoder or size, or of other bands than the data have.
        """
        super().on_load_checkpoint(checkpoint)
        kept = checkpoint.get(CHECKPOINT_KEY, {})
        self._check_same(
            kept.get('method'), checkpoint.get('hyper_parameters', {}).get('model'), kept.get('bands') or []
        )
        self._check_shapes(checkpoint.get('state_dict', {}))
        self.restore_provenance(kept)

    def _check_same(self, method: str | None, model: str | None, bands: Sequence[str]) -> None:
        now = self._data_bands
        if method is not None and method != self.method:
            raise WeightsError(
                f'ckpt_path: the checkpoint is of {method}, not {self.method}; set model.class_path to its method, or '
                'begin anew with its encoder as model.weights.'
            )
        if model is not None and model != self.hparams['model']:
            now_model = self.hparams['model']
            raise WeightsError(
                f'ckpt_path: the checkpoint is of a {model}, not a {now_model}; set model.model to {model}.'
            )
        if now and bands and list(now) != list(bands):
            msg = (
                f'ckpt_path: the checkpoint is of the bands {", ".join(bands)}, the data have {", ".join(now)}; set '
                f'data.bands to [{", ".join(bands)}], or begin anew with its encoder as model.weights.'
            )
            raise WeightsError(msg)

    def _check_shapes(self, tensors: Mapping[str, Tensor]) -> None:
        own = {name: tuple(tensor.shape) for name, tensor in self.state_dict().items()}
        given = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        different = [name for name in sorted({*own, *given}) if own.get(name) != given.get(name)]
        if different:
            name = different[0]
            raise WeightsError(
                f'ckpt_path: {len(different)} tensors of the checkpoint are not those of the task; the first, {name}, '
                f'is {given.get(name, "missing")} there and {own.get(name, "missing")} here. Set the options of the '
                'run that wrote it (its config.yaml).'
            )
