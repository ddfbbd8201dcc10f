"""Lightning tasks.

| method | paper | needs | take it when |
|---|---|---|---|
| :class:`FastSiam` | Pototzky et al., GCPR 2022 | 3–4 views, any batch | batches are small; the default |
| :class:`SimSiam` | https://arxiv.org/abs/2011.10566 | 2 views, batch 64 and more | comparing with the literature |
"""

from torchgeo_msssl.tasks.base import PretrainingTask
from torchgeo_msssl.tasks.fastsiam import FastSiam, SimSiam
from torchgeo_msssl.tasks.joint_embedding import Augmentation, JointEmbeddingTask
from torchgeo_msssl.tasks.segmentation import Segmentation, VineSegmentation

__all__ = (
    'Augmentation',
    'FastSiam',
    'JointEmbeddingTask',
    'PretrainingTask',
    'Segmentation',
    'SimSiam',
    'VineSegmentation',
)
