"""Reproducible training steps, finite losses and the provenance of the data, for all tasks."""

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import Optimizer
from torchgeo.tasks import BaseTask

from torchgeo_msssl.contract import PixelSizeData, SpectralData, spectral_data
from torchgeo_msssl.errors import BandError, ConfigurationError, NonFiniteLossError
from torchgeo_msssl.models.metadata import EncoderMetadata
from torchgeo_msssl.tasks.optimizers import OptimizerName, cosine_with_warmup
from torchgeo_msssl.transforms.normalize import Normalize
from torchgeo_msssl.validation import check_at_least, check_probability

log = logging.getLogger(__name__)


class TrainingTask(BaseTask):
    """A task whose steps depend on seed, batch and rank alone, so that a resumed run equals an uninterrupted one.

    Attributes:
        normalize: Digital numbers to standardized reflectance, saved with the weights.
    """

    normalize: Normalize

    def __init__(
        self,
        optimizer: OptimizerName = 'sgd',
        lr: float = 0.06,
        weight_decay: float = 1e-4,
        momentum: float = 0.9,
        warmup_epochs: float = 0,
        warmup_steps: int | None = None,
        final_lr_factor: float = 0.0,
    ) -> None:
        """Keep the options of the optimizer and the seed of the process, then build the networks.

        Args:
            optimizer: ``sgd``, ``adam``, ``adamw`` (for ViT and Swin) or ``lars`` (for batches of thousands).
            lr: Maximum learning rate.
            weight_decay: Weight decay; normalization layers and biases are exempt.
            momentum: Momentum of SGD and LARS.
            warmup_epochs: Epochs in which the learning rate rises linearly, before it falls as half a cosine.
            warmup_steps: Optimizer steps of this rise, instead of ``warmup_epochs``; None takes ``warmup_epochs``.
            final_lr_factor: Fraction of ``lr`` at which the cosine ends; 0 lets it fall to 0.

        Raises:
            ConfigurationError: If a number is out of its range.
        """
        check_at_least(0, weight_decay=weight_decay, warmup_epochs=warmup_epochs, warmup_steps=warmup_steps or 0)
        check_probability('final_lr_factor', final_lr_factor)
        # set before BaseTask.__init__, which calls configure_models
        self.optimizer: OptimizerName = optimizer
        self.lr = lr
        self.weight_decay = weight_decay
        self.momentum = momentum
        self.warmup_epochs = warmup_epochs
        self.warmup_steps = warmup_steps
        self.final_lr_factor = final_lr_factor
        self._seed = torch.initial_seed()
        self._total_steps: int | None = None
        self._provenance: dict[str, Any] = {}
        self._data_bands: list[str] = []
        super().__init__()

    # Data.

    def attached_data(self) -> SpectralData | None:
        """Find the data module of the trainer and check that it has as many bands as the network.

        Returns:
            The data module, or None if there is none or it is another package's.

        Raises:
            BandError: If it has another number of bands.
        """
        data = spectral_data(self.trainer)
        if data is None:
            return None
        if data.in_channels != self.normalize.in_channels:
            raise BandError(
                f'in_channels: the network takes {self.normalize.in_channels} bands and the data have '
                f'{data.in_channels} ({", ".join(data.bands)}); set model.in_channels to {data.in_channels}, or run '
                '`python -m torchgeo_msssl fit`, which sets it.'
            )
        self._data_bands = list(data.bands)
        return data

    def reflectance(self, batch: dict[str, Tensor], which: Literal['image', 'positive'] = 'image') -> Tensor:
        """Convert the chips of a batch to reflectance.

        Args:
            batch: ``image`` with ``valid``, ``scale`` and ``offset`` where known; the positive's keys begin with
                ``positive``.
            which: The chips themselves, or their positives.

        Returns:
            Reflectance (batch, band, height, width), the band's mean in invalid pixels.
        """
        prefix = '' if which == 'image' else 'positive_'
        known = (batch.get(f'{prefix}{key}') for key in ('valid', 'scale', 'offset'))
        return self.normalize.reflectance(batch[which], *known)

    def take_data(self, data: SpectralData) -> None:
        """Take over statistics and provenance of the training data."""
        self.normalize.set_statistics(data.mean, data.std, data.scale, data.offset)
        self._provenance = {
            'bands': list(data.bands),
            'wavelengths': list(data.wavelengths),
            'sensor': data.sensor_name,
            'chip_size': data.chip_size,
            'pixel_size': data.pixel_size if isinstance(data, PixelSizeData) else None,
        }

    def restore_provenance(self, saved: Mapping[str, Any]) -> None:
        """Restore the provenance of the data from the metadata of a checkpoint."""
        keys = ('bands', 'wavelengths', 'sensor', 'chip_size', 'pixel_size')
        self._provenance = {key: saved[key] for key in keys if saved.get(key) is not None} or self._provenance

    @property
    def band_names(self) -> list[str]:
        """Canonical names of the bands, or ``band_1``, … if unknown."""
        return self._provenance.get('bands') or [f'band_{n}' for n in range(1, self.normalize.in_channels + 1)]

    def metadata_of(self, method: str, model: str) -> EncoderMetadata:
        """Collect the metadata of the encoder.

        Args:
            method: How it was trained.
            model: timm name of the encoder.

        Returns:
            The metadata, with normalization if the bands are known.
        """
        constants: dict[str, Any] = {name: buffer.tolist() for name, buffer in self.normalize.named_buffers()}
        known = constants if self._provenance.get('bands') else {}
        return EncoderMetadata(method=method, model=model, **known, **self._provenance)

    def check_trained(self) -> None:
        """Check that the task was trained or loaded before it is evaluated.

        Raises:
            ConfigurationError: If it was not.
        """
        if self._data_bands and not self._provenance.get('bands'):
            raise ConfigurationError(
                'ckpt_path: an untrained network has no statistics of its bands; give a checkpoint.'
            )

    # Steps.

    def seed_step(self, batch_idx: int) -> None:
        """Seed the random numbers of a training step from seed, batch and rank alone, so that resumed runs repeat them.

        Args:
            batch_idx: Number of the batch since the beginning of training.
        """
        torch.manual_seed(_mix(self._seed, batch_idx, self.global_rank))

    def check_finite(self, loss: Tensor, batch: dict[str, Tensor]) -> None:
        """Stop if a loss is not finite.

        Args:
            loss: A scalar.
            batch: Its batch.

        Raises:
            NonFiniteLossError: If the loss is NaN or infinite; the message names step, chips and values.
        """
        if torch.isfinite(loss):
            return
        data = spectral_data(self.trainer)
        chips = ['unknown chips'] if data is None else data.describe_chips(batch)
        image = batch['image'].float()
        lowest, highest = image.amin(dim=(0, 2, 3)).tolist(), image.amax(dim=(0, 2, 3)).tolist()
        values = ', '.join(
            f'{name} {low:g} to {high:g}' for name, low, high in zip(self.band_names, lowest, highest, strict=False)
        )
        raise NonFiniteLossError(
            f'The loss became {loss.item()} at step {self.global_step}; the batch was {"; ".join(chips)}; its values '
            f'are {values}. Check these chips, or lower the learning rate; the last checkpoint precedes this step.'
        )

    def with_cosine_schedule(self, optimizer: Optimizer) -> OptimizerLRScheduler:
        """Add the cosine schedule with warm-up to an optimizer, stepped once per optimizer step.

        Raises:
            ConfigurationError: If the run has no end.
        """
        scheduler = cosine_with_warmup(optimizer, *self.schedule(), self.final_lr_factor)
        return {'optimizer': optimizer, 'lr_scheduler': {'scheduler': scheduler, 'interval': 'step'}}

    def schedule(self) -> tuple[int, int]:
        """Count the optimizer steps of the run and those in which the learning rate rises.

        Returns:
            ``(total, warmup)``.

        Raises:
            ConfigurationError: If the run has no end.
        """
        if self.warmup_steps is None:
            return self.schedule_steps(self.warmup_epochs)
        total, _ = self.schedule_steps(0)
        return total, min(self.warmup_steps, total - 1)

    def schedule_steps(self, warmup_epochs: float) -> tuple[int, int]:
        """Count the optimizer steps of the run and of its warm-up.

        Args:
            warmup_epochs: Epochs of the warm-up.

        Returns:
            ``(total, warmup)``.

        Raises:
            ConfigurationError: If the run has no end.
        """
        steps = self.trainer.estimated_stepping_batches
        if math.isinf(steps):
            raise ConfigurationError('trainer: the schedule needs an end; set trainer.max_epochs or trainer.max_steps.')
        total = int(steps)
        if self._total_steps not in (None, total):
            log.warning(
                'The run was to end at step %d and now ends at step %d: the learning rate follows the new schedule '
                'from here.',
                self._total_steps,
                total,
            )
        self._total_steps = total
        warmup = 0
        if warmup_epochs > 0:
            self.trainer.fit_loop.setup_data()  # the length of an epoch is unknown before
            per_epoch = self.trainer.num_training_batches / self.trainer.accumulate_grad_batches
            warmup = min(round(warmup_epochs * per_epoch), total - 1)
        return total, warmup

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Any,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Step, then call :meth:`after_step`."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.after_step()

    def after_step(self) -> None:
        """Called after each optimizer step, while ``global_step`` still is the number of steps before it."""

    # Checkpoints.

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the seed and the end of the schedule."""
        checkpoint['msssl_seed'] = self._seed
        checkpoint['msssl_total_steps'] = self._total_steps

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the seed and the end of the schedule."""
        self._seed = int(checkpoint.get('msssl_seed', self._seed))
        self._total_steps = checkpoint.get('msssl_total_steps')


def _mix(*numbers: int) -> int:
    """Hash integers to a seed of 63 bits (splitmix64, https://doi.org/10.1145/2714064.2660195)."""
    mask, state = 2**64 - 1, 0
    for number in numbers:
        state = (state + (number & mask) + 0x9E3779B97F4A7C15) & mask
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
        state ^= state >> 31
    return state >> 1
