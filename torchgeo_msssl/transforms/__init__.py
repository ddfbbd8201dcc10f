"""Batched tensor transforms for any number of bands."""

from torchgeo_msssl.transforms.corruptions import CoarseCutout, Crappify, OneOf, PatchMask, create_corruption
from torchgeo_msssl.transforms.normalize import Normalize, valid_pixels
from torchgeo_msssl.transforms.pictures import contact_sheet
from torchgeo_msssl.transforms.spectral import RandomBandDropout, RandomBandNoise, RandomGain
from torchgeo_msssl.transforms.views import Augmentation, MultiView

__all__ = [
    'Augmentation',
    'CoarseCutout',
    'Crappify',
    'MultiView',
    'Normalize',
    'OneOf',
    'PatchMask',
    'RandomBandDropout',
    'RandomBandNoise',
    'RandomGain',
    'contact_sheet',
    'create_corruption',
    'valid_pixels',
]
