"""Monitoring of collapse: embeddings that become equal for all chips while the loss falls."""

import logging
from collections import deque
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.losses.collapse import embedding_std, mean_cosine, rank_me

log = logging.getLogger(__name__)

#: Number of last batches of an epoch from whose embeddings its signals are computed.
_BATCHES = 16
#: Fraction of the healthy standard deviation, 1 / √dimension, below which embeddings count as collapsed.
_COLLAPSED = 0.1


class CollapseMonitor(Callback):
    """Logs standard deviation, mean pairwise cosine and RankMe; warns of collapse, and optionally stops."""

    def __init__(self, patience: int | None = None) -> None:
        """Set the patience.

        Args:
            patience: Stop after this many consecutive collapsed epochs; None only warns.

        Raises:
            ConfigurationError: If the patience is below 1.
        """
        if patience is not None and patience < 1:
            raise ConfigurationError(f'collapse_patience: expected at least 1 epoch, or None, got {patience}.')
        self.patience = patience
        self._recent: deque[tuple[Tensor, Tensor]] = deque(maxlen=_BATCHES)
        self._epochs = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: dict[str, Tensor], batch_idx: int
    ) -> None:
        """Keep the embeddings of the batch, and log their standard deviation."""
        embedding = outputs['embedding'].float()
        self._recent.append((outputs['features'].float(), embedding))
        pl_module.log('embedding_std', embedding_std(embedding), prog_bar=True, batch_size=len(embedding))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the signals of the epoch."""
        if not self._recent:
            return
        features, embedding = (torch.cat(parts) for parts in zip(*self._recent, strict=True))
        self._recent.clear()
        spread, healthy = embedding_std(embedding), embedding.shape[1] ** -0.5
        spread = trainer.strategy.reduce(spread, reduce_op='mean')  # so that all ranks stop, or none
        pl_module.log('epoch_embedding_std', spread, sync_dist=True)
        pl_module.log('mean_cosine', mean_cosine(embedding), prog_bar=True, sync_dist=True)
        pl_module.log('rank_me', rank_me(features), prog_bar=True, sync_dist=True)
        if spread >= _COLLAPSED * healthy:
            self._epochs = 0
            return
        self._epochs += 1
        log.warning(
            'Embeddings are collapsing: their standard deviation is %.2g, healthy is about %.2g. '
            'Lower the learning rate, or use more views or larger batches.',
            spread.item(),
            healthy,
        )
        if self.patience is not None and self._epochs >= self.patience:
            log.error('Stopped: embeddings were collapsed for %d consecutive epochs.', self._epochs)
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """Number of consecutive collapsed epochs."""
        return {'epochs': self._epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore it."""
        self._epochs = int(state_dict['epochs'])
