"""What all tasks that train share: steps that can be repeated, losses that are finite, a schedule with an end."""

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torchgeo.tasks import BaseTask

from torchgeo_msssl.errors import ConfigurationError, NonFiniteLossError
from torchgeo_msssl.models.metadata import EncoderMetadata
from torchgeo_msssl.transforms.normalize import Normalize

log = logging.getLogger(__name__)


class TrainingTask(BaseTask):
    """A task whose steps depend on seed, batch and rank alone, so that a resumed run is the uninterrupted one.

    Attributes:
        normalize: Digital numbers to standardised reflectance, saved with the weights.
    """

    normalize: Normalize

    def __init__(self) -> None:
        """Take the seed of the process."""
        # BaseTask.__init__ calls configure_models, which may read these
        self._seed = torch.initial_seed()
        self._total_steps: int | None = None
        self._provenance: dict[str, Any] = {}
        self._data_bands: list[str] = []
        super().__init__()

    def seed_step(self, batch_idx: int) -> None:
        """Make everything random in a training step a function of seed, batch and rank alone.

        A resumed run then draws what the uninterrupted one would have drawn.

        Args:
            batch_idx: Number of the batch since the beginning of training.
        """
        torch.manual_seed(_mix(self._seed, batch_idx, self.global_rank))

    def check_finite(self, loss: Tensor, batch: dict[str, Tensor]) -> None:
        """Stop where a loss is not finite.

        Args:
            loss: A scalar.
            batch: The batch it is of.

        Raises:
            NonFiniteLossError: If the loss is NaN or infinite; the message names step, chips and values.
        """
        if torch.isfinite(loss):
            return
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
        raise NonFiniteLossError(
            f'The loss became {loss.item()} at step {self.global_step}; the batch was {"; ".join(chips)}; its values '
            f'are {extremes}. Look at these chips, or lower the learning rate; the last checkpoint is from before.'
        )

    def take_provenance(self, data: Any) -> None:
        """Note what the data are.

        Args:
            data: Data module with ``bands`` and ``sensor_name``; ``wavelengths`` and ``chip_size`` where it has them.
        """
        self._provenance = {
            'bands': list(data.bands),
            'wavelengths': list(getattr(data, 'wavelengths', ())),
            'sensor': data.sensor_name,
            'chip_size': getattr(data, 'chip_size', None),
        }

    def restore_provenance(self, kept: Mapping[str, Any]) -> None:
        """Take back what a checkpoint tells of the data; what it does not tell stays.

        Args:
            kept: Metadata of the checkpoint, as a mapping.
        """
        known = {key: kept[key] for key in ('bands', 'wavelengths', 'sensor', 'chip_size') if kept.get(key) is not None}
        self._provenance = known or self._provenance

    def metadata_of(self, method: str, model: str) -> EncoderMetadata:
        """Put together what has to be known about the encoder besides its tensors.

        Args:
            method: How it was trained.
            model: timm name of the encoder.

        Returns:
            The metadata, with normalisation where the bands are known.
        """
        buffers = {name: getattr(self.normalize, name).tolist() for name in ('mean', 'std', 'scale', 'offset')}
        known = buffers if self._provenance.get('bands') else {}
        return EncoderMetadata(method=method, model=model, **known, **self._provenance)

    def check_trained(self) -> None:
        """See that there is something to evaluate.

        Raises:
            ConfigurationError: If the task is neither trained nor loaded.
        """
        if self._data_bands and not self._provenance.get('bands'):
            raise ConfigurationError(
                'ckpt_path: an untrained network knows no statistics of its bands; give a checkpoint.'
            )

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
                'The run was to end at step %d and now ends at step %d: from here on the learning rate is that of the '
                'new schedule.', self._total_steps, total,
            )  # fmt: skip
        self._total_steps = total
        warmup = 0
        if warmup_epochs > 0:
            self.trainer.fit_loop.setup_data()  # the length of an epoch is not known before
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
        """Step, then let what follows the trained weights follow them.

        Args:
            epoch: Epoch.
            batch_idx: Batch in the epoch.
            optimizer: Optimizer.
            optimizer_closure: Computes loss and gradients.
        """
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.after_step()

    def after_step(self) -> None:
        """Called after each optimizer step, when ``global_step`` still is the number of the steps before it."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the seed and the end of the schedule."""
        checkpoint['msssl_seed'] = self._seed
        checkpoint['msssl_total_steps'] = self._total_steps

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take them back."""
        self._seed = int(checkpoint.get('msssl_seed', self._seed))
        self._total_steps = checkpoint.get('msssl_total_steps')


def _mix(*numbers: int) -> int:
    """Hash whole numbers to a seed of 63 bits (splitmix64, https://doi.org/10.1145/2714064.2660195)."""
    mask, state = 2**64 - 1, 0
    for number in numbers:
        state = (state + (number & mask) + 0x9E3779B97F4A7C15) & mask
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
        state ^= state >> 31
    return state >> 1
