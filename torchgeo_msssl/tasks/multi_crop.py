"""Base of the methods that can also compare small views with the others (multi-crop).

Caron et al.: Unsupervised Learning of Visual Features by Contrasting Cluster Assignments
(https://arxiv.org/abs/2006.09882).
"""

from typing import Any

import torch
from torch import Tensor, nn

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.tasks.joint_embedding import JointEmbeddingTask
from torchgeo_msssl.transforms.views import MultiView
from torchgeo_msssl.validation import check_at_least, check_interval

#: A smallest and a largest fraction of a chip's area.
Scale = tuple[float, float]


class MultiCropTask(JointEmbeddingTask):
    """A task that can compare local views with the global ones, which are the ``views`` of other methods.

    Local views are small crops of smaller size: the network learns to tell the whole from a part, at a fraction of the
    cost of further global views. They are compared with global views only and are never a target themselves. They pass
    the networks in a batch of their own.

    Attributes:
        local_multiview: Makes the local views, or None without.
    """

    local_multiview: MultiView | None

    def __init__(
        self,
        global_crops_scale: Scale | None = None,
        local_crops_number: int = 0,
        local_crops_size: int = 96,
        local_crops_scale: Scale = (0.05, 0.4),
        **kwargs: Any,
    ) -> None:
        """Build encoder and heads.

        Args:
            global_crops_scale: Smallest and largest fraction of the chip's area in a global view; None for
                ``augmentation.crop_scale``. With local views 0.4 and 1 are usual.
            local_crops_number: Local views of each chip, besides the ``views`` global ones; usually 4 to 8.
            local_crops_size: Side of a local view in pixels; usually 96 for global views of 224.
            local_crops_scale: Smallest and largest fraction of the chip's area in a local view.
            **kwargs: The options of :class:`~torchgeo_msssl.tasks.JointEmbeddingTask`.

        Raises:
            ConfigurationError: If an option is out of its range.
        """
        check_at_least(0, local_crops_number=local_crops_number)
        check_at_least(1, local_crops_size=local_crops_size)
        self._global_scale = global_crops_scale and check_interval(
            'global_crops_scale', global_crops_scale, 0, 1, above=True
        )
        local_scale = check_interval('local_crops_scale', local_crops_scale, 0, 1, above=True)
        self._local_view_options: dict[str, Any] = {
            'views': local_crops_number,
            'size': local_crops_size,
            'crop_scale': local_scale,
        }
        super().__init__(**kwargs)

    def configure_heads(self) -> None:
        """Build views of both sizes and projection head, then the method's other networks."""
        if self._global_scale:
            self._view_options |= {'crop_scale': self._global_scale}
        super().configure_heads()
        options = self._view_options | self._local_view_options
        self.local_multiview = MultiView(**options) if options['views'] else None

    def setup(self, stage: str) -> None:
        """Extend :meth:`.JointEmbeddingTask.setup`.

        Raises:
            ConfigurationError: If local views are larger than global ones.
        """
        super().setup(stage)
        data, local = self.attached_data(), self._local_view_options['size']
        size = self.multiview.augmentation.size or (data.chip_size if data else None)
        if self.local_multiview is not None and size is not None and local > size:
            raise ConfigurationError(
                f'local_crops_size: local views of {local} px are larger than global views of {size} px; set '
                f'model.local_crops_size to about {max(1, size // 2)}.'
            )

    def project_local_views(self, batch: dict[str, Tensor]) -> Tensor | None:
        """Project the local views of a batch: (local view, batch, dimension), or None without."""
        if self.local_multiview is None:
            return None
        projections = self.projection_head(self.model(self.view_inputs(batch, self.local_multiview)))
        return torch.stack(projections.chunk(self.local_multiview.views))


def apply_to_views(head: nn.Module, vectors: Tensor | None) -> Tensor | None:
    """Apply a head to (view, batch, features) in one batch: (view, batch, output), or None of None."""
    if vectors is None:
        return None
    return torch.stack(head(vectors.flatten(0, 1)).chunk(len(vectors)))
