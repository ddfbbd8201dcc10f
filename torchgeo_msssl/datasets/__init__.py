"""Datasets of georeferenced scenes."""

from torchgeo_msssl.datasets.scenes import ChipQuery, Scenes

__all__ = ('ChipQuery', 'Scenes')
