"""Lightning tasks.

| method | paper | needs | use it when |
|---|---|---|---|
| :class:`FastSiam` | Pototzky et al., GCPR 2022 | 3–4 views, any batch | batches are small; the default |
| :class:`SimSiam` | https://arxiv.org/abs/2011.10566 | 2 views, batch 64 and more | comparing with the literature |
| :class:`SimCLR` | https://arxiv.org/abs/2002.05709 | 2 views, batches as large as fit | a simple baseline is needed |
| :class:`MoCo` | https://arxiv.org/abs/2003.04297 | 2 views, any batch | batches are small and chips are many |
| :class:`BYOL` | https://arxiv.org/abs/2006.07733 | 2 views, batch 64 and more | chips are similar: no negatives |
| :class:`BarlowTwins` | https://arxiv.org/abs/2103.03230 | 2 views, batch 64 and more | features are redundant |
| :class:`VICReg` | https://arxiv.org/abs/2105.04906 | 2 views, batch 64 and more | other methods collapse |
| :class:`VICRegL` | https://arxiv.org/abs/2210.01571 | feature maps of 4 × 4 cells and more | segmenting later |
| :class:`DINO` | https://arxiv.org/abs/2104.14294 | 2 views and local ones | training a ViT on many chips |
| :class:`MAE` | https://arxiv.org/abs/2111.06377 | a vision transformer, long runs | fine-tuning a ViT |
| :class:`Reconstruction` | a U-Net that restores corrupted images | any batch | the decoder is pretrained too |
| :class:`SubimageOverlap` | https://arxiv.org/abs/2601.01781 | any batch, few images | the decoder is pretrained too |
"""

from torchgeo_msssl.tasks.acceleration import Acceleration
from torchgeo_msssl.tasks.barlow_twins import BarlowTwins
from torchgeo_msssl.tasks.base import PretrainingTask
from torchgeo_msssl.tasks.byol import BYOL
from torchgeo_msssl.tasks.dino import DINO
from torchgeo_msssl.tasks.encoder_training import EncoderTraining
from torchgeo_msssl.tasks.fastsiam import FastSiam, SimSiam
from torchgeo_msssl.tasks.joint_embedding import JointEmbeddingTask
from torchgeo_msssl.tasks.mae import MAE
from torchgeo_msssl.tasks.moco import MoCo
from torchgeo_msssl.tasks.multi_crop import MultiCropTask
from torchgeo_msssl.tasks.pixel_classification import PixelClassification
from torchgeo_msssl.tasks.reconstruction import Reconstruction
from torchgeo_msssl.tasks.restoration import RestorationTask
from torchgeo_msssl.tasks.segmentation import Segmentation
from torchgeo_msssl.tasks.semi_supervision import SemiSupervision
from torchgeo_msssl.tasks.simclr import SimCLR
from torchgeo_msssl.tasks.subimage_overlap import SubimageOverlap
from torchgeo_msssl.tasks.temporal_reconstruction import TemporalReconstruction
from torchgeo_msssl.tasks.texture_classifier import TextureClassifier
from torchgeo_msssl.tasks.training import TrainingTask
from torchgeo_msssl.tasks.vicreg import VICReg
from torchgeo_msssl.tasks.vicregl import VICRegL
from torchgeo_msssl.tasks.vine_segmentation import VineSegmentation
from torchgeo_msssl.transforms.views import Augmentation

__all__ = (
    'BYOL',
    'DINO',
    'MAE',
    'Acceleration',
    'Augmentation',
    'BarlowTwins',
    'EncoderTraining',
    'FastSiam',
    'JointEmbeddingTask',
    'MoCo',
    'MultiCropTask',
    'PixelClassification',
    'PretrainingTask',
    'Reconstruction',
    'RestorationTask',
    'Segmentation',
    'SemiSupervision',
    'SimCLR',
    'SimSiam',
    'SubimageOverlap',
    'TemporalReconstruction',
    'TextureClassifier',
    'TrainingTask',
    'VICReg',
    'VICRegL',
    'VineSegmentation',
)
