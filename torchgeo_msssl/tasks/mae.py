"""MAE: a vision transformer sees a quarter of an image's patches, and a light decoder predicts the others.

He et al.: Masked Autoencoders Are Scalable Vision Learners (https://arxiv.org/abs/2111.06377).
"""

from typing import Any, cast

import torch
from torch import Tensor

from torchgeo_msssl.errors import ConfigurationError
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
from torchgeo_msssl.transforms.spectral import check_interval
from torchgeo_msssl.transforms.views import CANDIDATES, choose_boxes, crop_grid, random_boxes, sample_views

#: Added to the variance of a patch, as in the authors' code.
_EPSILON = 1e-6


def normalised_patches(patches: Tensor, valid: Tensor) -> Tensor:
    """Bring each patch to mean 0 and variance 1 over its valid values, all bands together.

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

    Linear and nearest-neighbour probes of MAE are poor: judge it by fine-tuning. Chips may have any sides that are
    multiples of the patch, and any number of bands. Only values of hidden patches that hold data count in the loss.

    With ``norm_target`` the network predicts each patch without its mean and spread. Pictures, PSNR, SSIM and restored
    scenes then have those of the original patch, and look better than what the network could do by itself.

    Attributes:
        decoder: Predicts the patches.
        patch: Height and width of a patch in pixels.
    """

    method = 'mae'
    betas = (0.9, 0.95)

    def __init__(
        self,
        model: str = 'vit_small_patch16_224',
        in_channels: int = 12,
        weights: str | None = None,
        mask_ratio: float = 0.75,
        norm_target: bool = True,
        decoder_dim: int = 512,
        decoder_depth: int = 8,
        decoder_heads: int = 16,
        crop_scale: tuple[float, float] = (0.2, 1.0),
        flips: bool = True,
        quarter_turns: bool = True,
        optimizer: OptimizerName = 'adamw',
        lr: float = 1.5e-4,
        weight_decay: float = 0.05,
        momentum: float = 0.9,
        warmup_epochs: float = 0,
        collapse_patience: int | None = None,
    ) -> None:
        """Build encoder and decoder.

        Args:
            model: timm name of a vision transformer (``vit_*``, ``deit*``).
            in_channels: Number of bands (this package's command line takes it from the data).
            weights: What the encoder starts from: a checkpoint, a safetensors file, the name of a TorchGeo weight,
                ``imagenet``, or None for random weights.
            mask_ratio: Share of the patches that the encoder does not see.
            norm_target: Whether each patch is to be predicted without its mean and spread.
            decoder_dim: Features of the decoder's tokens.
            decoder_depth: Blocks of the decoder.
            decoder_heads: Attention heads of the decoder.
            crop_scale: Smallest and largest share of a chip's area in a random resized crop; 1 and 1 for whole chips.
            flips: Whether chips are mirrored at random.
            quarter_turns: Whether chips are turned at random.
            optimizer: ``sgd``, ``adam``, ``adamw`` or ``lars``.
            lr: Largest learning rate; the paper's is 1.5e-4 · batch size / 256, for 800 epochs of ImageNet.
            weight_decay: Weight decay; norms and biases are exempt.
            momentum: Momentum of SGD and LARS.
            warmup_epochs: Epochs in which the learning rate rises (40 in the paper).
            collapse_patience: Stop after so many epochs of collapse in a row; None only warns.

        Raises:
            ConfigurationError: If an option is out of its range, or the encoder is no vision transformer.
        """
        if not 0 < mask_ratio < 1:
            raise ConfigurationError(f'mask_ratio: expected above 0 and below 1, got {mask_ratio}.')
        self.mask_ratio = mask_ratio
        self.norm_target = norm_target
        self.crop_scale = check_interval('crop_scale', crop_scale, 0, 1)
        if self.crop_scale[0] == 0:
            raise ConfigurationError(f'crop_scale: expected two shares above 0, got {crop_scale}.')
        self._decoder_arguments = (decoder_dim, decoder_depth, decoder_heads)
        super().__init__(
            model, in_channels, weights, flips, quarter_turns, optimizer, lr, weight_decay, momentum, warmup_epochs,
            collapse_patience,
        )  # fmt: skip

    def configure_heads(self) -> None:
        """Build the decoder."""
        name, in_channels = self._encoder_arguments
        self.model = check_vit(self.model, name)
        start_positions(self.model)
        # pooling may have layers of its own, which the decoder does not see
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
        """Take bands and statistics over, and see that chips suit.

        Args:
            stage: ``fit``, ``validate``, ``test`` or ``predict``.

        Raises:
            BandError: If the data module has another number of bands than the encoder.
            ConfigurationError: If chips are no multiple of the patch.
        """
        super().setup(stage)
        data = getattr(self.trainer, 'datamodule', None)
        check_image_size(self.model, self.hparams['model'], getattr(data, 'chip_size', None))

    def grid(self, image: Tensor) -> tuple[int, int]:
        """Rows and columns of patches of an image (…, height, width)."""
        return image.shape[-2] // self.patch[0], image.shape[-1] // self.patch[1]

    @torch.no_grad()
    def augmented(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Standardise the chips of a batch, each cropped and resized, mirrored and turned at random.

        Args:
            batch: A batch of chips.

        Returns:
            Standardised values (batch, band, height, width), and the mask of valid pixels (batch, 1, height, width).
        """
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
        """Hide whole patches, the same number in each image, with data or without.

        Args:
            image: Standardised values (batch, band, height, width).
            valid: Mask of valid pixels (batch, 1, height, width), bool.

        Returns:
            The image with holes, and the mask of its hidden pixels (batch, 1, height, width), bool.
        """
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
            corrupted: Standardised values (batch, band, height, width), of which hidden patches are not looked at.
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
        """Mean squared error over the values of hidden patches that hold data.

        Args:
            prediction: Patches (batch, patch, value).
            image: The original, standardised (batch, band, height, width).
            valid: Its valid pixels (batch, 1, height, width), bool.
            hidden: Hidden pixels (batch, 1, height, width).

        Returns:
            Loss, a scalar.
        """
        target, known = self._patches(image, valid)
        target = normalised_patches(target, known) if self.norm_target else target
        return cast(Tensor, self.criterion(prediction, target, known & self.hidden_patches(hidden)[..., None]))

    def image_of(self, prediction: Tensor, image: Tensor, valid: Tensor) -> Tensor:
        """Put predicted patches together, with ``norm_target`` after giving them mean and spread of the original's.

        Args:
            prediction: Patches (batch, patch, value).
            image: The original, standardised (batch, band, height, width).
            valid: Its valid pixels (batch, 1, height, width), bool.

        Returns:
            Standardised values (batch, band, height, width).
        """
        if self.norm_target:
            mean, variance = patch_moments(*self._patches(image, valid))
            prediction = prediction * (variance + _EPSILON).sqrt() + mean
        return unpatchify(prediction, self.patch, self.grid(image))

    def _patches(self, image: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        return patchify(image, self.patch), patchify(valid.expand_as(image), self.patch)

    def tile_and_window(self, chip_size: int) -> tuple[int, int]:
        """Windows are as large as chips, for which positions were learnt, and overlap where half of them is a tile.

        Args:
            chip_size: Side of the training chips in pixels.

        Returns:
            ``(tile, window)`` in pixels.
        """
        half = chip_size // 2
        patches = (half // self.patch[0]) * (half // self.patch[1])
        whole = chip_size % 2 == 0 and half % self.patch[0] == 0 and half % self.patch[1] == 0
        # of fewer patches none would stay visible
        return (half if whole and patches * (1 - self.mask_ratio) >= 1 else chip_size), chip_size

    @property
    def note(self) -> str:
        """What has to be known about restored images."""
        return "The mean and spread of each patch are the original's (norm_target)." if self.norm_target else ''
