"""Parts of a masked autoencoder: patches, encoding of visible patches, decoder.

He et al.: Masked Autoencoders Are Scalable Vision Learners (https://arxiv.org/abs/2111.06377). Images may have any
number of bands, and any sides that are multiples of the patch.
"""

import torch
from timm.layers.patch_embed import PatchEmbed
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.validation import check_at_least


def patchify(image: Tensor, patch: tuple[int, int]) -> Tensor:
    """Split images into patches.

    Args:
        image: Images (batch, band, height, width), with sides that are multiples of the patch.
        patch: Height and width of a patch in pixels.

    Returns:
        Patches row by row (batch, patch, value); in a patch values go by row, column, band.
    """
    rows, cols = image.shape[-2] // patch[0], image.shape[-1] // patch[1]
    blocks = image.unflatten(-2, (rows, patch[0])).unflatten(-1, (cols, patch[1]))
    return blocks.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def unpatchify(patches: Tensor, patch: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Assemble images from patches, the inverse of :func:`patchify`.

    Args:
        patches: Patches (batch, patch, value).
        patch: Height and width of a patch in pixels.
        grid: Rows and columns of patches.

    Returns:
        Images (batch, band, height, width).
    """
    blocks = patches.unflatten(2, (*patch, -1)).unflatten(1, grid)
    return blocks.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)


def patch_moments(patches: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased variance of each patch over its valid values, all bands together.

    Args:
        patches: Patches (batch, patch, value).
        valid: Valid values, bool, of the same shape.

    Returns:
        Mean and variance, (batch, patch, 1) each; 0 if too few values are valid.
    """
    count = valid.sum(dim=-1, keepdim=True)
    mean = torch.where(valid, patches, 0.0).sum(dim=-1, keepdim=True) / count.clamp_min(1)
    deviation = torch.where(valid, patches - mean, 0.0)
    return mean, deviation.square().sum(dim=-1, keepdim=True) / (count - 1).clamp_min(1)


def visible_patches(patches: int, mask_ratio: float) -> int:
    """Number of visible patches, at least 1, if a fraction ``mask_ratio`` of all is hidden."""
    return max(1, int(patches * (1 - mask_ratio) + 1e-9))


def sincos_positions(width: int, rows: int, cols: int) -> Tensor:
    """Sine and cosine position embedding of a grid, as in the authors' code.

    Args:
        width: Features of a token, a multiple of 4; the first half encodes the column, the second the row.
        rows: Rows of patches.
        cols: Columns of patches.

    Returns:
        Embedding (rows · cols, width), float32.
    """
    frequency = 10000 ** (-torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    row, col = torch.meshgrid(torch.arange(rows), torch.arange(cols), indexing='ij')
    angles = [index.reshape(-1, 1) * frequency for index in (col, row)]
    return torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], dim=1).float()


def check_vit(encoder: nn.Module, name: str) -> VisionTransformer:
    """Check that an encoder is a plain vision transformer, whose patches are independent before its blocks.

    Args:
        encoder: timm network.
        name: Its name, for the message.

    Returns:
        The encoder.

    Raises:
        ConfigurationError: If it is no plain vision transformer.
    """
    if not isinstance(encoder, VisionTransformer) or not isinstance(encoder.patch_embed, PatchEmbed):
        raise ConfigurationError(
            f'model: MAE hides patches from a plain vision transformer, which {name!r} is not; use a vit_* or deit* '
            'of timm, or Reconstruction for other encoders.'
        )
    return encoder


def patch_size(encoder: VisionTransformer) -> tuple[int, int]:
    """Height and width of an encoder's patches in pixels."""
    height, width = encoder.patch_embed.patch_size
    return int(height), int(width)


def start_positions(encoder: VisionTransformer) -> None:
    """Initialize the encoder's position embedding, except the class token's, with sines and cosines.

    The authors keep it fixed; here it is trained, since it is one of timm's parameters. timm's own small random numbers
    would almost vanish by interpolation if a chip has fewer patches than the native image.
    """
    if encoder.pos_embed is None or encoder.embed_dim % 4:
        return
    rows, cols = encoder.patch_embed.grid_size
    with torch.no_grad():
        encoder.pos_embed[:, -rows * cols :] = sincos_positions(encoder.embed_dim, rows, cols)


def encode_visible(encoder: VisionTransformer, image: Tensor, visible: Tensor) -> Tensor:
    """Encode the visible patches alone.

    ``_pos_embed``, which adds positions and prefix tokens, is private to timm; ``tests/models/test_mae.py`` checks its
    behavior.

    Args:
        encoder: timm network.
        image: Standardized values (batch, band, height, width).
        visible: Indices of the visible patches (batch, visible).

    Returns:
        Tokens after the last normalization: prefix tokens (class token, …), then the visible patches, (batch, token,
        width).
    """
    tokens = encoder._pos_embed(encoder.patch_embed(image))
    prefix, patches = tokens.split([encoder.num_prefix_tokens, tokens.shape[1] - encoder.num_prefix_tokens], dim=1)
    kept = patches.gather(1, visible[..., None].expand(-1, -1, patches.shape[-1]))
    tokens = encoder.blocks(encoder.norm_pre(torch.cat([prefix, kept], dim=1)))
    encoded: Tensor = encoder.norm(tokens)
    return encoded


class MAEDecoder(nn.Module):
    """Light transformer that predicts every patch from the encoded visible ones."""

    def __init__(self, in_features: int, values: int, width: int, depth: int, heads: int) -> None:
        """Build with random weights.

        Args:
            in_features: Features of the encoder's tokens.
            values: Values of a patch: height · width · bands.
            width: Features of the decoder's tokens, a multiple of 4 and of ``heads``.
            depth: Number of blocks.
            heads: Number of attention heads.

        Raises:
            ConfigurationError: If a number is out of its range.
        """
        super().__init__()
        if width < 4 or heads < 1 or width % 4 or width % heads:
            raise ConfigurationError(
                f'decoder_dim: expected a multiple of 4 and of decoder_heads {heads}, got {width}.'
            )
        check_at_least(1, decoder_depth=depth)
        self.embed = nn.Linear(in_features, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.Sequential(*(Block(width, heads, qkv_bias=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.predict = nn.Linear(width, values)
        nn.init.normal_(self.mask_token, std=0.02)
        self.apply(_initialize)

    def forward(self, tokens: Tensor, visible: Tensor, grid: tuple[int, int]) -> Tensor:
        """Predict all patches.

        Args:
            tokens: From :func:`encode_visible`, (batch, token, features).
            visible: Indices of the visible patches (batch, visible).
            grid: Rows and columns of patches.

        Returns:
            Patches (batch, patch, value).
        """
        embedded = self.embed(tokens)
        prefix, known = embedded.split([tokens.shape[1] - visible.shape[1], visible.shape[1]], dim=1)
        rows, cols = grid
        patches = self.mask_token.to(embedded.dtype).expand(len(tokens), rows * cols, -1)
        patches = patches.scatter(1, visible[..., None].expand_as(known), known)
        patches = patches + sincos_positions(embedded.shape[-1], rows, cols).to(patches)
        decoded = self.norm(self.blocks(torch.cat([prefix, patches], dim=1)))
        predicted: Tensor = self.predict(decoded[:, prefix.shape[1] :])
        return predicted


def _initialize(module: nn.Module) -> None:
    """Use Xavier's uniform weights, as in the authors' code."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
