"""Samplers of chips, and spatial splits."""

from torchgeo_msssl.samplers.base import ChipSampler
from torchgeo_msssl.samplers.blocks import split_blocks
from torchgeo_msssl.samplers.grid import GridChipSampler
from torchgeo_msssl.samplers.random import RandomChipSampler

__all__ = ('ChipSampler', 'GridChipSampler', 'RandomChipSampler', 'split_blocks')
