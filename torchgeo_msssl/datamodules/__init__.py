"""Data modules."""

from torchgeo_msssl.datamodules.pretraining import PretrainingDataModule

__all__ = ('PretrainingDataModule',)
