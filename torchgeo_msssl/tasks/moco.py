"""MoCo: a query finds its key, computed by a moving average of the encoder, among many others.

Version 2, with a queue of keys: https://arxiv.org/abs/2003.04297, based on https://arxiv.org/abs/1911.05722. Version 3,
without: https://arxiv.org/abs/2104.02057.
"""

import dataclasses
import logging
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from torch import Tensor

from torchgeo_msssl.contract import PretrainingData
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.losses.contrastive import QueueLoss, moco_v3_loss
from torchgeo_msssl.models.heads import mlp_head
from torchgeo_msssl.models.momentum import momentum_at
from torchgeo_msssl.tasks.joint_embedding import JointEmbeddingTask
from torchgeo_msssl.tasks.optimizers import OptimizerName
from torchgeo_msssl.validation import check_choice, check_positive, check_probability

log = logging.getLogger(__name__)

Version = Literal[2, 3]


@dataclass(frozen=True)
class _Options:
    """Options whose default depends on the version."""

    memory_bank_size: int | None
    encoder_momentum: float
    output_dim: int
    weight_decay: float


_DEFAULTS = {
    2: _Options(memory_bank_size=4096, encoder_momentum=0.999, output_dim=128, weight_decay=1e-4),
    3: _Options(memory_bank_size=None, encoder_momentum=0.99, output_dim=256, weight_decay=0.1),
}


class MoCo(JointEmbeddingTask):
    """Pretrain an encoder with MoCo.

    In version 2 every view's query is compared with every other view's key and with a queue, which the keys of all
    views then enter; the paper compares one query with one key. Version 3 has a prediction head instead of a queue, and
    the other chips of the global batch are the negatives.

    The moving average is updated after each step, in the papers before each forward pass: this gives the same keys,
    since both networks are equal at the first step. Batch norm is not shuffled between devices, as the papers of
    versions 1 and 2 do to prevent it from revealing which key belongs to a query; on one device it cannot be. Version
    3 does without it as well. The frozen patch projection of its vision transformers is left out.

    Attributes:
        momentum_encoder: Moving average of encoder and projection head, which computes the keys.
        prediction_head: Projection (n, dimension) to the query (n, dimension); version 3 only.
    """

    method = 'moco'

    def __init__(
        self,
        version: Version = 2,
        temperature: float = 0.2,
        memory_bank_size: int | None = None,
        encoder_momentum: float | None = None,
        output_dim: int | None = None,
        optimizer: OptimizerName = 'adamw',
        lr: float = 1e-3,
        weight_decay: float | None = None,
        **kwargs: Any,
    ) -> None:
        """Build encoder, heads and momentum encoder.

        Args:
            version: 2, with a queue, or 3, with a prediction head.
            temperature: Temperature τ.
            memory_bank_size: Number of keys in the queue of version 2. None for 4096; the paper's 65,536 is for a
                million images. If it exceeds the number of distinct chips, a chip becomes its own negative.
            encoder_momentum: Fraction of the momentum encoder that each step keeps. None for the papers': 0.999 in
                version 2; 0.99, rising to 1 as half a cosine, in version 3. Short runs need less, about 0.99.
            output_dim: Width of the projection. None for the papers': 128 in version 2, 256 in version 3.
            optimizer: ``adamw``, ``adam``, ``sgd`` (version 2's, with lr 0.03 · batch size / 256) or ``lars``.
            lr: Maximum learning rate, here for AdamW, batches of 64 and short runs.
            weight_decay: Weight decay; normalization layers and biases are exempt. None for the papers': 1e-4 in
                version 2, 0.1 in version 3.
            **kwargs: The options of :class:`~torchgeo_msssl.tasks.JointEmbeddingTask`.

        Raises:
            ConfigurationError: If an option is out of its range, or version 3 is given a queue.
        """
        check_choice('version', version, Version)
        check_positive(temperature=temperature)
        if version == 3 and memory_bank_size is not None:
            raise ConfigurationError(
                f'memory_bank_size: version 3 has no queue, got {memory_bank_size}; leave it out, or set version to 2.'
            )
        options = _complete(
            _DEFAULTS[version],
            memory_bank_size=memory_bank_size,
            encoder_momentum=encoder_momentum,
            output_dim=output_dim,
            weight_decay=weight_decay,
        )
        self._encoder_momentum = check_probability('encoder_momentum', options.encoder_momentum)
        self.version = version
        self.mlp = 'moco_v2' if version == 2 else 'moco_v3'
        self._temperature = temperature
        self._memory_bank_size = options.memory_bank_size
        super().__init__(
            output_dim=options.output_dim, optimizer=optimizer, lr=lr, weight_decay=options.weight_decay, **kwargs
        )
        self.hparams.update(dataclasses.asdict(options))

    def configure_method(self) -> None:
        """Build the momentum encoder, and the prediction head of version 3."""
        base = self._encoder_momentum
        self.momentum_encoder = self.make_momentum_encoder(
            base if self.version == 2 else partial(_momentum_of_next_step, base=base)
        )
        if self.version == 3:
            _, hidden, _ = self._projection
            self.prediction_head = mlp_head('moco_v3_prediction', self.dimension, hidden, self.dimension)

    def configure_losses(self) -> None:
        """Build the loss, in version 2 with its queue."""
        if self._memory_bank_size is None:
            self.criterion = partial(moco_v3_loss, temperature=self._temperature)
        else:
            self.criterion = QueueLoss(self._memory_bank_size, self.dimension, self._temperature)

    def setup(self, stage: str) -> None:
        """Extend :meth:`.JointEmbeddingTask.setup`: warn if the queue is too long."""
        super().setup(stage)
        data = self.attached_data()
        # known only after the data module's setup
        chips = data.epoch_chips if isinstance(data, PretrainingData) else None
        if stage == 'fit' and chips is not None and (self._memory_bank_size or 0) > self.views * chips:
            log.warning(
                'memory_bank_size: the queue holds %d keys, more than the %d views of the %d chips of an epoch, so '
                'chips may be their own negatives; set model.memory_bank_size to at most that.',
                self._memory_bank_size,
                self.views * chips,
                chips,
            )

    def compute_loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Compare each view's query with every other view's key; in version 2, enqueue the keys.

        Returns:
            Loss; features (view × batch, features); projections of the first view (batch, dimension).
        """
        inputs = self.view_inputs(batch)
        features: Tensor = self.model(inputs)
        projections, keys = self.projection_head(features), self.momentum_encoder(inputs)
        queries = self.prediction_head(projections) if self.version == 3 else projections
        loss = self.criterion(self.split_views(queries), self.split_views(keys))
        return loss, features, self.split_views(projections)[0]


def _momentum_of_next_step(step: int, total_steps: int, base: float) -> float:
    """Momentum of the step to come, for which the authors of version 3 update."""
    return momentum_at(step + 1, total_steps, base)


def _complete(defaults: _Options, **given: Any) -> _Options:
    """Replace defaults by the given values that are not None."""
    return dataclasses.replace(defaults, **{name: value for name, value in given.items() if value is not None})
