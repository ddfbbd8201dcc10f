"""Datasets of georeferenced scenes and their labels."""

from torchgeo_msssl.datasets.chips import ChipPart, Chips
from torchgeo_msssl.datasets.labels import LabelledScenes, Labels
from torchgeo_msssl.datasets.queries import ChipQuery
from torchgeo_msssl.datasets.scenes import Scenes

__all__ = ('ChipPart', 'ChipQuery', 'Chips', 'LabelledScenes', 'Labels', 'Scenes')
