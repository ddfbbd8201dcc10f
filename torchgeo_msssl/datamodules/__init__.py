"""Data modules."""

from torchgeo_msssl.datamodules.pretraining import PretrainingDataModule
from torchgeo_msssl.datamodules.segmentation import SegmentationDataModule

__all__ = ('PretrainingDataModule', 'SegmentationDataModule')
