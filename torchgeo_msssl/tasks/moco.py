"""MoCo: a query finds its key, which a slower copy of the encoder made, among many others.

Version 2, with a queue of keys: https://arxiv.org/abs/2003.04297 on https://arxiv.org/abs/1911.05722. Version 3,
without: https://arxiv.org/abs/2104.02057.
"""

import dataclasses
import logging
from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import Tensor, nn

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.losses.contrastive import MoCoV3Loss, QueueLoss
from torchgeo_msssl.models.heads import ProjectionKind, moco_head
from torchgeo_msssl.models.momentum import momentum_at
from torchgeo_msssl.tasks.momentum import MomentumTask
from torchgeo_msssl.tasks.optimizers import OptimizerName

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


class MoCo(MomentumTask):
    """Pretrain an encoder with MoCo.

    In version 2 every view's query is compared with every other view's key and with a queue, which all views' keys
    then enter; the paper compares one query with one key. Version 3 has no queue but a prediction head, and takes the
    other chips of the global batch as negatives.

    The moving average is taken after each step, the papers' before each forward pass: the same keys, since at the
    first step both networks are equal. Batch norm is not shuffled between devices, as the papers of version 1 and 2
    do to keep it from telling queries which key is theirs: on one device there is nothing to shuffle between. Version
    3 does without, too; of its vision transformers' tricks, the frozen patch projection is left out.

    Attributes:
        prediction_head: Projection (n, dimension) to the query (n, dimension); version 3 only.
    """

    method = 'moco'

    def __init__(
        self,
        model: str = 'resnet18',
        in_channels: int = 12,
        version: Version = 2,
        views: int = 2,
        temperature: float = 0.2,
        memory_bank_size: int | None = None,
        encoder_momentum: float | None = None,
        output_dim: int | None = None,
        optimizer: OptimizerName = 'adamw',
        lr: float = 1e-3,
        weight_decay: float | None = None,
        **kwargs: Any,
    ) -> None:
        """Build encoder, heads and their copies.

        Args:
            model: timm name of the encoder.
            in_channels: Number of bands (this package's command line takes it from the data).
            version: 2, with a queue, or 3, with a prediction head.
            views: Views of each chip, 2 or more; the loss is the mean over all pairs.
            temperature: Temperature τ.
            memory_bank_size: Keys in the queue of version 2. None is 4096; the paper's 65,536 is for a million images.
                More than there are distinct chips makes a chip its own negative.
            encoder_momentum: How much of the momentum encoder stays at each step. None is the papers': 0.999 in
                version 2; 0.99, rising to 1 as half a cosine, in version 3. Runs of few steps need less, about 0.99.
            output_dim: Width of the projection. None is the papers': 128 in version 2, 256 in version 3.
            optimizer: ``adamw``, ``adam``, ``sgd`` (version 2's, of 0.03 · batch size / 256) or ``lars``.
            lr: Largest learning rate, here for AdamW, batches of 64 and short runs.
            weight_decay: Weight decay; norms and biases are exempt. None is the papers': 1e-4 and 0.1.
            **kwargs: The options that all joint-embedding methods share, see
                :class:`~torchgeo_msssl.tasks.JointEmbeddingTask`.

        Raises:
            ConfigurationError: If an option is out of its range, or version 3 is given a queue.
        """
        if version not in get_args(Version):
            raise ConfigurationError(f'version: expected 2 or 3, got {version!r}.')
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
        if not 0 <= options.encoder_momentum <= 1:
            raise ConfigurationError(f'encoder_momentum: expected 0 to 1, got {options.encoder_momentum}.')
        self.version = version
        self._temperature = temperature
        self._memory_bank_size = options.memory_bank_size
        self._encoder_momentum = options.encoder_momentum
        super().__init__(
            model,
            in_channels,
            views=views,
            output_dim=options.output_dim,
            optimizer=optimizer,
            lr=lr,
            weight_decay=options.weight_decay,
            **kwargs,
        )
        self.hparams.update(dataclasses.asdict(options))

    def make_projection_head(self, kind: ProjectionKind, features: int, hidden: int, out: int) -> nn.Module:
        """Build the projection head; its ``mlp`` has two layers, or three with batch norm in version 3."""
        if kind == 'mlp' and self.version == 2:
            return moco_head(features, hidden, out, layers=2, batch_norm=False)
        if kind == 'mlp':
            return moco_head(features, hidden, out, layers=3, batch_norm=True)
        return super().make_projection_head(kind, features, hidden, out)

    def configure_method(self) -> None:
        """Build the copies, and the prediction head of version 3."""
        super().configure_method()
        if self.version == 3:
            _, hidden, _ = self._projection
            self.prediction_head = moco_head(self.dimension, hidden, self.dimension, layers=2, batch_norm=True)

    def configure_losses(self) -> None:
        """Build the loss, in version 2 with its queue."""
        if self._memory_bank_size is None:
            self.criterion: nn.Module = MoCoV3Loss(self._temperature)
        else:
            self.criterion = QueueLoss(self._memory_bank_size, self.dimension, self._temperature)

    def setup(self, stage: str) -> None:
        """Take bands, statistics and starting weights over, and warn of a queue that is too long.

        Args:
            stage: ``fit``, ``validate``, ``test`` or ``predict``.

        Raises:
            BandError: If the data module has another number of bands than the encoder.
            ConfigurationError: If the encoder cannot take views of this size, or there is one chip in a batch.
        """
        super().setup(stage)
        data = getattr(self.trainer, 'datamodule', None)
        # how many they are is known once the data module is set up
        chips = getattr(getattr(data, 'sampler', None), 'length', None) or getattr(data, 'chips_per_epoch', None)
        if stage == 'fit' and chips is not None and (self._memory_bank_size or 0) > self.views * chips:
            log.warning(
                'memory_bank_size: the queue holds %d keys, more than the %d views of the %d chips of an epoch, so '
                'chips may be their own negatives; set model.memory_bank_size to at most that.',
                self._memory_bank_size, self.views * chips, chips,
            )  # fmt: skip

    def compute_loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the loss: each view's query against every other view's key; in version 2, fill the queue.

        Args:
            batch: A batch of chips.

        Returns:
            Loss; features (view × batch, features); projections of the first view (batch, dimension).
        """
        features, projections, keys = self.embed_twice(batch)
        queries = self.prediction_head(projections) if self.version == 3 else projections
        loss = self.criterion(self.split_views(queries), self.split_views(keys))
        return loss, features, self.split_views(projections)[0]

    def momentum_after(self, step: int) -> float:
        """Constant in version 2; in version 3 that of the step to come, which its authors update for."""
        if self.version == 2:
            return self._encoder_momentum
        assert self._total_steps is not None, 'configure_optimizers sets it'
        return momentum_at(step + 1, self._total_steps, self._encoder_momentum)


def _complete(defaults: _Options, **given: Any) -> _Options:
    """Replace the defaults by what was given."""
    return dataclasses.replace(defaults, **{name: value for name, value in given.items() if value is not None})
