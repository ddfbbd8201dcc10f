"""What every pretraining task shares: encoder, normalisation, views, optimiser, schedule, collapse signals."""

import dataclasses
import logging
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchgeo.tasks import BaseTask

from torchgeo_msssl.errors import BandError, ConfigurationError, NonFiniteLossError, WeightsError
from torchgeo_msssl.models.encoders import check_image_size, create_encoder
from torchgeo_msssl.models.metadata import EncoderMetadata
from torchgeo_msssl.models.weights import load_encoder
from torchgeo_msssl.tasks.collapse import CollapseMonitor
from torchgeo_msssl.tasks.optimizers import (
    OptimizerName,
    ParameterGroup,
    cosine_with_warmup,
    create_optimizer,
    parameter_groups,
)
from torchgeo_msssl.tasks.run_folder import RunFolder
from torchgeo_msssl.transforms.normalize import Normalize
from torchgeo_msssl.transforms.views import MultiView

log = logging.getLogger(__name__)


@dataclass
class Augmentation:
    """How views differ from their chip; see :class:`~torchgeo_msssl.transforms.views.MultiView`.

    Attributes:
        size: Side of a view in pixels; None takes the chip's.
        crop_scale: Smallest and largest share of the chip's area in a crop.
        crop_ratio: Smallest and largest width / height of a crop.
        flips: Whether views are flipped at random.
        quarter_turns: Whether views are turned by a random multiple of 90°.
        blur: Probability of a Gaussian blur.
        blur_sigma: Smallest and largest standard deviation of the blur, in pixels.
        noise: Probability of noise.
        noise_std: Smallest and largest standard deviation of the noise, as a fraction of the band's.
        common_gain: Smallest and largest gain common to all bands.
        band_gain: Smallest and largest gain of one band.
        band_dropout: Probability of each band to become its mean.
        min_valid: Share of valid pixels below which a crop is drawn again.
    """

    size: int | None = None
    crop_scale: tuple[float, float] = (0.2, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flips: bool = True
    quarter_turns: bool = True
    blur: float = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    noise: float = 0.5
    noise_std: tuple[float, float] = (0.02, 0.1)
    common_gain: tuple[float, float] = (0.8, 1.2)
    band_gain: tuple[float, float] = (0.9, 1.1)
    band_dropout: float = 0.0
    min_valid: float = 0.5

    @classmethod
    def options(cls, given: 'Augmentation | dict[str, Any] | None') -> dict[str, Any]:
        """Plain keyword arguments, from an object, a mapping (as a checkpoint holds it) or nothing."""
        return dataclasses.asdict(cls(**given) if isinstance(given, dict) else given or cls())


class PretrainingTask(BaseTask):
    """A task that trains an encoder without labels.

    The encoder is ``self.model`` and ``hparams['model']`` its timm name, so that the checkpoint itself loads in
    TorchGeo's own tasks; no other attribute's name contains ``model.``.

    Attributes:
        method: Name of the method, for the encoder's metadata.
        normalize: Digital numbers to standardised reflectance, saved with the weights.
    """

    method: str
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
        self._seed = torch.initial_seed()
        self._total_steps: int | None = None
        self._provenance: dict[str, Any] = {}
        super().__init__()
        plain = {
            key: dataclasses.asdict(value) for key, value in self.hparams.items() if isinstance(value, Augmentation)
        }
        self.hparams.update(plain | {'model': model, 'in_channels': in_channels})

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
        if stage != 'fit' or data is None or not hasattr(data, 'bands'):
            return
        if data.in_channels != self.normalize.in_channels:
            msg = (
                f'in_channels: the encoder takes {self.normalize.in_channels} bands and the data have '
                f'{data.in_channels} ({", ".join(data.bands)}); set model.in_channels to {data.in_channels}, or run '
                '`python -m torchgeo_msssl fit`, which does so.'
            )
            raise BandError(msg)
        self.normalize.set_statistics(data.mean, data.std, data.scale, data.offset)
        self._provenance = {
            'bands': list(data.bands),
            'wavelengths': list(data.wavelengths),
            'sensor': data.sensor_name,
            'chip_size': data.chip_size,
        }
        if self.weights is not None:
            report = load_encoder(self.model, self.weights, bands=data.bands, sensor=data.sensor_name)
            log.info('%s', report)
            self.weights = None  # once: a second fit goes on with what was learnt

    def metadata(self) -> EncoderMetadata:
        """What has to be known about the encoder besides its tensors."""
        buffers = {name: getattr(self.normalize, name).tolist() for name in ('mean', 'std', 'scale', 'offset')}
        known = buffers if self._provenance.get('bands') else {}
        return EncoderMetadata(method=self.method, model=self.hparams['model'], **known, **self._provenance)

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

    def seed_step(self, batch_idx: int) -> None:
        """Make everything random in a training step a function of seed, batch and rank alone.

        A resumed run then draws what the uninterrupted one would have drawn.

        Args:
            batch_idx: Number of the batch since the beginning of training.
        """
        torch.manual_seed(_mix(self._seed, batch_idx, self.global_rank))

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
        if not torch.isfinite(loss):
            raise self._non_finite(loss, batch)
        self.log('train_loss', loss, on_step=True, on_epoch=True, prog_bar=True, sync_dist=True,
                 batch_size=len(batch['image']))  # fmt: skip
        return {'loss': loss, 'features': features.detach(), 'embedding': embedding.detach()}

    def _non_finite(self, loss: Tensor, batch: dict[str, Tensor]) -> NonFiniteLossError:
        data = getattr(self.trainer, 'datamodule', None)
        chips = data.describe_chips(batch) if data and hasattr(data, 'describe_chips') else ['unknown chips']
        image = batch['image'].float()
        extremes = ', '.join(
            f'{name} {low:g} to {high:g}'
            for name, low, high in zip(
                self._provenance.get('bands') or map(str, range(image.shape[1])),
                image.amin(dim=(0, 2, 3)).tolist(),
                image.amax(dim=(0, 2, 3)).tolist(),
                strict=False,
            )
        )
        return NonFiniteLossError(
            f'The loss became {loss.item()} at step {self.global_step}; the batch was {"; ".join(chips)}; its values '
            f'are {extremes}. Look at these chips, or lower the learning rate; the last checkpoint is from before.'
        )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build the optimizer and a cosine schedule with warm-up, both stepped once a batch.

        Returns:
            Optimizer and scheduler.
        """
        total = self.trainer.estimated_stepping_batches
        if total == float('inf'):
            raise ConfigurationError('trainer: the schedule needs an end; set trainer.max_epochs or trainer.max_steps.')
        total = int(total)
        if self._total_steps not in (None, total):
            log.warning(
                'The run was to end at step %d and now ends at step %d: from here on the learning rate is that of the '
                'new schedule.', self._total_steps, total,
            )  # fmt: skip
        self._total_steps = total
        warmup = 0
        if self.warmup_epochs > 0:
            self.trainer.fit_loop.setup_data()  # the length of an epoch is not known before
            per_epoch = self.trainer.num_training_batches / self.trainer.accumulate_grad_batches
            warmup = min(round(self.warmup_epochs * per_epoch), total - 1)
        optimizer = create_optimizer(self.optimizer, self.parameter_groups(), self.lr, self.momentum)
        scheduler = cosine_with_warmup(optimizer, total, warmup)
        return {'optimizer': optimizer, 'lr_scheduler': {'scheduler': scheduler, 'interval': 'step'}}

    def configure_callbacks(self) -> list[Callback]:
        """Collapse is watched, and the run folder filled, whatever command line starts the task."""
        return [CollapseMonitor(self.collapse_patience), RunFolder()]

    # Checkpoints.

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the encoder's metadata, the seed and the end of the schedule."""
        checkpoint['msssl'] = self.metadata().to_dict()
        checkpoint['msssl_seed'] = self._seed
        checkpoint['msssl_total_steps'] = self._total_steps

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take seed and bands back.

        Raises:
            WeightsError: If the checkpoint is of another encoder, or of other bands than the data have.
        """
        self._seed = int(checkpoint.get('msssl_seed', self._seed))
        self._total_steps = checkpoint.get('msssl_total_steps')
        kept = checkpoint.get('msssl', {})
        self._check_same(checkpoint.get('hyper_parameters', {}).get('model'), kept.get('bands') or [])
        self._provenance = {
            key: kept[key] for key in ('bands', 'wavelengths', 'sensor', 'chip_size') if kept.get(key) is not None
        } or self._provenance

    def _check_same(self, model: str | None, bands: Sequence[str]) -> None:
        now = self._provenance.get('bands') or []
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


class JointEmbeddingTask(PretrainingTask):
    """A task that compares views of the same chip.

    Attributes:
        multiview: Makes the views.
    """

    multiview: MultiView

    def setup(self, stage: str) -> None:
        """Take bands and statistics over, and see that chips and batches suit.

        Args:
            stage: ``fit``, ``validate``, ``test`` or ``predict``.

        Raises:
            BandError: If the data module has another number of bands than the encoder.
            ConfigurationError: If the encoder cannot take views of this size, or there is one chip in a batch.
        """
        super().setup(stage)
        data = getattr(self.trainer, 'datamodule', None)
        check_image_size(self.model, self.hparams['model'], self.multiview.size or getattr(data, 'chip_size', None))
        if getattr(data, 'batch_size', None) == 1:
            raise ConfigurationError('batch_size: chips are compared within a batch; expected 2 or more, got 1.')

    def make_views(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Cut the views of a batch, in reflectance.

        Args:
            batch: ``image`` (batch, band, height, width) in digital numbers, with ``valid``, ``scale`` and ``offset``
                where they are known, and ``positive`` with its own where views come from two chips.

        Returns:
            Views (view, batch, band, size, size) in reflectance, and their valid pixels (view, batch, 1, size, size).
        """
        image = self.reflectance(batch)
        positive = self.reflectance(batch, 'positive') if 'positive' in batch else None
        return cast(
            tuple[Tensor, Tensor],
            self.multiview(
                image,
                batch.get('valid'),
                band_std=self.normalize.std,
                positive=positive,
                positive_valid=batch.get('positive_valid'),
                band_mean=self.normalize.mean,
            ),
        )

    def embed_views(self, batch: dict[str, Tensor]) -> Tensor:
        """Embed the views of a batch.

        Args:
            batch: A batch of chips.

        Returns:
            Pooled features (view × batch, features), view by view.
        """
        views, valid = self.make_views(batch)
        inputs = self.normalize.standardise(views.flatten(0, 1), valid.flatten(0, 1))
        return cast(Tensor, self.model(inputs))


def _mix(*numbers: int) -> int:
    """Hash whole numbers to a seed of 63 bits (splitmix64, https://doi.org/10.1145/2714064.2660195)."""
    mask, state = 2**64 - 1, 0
    for number in numbers:
        state = (state + (number & mask) + 0x9E3779B97F4A7C15) & mask
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
        state ^= state >> 31
    return state >> 1
