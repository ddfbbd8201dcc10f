"""MAE: a vision transformer encodes a quarter of an image's patches, and a light decoder predicts the others.

He et al.: Masked Autoencoders Are Scalable Vision Learners (https://arxiv.org/abs/2111.06377).
"""

from typing import Any, cast

import torch
from torch import Tensor

from torchgeo_msssl.losses.reconstruction import MaskedLoss
from torchgeo_msssl.models.encoders import check_image_size
from torchgeo_msssl.models.mae import (
    MAEDecoder,
    check_vit,
    encode_visible,
    patch_moments,
    patch_size,
    patchify,
    start_positions,
    unpatchify,
    visible_patches,
)
from torchgeo_msssl.tasks.optimizers import OptimizerName
from torchgeo_msssl.tasks.restoration import RestorationTask
from torchgeo_msssl.transforms.corruptions import patches_to_hide, spread_patches
from torchgeo_msssl.transforms.crops import CANDIDATES, choose_boxes, crop_grid, random_boxes, sample_views
from torchgeo_msssl.validation import check_interval, check_positive, check_probability

#: Added to the variance of a patch, as in the authors' code.
_EPSILON = 1e-6


def normalized_patches(patches: Tensor, valid: Tensor) -> Tensor:
    """Normalize each patch to mean 0 and variance 1 over its valid values, all bands together.

    Args:
        patches: Patches (batch, patch, value).
        valid: Valid values, bool, of the same shape.

    Returns:
        Patches of the same shape.
    """
    mean, variance = patch_moments(patches, valid)
    return (patches - mean) / (variance + _EPSILON).sqrt()


class MAE(RestorationTask):
    """Pretrain a vision transformer as a masked autoencoder.

    Linear and nearest-neighbor probes of MAE are poor: evaluate it by fine-tuning. Chips may have any sides that are
    multiples of the patch, and any number of bands. Only values of hidden patches that hold data count in the loss.

    With ``norm_target`` the network predicts each patch without its mean and standard deviation. Figures, PSNR, SSIM
    and restored scenes then take these from the original patch, and look better than the network's own prediction.

    Attributes:
        decoder: Predicts the patches.
        patch: Height and width of a patch in pixels.
    """

    method = 'mae'
    betas = (0.9, 0.95)

    def __init__(
        self,
        model: str = 'vit_small_patch16_224',
        mask_ratio: float = 0.75,
        norm_target: bool = True,
        decoder_dim: int = 512,
        decoder_depth: int = 8,
        decoder_heads: int = 16,
        crop_scale: tuple[float, float] = (0.2, 1.0),
        optimizer: OptimizerName = 'adamw',
        lr: float = 1.5e-4,
        weight_decay: float = 0.05,
        **kwargs: Any,
    ) -> None:
        """Build encoder and decoder.

        Args:
            model: timm name of a vision transformer (``vit_*``, ``deit*``).
            mask_ratio: Fraction of the patches that is hidden from the encoder.
            norm_target: Whether to predict each patch without its mean and standard deviation.
            decoder_dim: Features of the decoder's tokens.
            decoder_depth: Number of blocks of the decoder.
            decoder_heads: Number of attention heads of the decoder.
            crop_scale: Smallest and largest fraction of a chip's area in a random resized crop; 1 and 1 for whole
                chips.
            optimizer: ``adamw``, ``adam``, ``sgd`` or ``lars``.
            lr: Maximum learning rate; the paper's is 1.5e-4 · batch size / 256, for 800 epochs of ImageNet with a
                warm-up of 40.
            weight_decay: Weight decay; normalization layers and biases are exempt.
            **kwargs: The options of :class:`~torchgeo_msssl.tasks.RestorationTask`.

        Raises:
            ConfigurationError: If an option is out of its range, or the encoder is no vision transformer.
        """
        check_positive(mask_ratio=mask_ratio)
        check_probability('mask_ratio', mask_ratio, below_one=True)
        self.mask_ratio = mask_ratio
        self.norm_target = norm_target
        self.crop_scale = check_interval('crop_scale', crop_scale, 0, 1, above=True)
        self._decoder_arguments = (decoder_dim, decoder_depth, decoder_heads)
        super().__init__(model=model, optimizer=optimizer, lr=lr, weight_decay=weight_decay, **kwargs)

    def configure_heads(self) -> None:
        """Build the decoder."""
        name, in_channels = self._encoder_arguments
        self.model = check_vit(self.model, name)
        start_positions(self.model)
        # layers of the pooling are not part of the tokens that the decoder gets
        for unused in ('fc_norm', 'attn_pool'):
            if getattr(self.model, unused, None) is not None:
                self.model.get_submodule(unused).requires_grad_(False)
        self.patch = patch_size(self.model)
        values = self.patch[0] * self.patch[1] * in_channels
        self.decoder = MAEDecoder(self.model.embed_dim, values, *self._decoder_arguments)

    def configure_losses(self) -> None:
        """Build the loss."""
        self.criterion = MaskedLoss('mse')

    def setup(self, stage: str) -> None:
        """Extend :meth:`.PretrainingTask.setup`.

        Raises:
            ConfigurationError: If the side of the chips is no multiple of the patch.
        """
        super().setup(stage)
        data = self.attached_data()
        check_image_size(self.model, self.hparams['model'], data.chip_size if data else None)

    def grid(self, image: Tensor) -> tuple[int, int]:
        """Rows and columns of patches of an image (…, height, width)."""
        return image.shape[-2] // self.patch[0], image.shape[-1] // self.patch[1]

    @torch.no_grad()
    def augmented(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Standardize the chips of a batch, cropped and resized, flipped and rotated at random."""
        image, valid = super().augmented(batch)
        if self.crop_scale == (1.0, 1.0):
            return image, valid
        count, _, height, width = image.shape
        uniform = torch.rand(CANDIDATES, 1, count, 4, device=image.device)
        boxes = choose_boxes(valid, random_boxes(uniform, height, width, self.crop_scale, (3 / 4, 4 / 3)), 0.5)
        upright = boxes.new_ones(1, count, 2), boxes.new_zeros(1, count, dtype=torch.long)
        # half precision would place samples pixels away from where they belong
        with torch.autocast(image.device.type, enabled=False):
            views, mask = sample_views(image, valid, crop_grid(boxes, *upright, min(height, width), height, width))
        return views[0].masked_fill(~mask[0], 0.0), mask[0]

    def corrupt(self, image: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Hide whole patches, the same number in each image, valid or not; see :meth:`.RestorationTask.corrupt`."""
        rows, cols = self.grid(image)
        patches = rows * cols
        uniform = torch.rand(len(image), patches, device=image.device)
        chosen = patches_to_hide(uniform, patches - visible_patches(patches, self.mask_ratio))
        hidden = spread_patches(chosen, self.patch, *image.shape[-2:])
        return image.masked_fill(hidden, 0.0), hidden

    def hidden_patches(self, hidden: Tensor) -> Tensor:
        """Patches of which the first pixel is hidden.

        Args:
            hidden: Hidden pixels (batch, 1, height, width), bool.

        Returns:
            Hidden patches (batch, patch), bool.
        """
        return hidden[:, 0, :: self.patch[0], :: self.patch[1]].flatten(1)

    def predict_hidden(self, corrupted: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Predict all patches from the visible ones.

        Args:
            corrupted: Standardized values (batch, band, height, width), whose hidden patches are ignored.
            hidden: Hidden pixels (batch, 1, height, width), in whole patches and as many in each image.

        Returns:
            Patches (batch, patch, value), and pooled features of the visible ones (batch, features).
        """
        chosen = self.hidden_patches(hidden)
        number = int((~chosen[0]).sum())
        visible = chosen.int().argsort(dim=1, stable=True)[:, :number]
        encoder = cast(Any, self.model)
        tokens = encode_visible(encoder, corrupted, visible)
        return self.decoder(tokens, visible, self.grid(corrupted)), encoder.forward_head(tokens)

    def loss_of(self, prediction: Tensor, image: Tensor, valid: Tensor, hidden: Tensor) -> Tensor:
        """Mean squared error of patches (batch, patch, value) over the valid values of hidden ones."""
        target, known = self._patches(image, valid)
        target = normalized_patches(target, known) if self.norm_target else target
        return cast(Tensor, self.criterion(prediction, target, known & self.hidden_patches(hidden)[..., None]))

    def image_of(self, prediction: Tensor, image: Tensor, valid: Tensor) -> Tensor:
        """Assemble predicted patches; with ``norm_target`` they get mean and standard deviation of the original's."""
        if self.norm_target:
            mean, variance = patch_moments(*self._patches(image, valid))
            prediction = prediction * (variance + _EPSILON).sqrt() + mean
        return unpatchify(prediction, self.patch, self.grid(image))

    def _patches(self, image: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        return patchify(image, self.patch), patchify(valid.expand_as(image), self.patch)

    def tile_and_window(self, chip_size: int) -> tuple[int, int]:
        """Restore windows of the size of a chip, for which positions were learned; tiles may be smaller."""
        half = chip_size // 2
        patches = (half // self.patch[0]) * (half // self.patch[1])
        whole = chip_size % 2 == 0 and half % self.patch[0] == 0 and half % self.patch[1] == 0
        # with fewer patches none would remain visible
        return (half if whole and patches * (1 - self.mask_ratio) >= 1 else chip_size), chip_size

    @property
    def note(self) -> str:
        """Remark about restored images."""
        return (
            "The mean and standard deviation of each patch are the original's (norm_target)."
            if self.norm_target
            else ''
        )
