"""VICRegL: views agree as a whole, and cells of their feature maps that show the same place or the same thing agree.

Bardes, Ponce & LeCun (https://arxiv.org/abs/2210.01571).
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from torchgeo_msssl.contract import PositivesData
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.losses.vicregl import LocalVectors, VICRegLLoss
from torchgeo_msssl.models.encoders import feature_map
from torchgeo_msssl.models.heads import projection_head
from torchgeo_msssl.tasks.vicreg import VICReg
from torchgeo_msssl.transforms.crops import ViewGeometry
from torchgeo_msssl.transforms.views import MultiView
from torchgeo_msssl.validation import check_at_least

#: Smallest fraction of valid pixels in a cell that is compared like others.
MIN_VALID_CELL = 0.5


class VICRegL(VICReg):
    """Pretrain a convolutional encoder with VICRegL.

    A second projection head projects each cell of the last feature map. VICReg also compares the projections of the
    cells of two views that are nearest to each other on the chip, and of those whose projections are nearest. Places
    take crop, flips and quarter turns into account. They assume that the cells divide the view evenly, as the authors
    do; the receptive fields of a ResNet lie up to half a cell further towards the top left corner.

    The feature map should have 4 × 4 cells or more (7 × 7 in the paper): a view of 32 pixels has one cell with the
    stride of 32 that most networks have.

    Attributes:
        local_projection_head: Cell of the feature map (n, channel) to its projection (n, local_output_dim).
    """

    method = 'vicregl'
    criterion: VICRegLLoss

    def __init__(
        self,
        alpha: float = 0.75,
        match_fraction: float = 0.4,
        local_hidden_dim: int = 512,
        local_output_dim: int = 512,
        **kwargs: Any,
    ) -> None:
        """Build encoder and heads.

        Args:
            alpha: Weight of the global criterion, from 0 to 1; that of the local ones is the rest. 0.75 or 0.9 in the
                paper.
            match_fraction: Fraction of the cells of a feature map that are compared, those nearest to their match: 20
                of 49 in the paper.
            local_hidden_dim: Width of the hidden layers of the projection head of the cells.
            local_output_dim: Width of the projection of a cell.
            **kwargs: The options of :class:`VICReg`.

        Raises:
            ConfigurationError: If an option is out of its range.
        """
        check_at_least(1, local_hidden_dim=local_hidden_dim, local_output_dim=local_output_dim)
        self._local_options = (alpha, match_fraction)
        self._local_widths = (local_hidden_dim, local_output_dim)
        super().__init__(**kwargs)

    def configure_losses(self) -> None:
        """Build the loss."""
        self.criterion = VICRegLLoss(*self._loss_weights, *self._local_options)

    def configure_method(self) -> None:
        """Build the projection head of the cells."""
        kind, _, _ = self._projection
        channels = int(self.model.num_features)  # of the feature map; another layer may follow the pooling
        self.local_projection_head = projection_head(kind, channels, *self._local_widths, self.mlp)

    def setup(self, stage: str) -> None:
        """Extend :meth:`.JointEmbeddingTask.setup`.

        Raises:
            ConfigurationError: If views of a chip are cut from different places.
        """
        super().setup(stage)
        data = self.attached_data()
        if isinstance(data, PositivesData) and data.positives == 'nearby':
            raise ConfigurationError(
                "positives: VICRegL compares views by place, got 'nearby', whose chips show different places; set "
                'data.positives to same, temporal, earlier or later.'
            )

    def compute_loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Compare pooled features and cells of the feature maps.

        Returns:
            Loss; features of the global views (view × batch, features); projections of the first view
            (batch, dimension).
        """
        features, z, maps = self.project_views(batch, self.multiview)
        local = () if self.local_multiview is None else self.project_views(batch, self.local_multiview)[1:]
        return self.criterion(z, maps, *local), features, z[0]

    def project_views(
        self, batch: dict[str, Tensor], multiview: MultiView
    ) -> tuple[Tensor, Tensor, list[LocalVectors]]:
        """Cut views of one size, and project them and the cells of their feature maps.

        Args:
            batch: A batch of chips.
            multiview: Makes the views.

        Returns:
            Features (view × batch, features), projections (view, batch, dimension), and the cells of each view.

        Raises:
            ConfigurationError: If the encoder is no convolutional network, or a feature map is a single cell.
        """
        views, valid, geometry = self.locate_views(batch, multiview)
        maps = feature_map(self.model, self.normalize.standardize(views.flatten(0, 1), valid.flatten(0, 1)))
        features: Tensor = self.model.forward_head(maps)
        z: Tensor = self.projection_head(features).unflatten(0, valid.shape[:2])
        if maps.shape[-1] < 2:
            option = 'augmentation.size' if multiview is self.multiview else 'local_crops_size'
            raise ConfigurationError(
                f'{option}: the feature map of views of {valid.shape[-1]} px has one cell, expected 2 × 2 or more, '
                f'better 4 × 4; enlarge model.{option}, or choose a network of smaller stride.'
            )
        return features, z, self.project_cells(maps, valid, geometry)

    def project_cells(self, maps: Tensor, valid: Tensor, geometry: ViewGeometry) -> list[LocalVectors]:
        """Project the cells of feature maps, and locate them.

        Args:
            maps: Feature maps (view × batch, channel, cells, cells).
            valid: Valid pixels of the views (view, batch, 1, size, size).
            geometry: Places of the views.

        Returns:
            The cells of each view, row by row.
        """
        cells, shape = maps.shape[-1], valid.shape[:2]
        rows = maps.flatten(2).transpose(1, 2)  # (view × batch, cell, channel)
        vectors = self.local_projection_head(rows.flatten(0, 1)).unflatten(0, (*shape, cells * cells))
        centers = geometry.cell_centers(cells).flatten(2, 3)
        fraction = F.adaptive_avg_pool2d(valid.flatten(0, 1).to(centers.dtype), cells)
        with_data = (fraction >= MIN_VALID_CELL).reshape(*shape, cells * cells)
        return [LocalVectors(*parts) for parts in zip(vectors, centers, with_data, strict=True)]
