"""Data modules."""

from torchgeo_msssl.datamodules.chips import ChipsDataModule
from torchgeo_msssl.datamodules.labelled_chips import LabelledChipsDataModule
from torchgeo_msssl.datamodules.pretraining import PretrainingDataModule
from torchgeo_msssl.datamodules.segmentation import SegmentationDataModule

__all__ = ('ChipsDataModule', 'LabelledChipsDataModule', 'PretrainingDataModule', 'SegmentationDataModule')
