"""Evidence of where a sub-image lies in an image, from feature maps of both."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from torchgeo_msssl.validation import check_at_least, check_positive

#: First level of the pyramid that is compared, at a quarter of the image's resolution. Comparing finer ones would cost
#: more than the network.
_FIRST_LEVEL = 2


def placement_scores(query: Tensor, key: Tensor, known: Tensor) -> Tensor:
    """Compare an image with its sub-image in every place.

    Args:
        query: Features of the image (batch, dimension, height, width).
        key: Features of the sub-image's canvas (batch, dimension, rows, columns).
        known: Positions of the canvas that count, bool, (batch, rows, columns), one or more per sample.

    Returns:
        Mean cosine similarity of the positions that count, with the canvas shifted by up to its own size beyond the
        image, where the similarity is 0, (batch, height + rows − 1, width + columns − 1).
    """
    batch, _, rows, columns = key.shape
    image = F.normalize(query, dim=1).flatten(0, 1)[None]
    template = F.normalize(key, dim=1) * known[:, None]
    scores = F.conv2d(image, template, padding=(rows - 1, columns - 1), groups=batch)[0]
    return scores / known.sum(dim=(1, 2))[:, None, None]


def overlap_probability(scores: Tensor, known: Tensor, temperature: float) -> Tensor:
    """Probability that each position is in the sub-image, if that of a place is the softmax of its score.

    Args:
        scores: From :func:`placement_scores`, (batch, height + rows − 1, width + columns − 1).
        known: Positions of the canvas that count, bool, (batch, rows, columns).
        temperature: Softness: 0 in the limit chooses the place with the highest score.

    Returns:
        Probabilities (batch, 1, height, width).
    """
    batch, rows, columns = known.shape
    places = (scores / temperature).flatten(1).softmax(dim=1).reshape(scores.shape)
    inside = F.conv_transpose2d(places[None], known[:, None].to(places.dtype), groups=batch)[0]
    height, width = (side - canvas + 1 for side, canvas in zip(scores.shape[1:], (rows, columns), strict=True))
    return inside[:, None, rows - 1 : rows - 1 + height, columns - 1 : columns - 1 + width]


def known_positions(valid: Tensor, rows: int, columns: int) -> Tensor:
    """Choose the positions of a feature map that show enough of a sub-image.

    Args:
        valid: Valid pixels of the sub-image's canvas (batch, 1, side, side), bool.
        rows: Height of the feature map.
        columns: Width of the feature map.

    Returns:
        Positions of which at least half is valid, else those with most, bool, (batch, rows, columns).
    """
    fraction = F.adaptive_avg_pool2d(valid.float(), (rows, columns))[:, 0]
    return fraction >= fraction.amax(dim=(1, 2), keepdim=True).clamp_max(0.5)


class SubimageMatching(nn.Module):
    """Adds to the feature maps of an image how probably each position is in its sub-image.

    At each level the features of the sub-image are compared with those of the image in every place, as in trackers
    (SiamFC, https://arxiv.org/abs/1606.09549), and the scores become a probability for each position of the image.

    A decoder thus gets maps of the usual shapes, and can be used without a sub-image afterwards.

    Attributes:
        levels: Levels of the pyramid that are compared.
    """

    def __init__(self, channels: Sequence[int], dimension: int = 64, temperature: float = 0.02) -> None:
        """Build the layers.

        Args:
            channels: Features of each level of the pyramid, 0 for a level that the encoder lacks.
            dimension: Features that are compared.
            temperature: Softness of the choice of a place, see :func:`overlap_probability`.

        Raises:
            ConfigurationError: If an option is out of its range.
        """
        super().__init__()
        check_at_least(1, matching_dim=dimension)
        check_positive(temperature=temperature)
        self.temperature = temperature
        self.levels = [level for level, width in enumerate(channels) if level >= _FIRST_LEVEL and width > 0]
        widths = [channels[level] for level in self.levels]
        self.projections = nn.ModuleList(nn.Conv2d(width, dimension, 1, bias=False) for width in widths)
        self.evidence = nn.ModuleList(nn.Conv2d(1, width, 1, bias=False) for width in widths)

    def forward(self, image: Sequence[Tensor], subimage: Sequence[Tensor], valid: Tensor) -> list[Tensor]:
        """Add the evidence.

        Args:
            image: Feature pyramid of the image, from fine to coarse, (batch, features, height, width) each.
            subimage: Feature pyramid of the sub-image's canvas.
            valid: Valid pixels of the canvas (batch, 1, side, side), bool.

        Returns:
            Feature pyramid of the shapes of ``image``.
        """
        maps = list(image)
        for level, projection, evidence in zip(self.levels, self.projections, self.evidence, strict=True):
            # what all positions of an image have in common would make every pair similar
            center = maps[level].mean(dim=(-2, -1), keepdim=True)
            known = known_positions(valid, *subimage[level].shape[-2:])
            query, key = (projection(found - center) for found in (maps[level], subimage[level]))
            probability = overlap_probability(placement_scores(query, key, known), known, self.temperature)
            maps[level] = maps[level] + evidence(probability)
        return maps
