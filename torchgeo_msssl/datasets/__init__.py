"""Datasets of georeferenced scenes and their labels."""

from torchgeo_msssl.datasets.labels import LabelledScenes, Labels
from torchgeo_msssl.datasets.scenes import ChipQuery, Scenes

__all__ = ('ChipQuery', 'LabelledScenes', 'Labels', 'Scenes')
