"""Choice of the chips in the pictures of a segmentation."""

import torch

from torchgeo_msssl.tasks.segmentation_figures import ChipPicture
from torchgeo_msssl.tasks.segmentation_folder import _most_classes


def chip(*labels: int) -> ChipPicture:
    return ChipPicture(torch.zeros(1, 1, 4), torch.ones(1, 1, 4, dtype=torch.bool), torch.tensor([labels]))


def test_chips_with_most_classes_and_most_labels_are_shown() -> None:
    few, one, many, other = chip(0, 1, 255, 255), chip(0, 0, 0, 0), chip(0, 1, 1, 0), chip(1, 0, 0, 0)
    assert _most_classes([few, one, many, other], 255) == [many, other, few, one]
    assert len(_most_classes([few] * 20, 255)) == 6
