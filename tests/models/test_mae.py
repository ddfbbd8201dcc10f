"""Patches, positions and masking against the authors' code, written out."""

import numpy as np
import pytest
import timm
import torch
from torch import Tensor

from tests.marks import first_fast
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.models.encoders import create_encoder
from torchgeo_msssl.models.mae import (
    MAEDecoder,
    check_vit,
    encode_visible,
    patch_moments,
    patch_size,
    patchify,
    sincos_positions,
    start_positions,
    unpatchify,
    visible_patches,
)


def vit(bands: int = 5) -> timm.models.VisionTransformer:
    torch.manual_seed(0)
    return check_vit(create_encoder('vit_tiny_patch16_224', bands), 'vit_tiny_patch16_224').eval()


@pytest.mark.parametrize('patch', [(16, 16), (8, 4)])
def test_patches_come_together_again(patch: tuple[int, int]) -> None:
    image = torch.randn(2, 5, 32, 48)
    patches = patchify(image, patch)
    assert patches.shape == (2, 32 * 48 // (patch[0] * patch[1]), patch[0] * patch[1] * 5)
    assert torch.equal(unpatchify(patches, patch, (32 // patch[0], 48 // patch[1])), image)


def test_patches_are_in_the_authors_order() -> None:
    image = torch.randn(2, 3, 32, 32)
    p, h = 16, 2
    x = image.reshape(2, 3, h, p, h, p)
    x = torch.einsum('nchpwq->nhwpqc', x)
    assert torch.equal(patchify(image, (p, p)), x.reshape(2, h * h, p**2 * 3))


def test_a_quarter_of_the_patches_is_seen() -> None:
    assert visible_patches(196, 0.75) == 49
    assert visible_patches(16, 0.75) == 4
    assert visible_patches(10, 0.9) == 1  # 10 · (1 − 0.9) is a hair below 1
    assert visible_patches(1, 0.75) == 1


def authors_positions(width: int, side: int) -> np.ndarray:
    """get_2d_sincos_pos_embed of https://github.com/facebookresearch/mae."""

    def one(width: int, place: np.ndarray) -> np.ndarray:
        omega = np.arange(width // 2, dtype=np.float64)
        omega /= width / 2.0
        omega = 1.0 / 10000**omega
        out = np.einsum('m,d->md', place.reshape(-1), omega)
        return np.concatenate([np.sin(out), np.cos(out)], axis=1)

    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=0)  # w goes first
    return np.concatenate([one(width // 2, grid[0]), one(width // 2, grid[1])], axis=1)


def test_positions_are_the_authors() -> None:
    np.testing.assert_allclose(sincos_positions(64, 7, 7).numpy(), authors_positions(64, 7), atol=1e-6)
    square, oblong = sincos_positions(64, 7, 7).view(7, 7, 64), sincos_positions(64, 3, 7).view(3, 7, 64)
    torch.testing.assert_close(oblong, square[:3])


def test_the_encoder_begins_with_positions_that_small_grids_keep() -> None:
    encoder = vit()
    before = encoder.pos_embed[:, :1].clone()
    start_positions(encoder)
    torch.testing.assert_close(encoder.pos_embed[0, 1:], sincos_positions(192, 14, 14))
    assert torch.equal(encoder.pos_embed[:, :1], before)
    assert encoder.pos_embed.requires_grad


def test_masked_pixels_do_not_reach_the_encoder() -> None:
    encoder, image = vit(), torch.randn(2, 5, 32, 48)
    visible = torch.tensor([[0, 4], [3, 2]])
    patches = patchify(image, (16, 16))
    other = torch.randn_like(patches)
    other.scatter_(
        1,
        visible[..., None].expand(-1, -1, patches.shape[-1]),
        patches.gather(1, visible[..., None].expand(-1, -1, patches.shape[-1])),
    )
    changed = unpatchify(other, (16, 16), (2, 3))
    assert (changed != image).any()
    tokens = encode_visible(encoder, image, visible)
    assert tokens.shape == (2, 1 + 2, 192)
    torch.testing.assert_close(encode_visible(encoder, changed, visible), tokens, rtol=0, atol=0)


@pytest.mark.parametrize(
    'name', first_fast(['vit_tiny_patch16_224', 'deit_tiny_distilled_patch16_224', 'vit_base_patch16_clip_224'], 2)
)
def test_with_all_patches_visible_it_is_timms_own_pass(name: str) -> None:
    torch.manual_seed(0)
    encoder = check_vit(create_encoder(name, 4), name).eval()
    image = torch.randn(2, 4, 32, 48)
    visible = torch.arange(6).expand(2, 6)
    torch.testing.assert_close(encode_visible(encoder, image, visible), encoder.forward_features(image))


def test_moments_are_of_valid_values_only() -> None:
    patches = torch.randn(2, 3, 40, dtype=torch.float64)
    valid = torch.rand(2, 3, 40) < 0.6
    mean, variance = patch_moments(torch.where(valid, patches, torch.nan), valid)
    for sample in range(2):
        for number in range(3):
            values = patches[sample, number][valid[sample, number]]
            assert mean[sample, number].item() == pytest.approx(values.mean().item())
            assert variance[sample, number].item() == pytest.approx(values.var().item())
    empty = patch_moments(patches, torch.zeros_like(valid))
    assert all((part == 0).all() for part in empty)


def test_the_decoder_puts_tokens_where_they_belong() -> None:
    torch.manual_seed(0)
    decoder = MAEDecoder(12, 20, 16, 1, 2).eval()
    tokens = torch.randn(2, 1 + 3, 12)
    visible = torch.tensor([[5, 0, 3], [1, 2, 4]])
    out = decoder(tokens, visible, (2, 3))
    assert out.shape == (2, 6, 20)
    order = torch.tensor([2, 0, 1])
    again = decoder(torch.cat([tokens[:, :1], tokens[:, 1:][:, order]], dim=1), visible[:, order], (2, 3))
    torch.testing.assert_close(out, again)
    moved = decoder(tokens, visible.flip(0), (2, 3))
    assert not torch.allclose(out, moved)


def test_the_decoder_is_the_authors_forward() -> None:
    """Their unshuffle with ids_restore, written out."""
    torch.manual_seed(0)
    decoder = MAEDecoder(12, 20, 16, 2, 4).eval()
    tokens, noise = torch.randn(2, 1 + 2, 12), torch.rand(2, 6)
    ids_shuffle = torch.argsort(noise, dim=1)
    ids_restore = torch.argsort(ids_shuffle, dim=1)
    x = decoder.embed(tokens)
    mask_tokens = decoder.mask_token.repeat(x.shape[0], ids_restore.shape[1] + 1 - x.shape[1], 1)
    x_ = torch.cat([x[:, 1:, :], mask_tokens], dim=1)
    x_ = torch.gather(x_, dim=1, index=ids_restore.unsqueeze(-1).repeat(1, 1, x.shape[2]))
    x = torch.cat([x[:, :1, :], x_], dim=1)
    positions = torch.cat([torch.zeros(1, 16), sincos_positions(16, 2, 3)])
    expected = decoder.predict(decoder.norm(decoder.blocks(x + positions)))[:, 1:, :]
    torch.testing.assert_close(decoder(tokens, ids_shuffle[:, :2], (2, 3)), expected)


@pytest.mark.parametrize('name', ['resnet18', 'swin_tiny_patch4_window7_224', 'vit_tiny_r_s16_p8_224'])
def test_only_plain_vision_transformers_hide_patches(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"which '{name}' is not; use a vit"):
        check_vit(create_encoder(name, 4), name)


@pytest.mark.parametrize(
    ('width', 'depth', 'heads', 'named'), [(30, 1, 2, 'dim'), (32, 1, 3, 'dim'), (32, 0, 2, 'depth')]
)
def test_decoders_that_cannot_be(width: int, depth: int, heads: int, named: str) -> None:
    with pytest.raises(ConfigurationError, match=f'decoder_{named}'):
        MAEDecoder(8, 8, width, depth, heads)


def test_patch_size() -> None:
    sizes: tuple[int, int] = patch_size(vit())
    assert sizes == (16, 16)
    assert isinstance(sizes[0], int)
    assert isinstance(torch.zeros(sizes), Tensor)
