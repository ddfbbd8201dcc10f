"""Losses, and signals of their collapse."""

from torchgeo_msssl.losses.collapse import embedding_std, mean_cosine, rank_me
from torchgeo_msssl.losses.siamese import FastSiamLoss, fastsiam_loss

__all__ = ['FastSiamLoss', 'embedding_std', 'fastsiam_loss', 'mean_cosine', 'rank_me']
