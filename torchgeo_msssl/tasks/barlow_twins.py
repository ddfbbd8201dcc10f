"""Barlow Twins: features agree between views and are decorrelated from each other.

Zbontar et al. (https://arxiv.org/abs/2103.03230).
"""

from functools import partial
from typing import Any

from torchgeo_msssl.losses.barlow_twins import barlow_twins_loss
from torchgeo_msssl.tasks.joint_embedding import JointEmbeddingTask
from torchgeo_msssl.tasks.optimizers import OptimizerName
from torchgeo_msssl.validation import check_at_least


class BarlowTwins(JointEmbeddingTask):
    """Pretrain an encoder with Barlow Twins.

    It needs neither negatives nor a momentum encoder: features are standardized over the batch, so that a constant one
    costs as much as one that disagrees. The paper's projector of 8192 and its LARS are for batches of 2048; the
    defaults here are for small ones.
    """

    method = 'barlow_twins'
    mlp = 'expander'

    def __init__(
        self,
        redundancy_weight: float = 5e-3,
        optimizer: OptimizerName = 'adamw',
        lr: float = 1e-3,
        warmup_epochs: float = 1,
        **kwargs: Any,
    ) -> None:
        """Build encoder and head.

        Args:
            redundancy_weight: Weight λ of the correlations between different features.
            optimizer: ``adamw``, ``adam``, ``sgd`` or ``lars``. The loss is a sum over features, so that the size of
                its gradients grows with ``output_dim``; AdamW and LARS do not depend on it, SGD does.
            lr: Maximum learning rate.
            warmup_epochs: Epochs in which the learning rate rises linearly.
            **kwargs: The options of :class:`~torchgeo_msssl.tasks.JointEmbeddingTask`.

        Raises:
            ConfigurationError: If an option is out of its range.
        """
        check_at_least(0, redundancy_weight=redundancy_weight)
        self.criterion = partial(barlow_twins_loss, redundancy_weight=redundancy_weight)
        super().__init__(optimizer=optimizer, lr=lr, warmup_epochs=warmup_epochs, **kwargs)
