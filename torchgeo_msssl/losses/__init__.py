"""Losses, and signals of collapse."""

from torchgeo_msssl.losses.barlow_twins import barlow_twins_loss
from torchgeo_msssl.losses.byol import byol_loss
from torchgeo_msssl.losses.collapse import alpha_req, embedding_std, lidar, mean_cosine, rank_me
from torchgeo_msssl.losses.contrastive import (
    QueueLoss,
    info_nce_loss,
    moco_v3_loss,
    nt_xent_loss,
)
from torchgeo_msssl.losses.dino import DINOLoss
from torchgeo_msssl.losses.reconstruction import MaskedLoss, masked_loss
from torchgeo_msssl.losses.siamese import fastsiam_loss
from torchgeo_msssl.losses.vicreg import VICRegLoss
from torchgeo_msssl.losses.vicregl import LocalVectors, VICRegLLoss

__all__ = [
    'DINOLoss',
    'LocalVectors',
    'MaskedLoss',
    'QueueLoss',
    'VICRegLLoss',
    'VICRegLoss',
    'alpha_req',
    'barlow_twins_loss',
    'byol_loss',
    'embedding_std',
    'fastsiam_loss',
    'info_nce_loss',
    'lidar',
    'masked_loss',
    'mean_cosine',
    'moco_v3_loss',
    'nt_xent_loss',
    'rank_me',
]
