"""Samplers of chips, and spatial splits."""

from torchgeo_msssl.samplers.balanced import BalancedChipSampler
from torchgeo_msssl.samplers.base import ChipSampler
from torchgeo_msssl.samplers.blocks import ground_blocks, split_blocks, split_scenes
from torchgeo_msssl.samplers.grid import GridChipSampler
from torchgeo_msssl.samplers.ground import GroundSampler
from torchgeo_msssl.samplers.random import RandomChipSampler

__all__ = (
    'BalancedChipSampler',
    'ChipSampler',
    'GridChipSampler',
    'GroundSampler',
    'RandomChipSampler',
    'ground_blocks',
    'split_blocks',
    'split_scenes',
)
