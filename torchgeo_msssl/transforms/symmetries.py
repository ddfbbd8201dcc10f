"""Symmetries of a square, drawn and applied per sample."""

import torch
from torch import Tensor


def random_symmetries(
    batch: int, square: bool, flips: bool, quarter_turns: bool, device: torch.device | None = None
) -> Tensor:
    """Draw one symmetry of its frame for each sample, all with the same probability.

    Args:
        batch: Number of samples.
        square: Whether images are square; others are only rotated by 180°.
        flips: Whether to flip images.
        quarter_turns: Whether to rotate images.
        device: Device of the random numbers.

    Returns:
        Whether to transpose, flip rows, and flip columns, in this order: bool, (3, batch).
    """
    coin = torch.rand(3, batch, device=device) < 0.5
    if flips and quarter_turns:
        transpose, rows, columns = coin
    elif quarter_turns:  # a rotation by k · 90°: bits of k
        transpose, high = coin[0], coin[1]
        if not square:
            return torch.stack([torch.zeros_like(high), high, high])
        rows, columns = transpose ^ high, high
    elif flips:
        transpose, rows, columns = torch.zeros_like(coin[0]), coin[1], coin[2]
    else:
        transpose, rows, columns = torch.zeros_like(coin)
    return torch.stack([transpose & square, rows, columns])


def apply_symmetries(image: Tensor, symmetries: Tensor) -> Tensor:
    """Transpose, then flip rows, then flip columns, per sample; pixels are moved and never interpolated.

    Args:
        image: Images or masks (batch, …, height, width) of any dtype; square if any sample is transposed.
        symmetries: From :func:`random_symmetries`, (3, batch).

    Returns:
        Tensor of the same shape.
    """
    transpose, rows, columns = (which.reshape(-1, *[1] * (image.ndim - 1)) for which in symmetries)
    if image.shape[-1] == image.shape[-2]:
        image = torch.where(transpose, image.transpose(-1, -2), image)
    image = torch.where(rows, image.flip(-2), image)
    return torch.where(columns, image.flip(-1), image)


def move_at_random(*parts: Tensor, flips: bool, quarter_turns: bool) -> tuple[Tensor, ...]:
    """Flip and rotate samples at random, each of its parts alike.

    Args:
        *parts: Images, masks and others of the same samples (batch, …, height, width).
        flips: Whether to flip.
        quarter_turns: Whether to rotate by quarter turns.

    Returns:
        The parts, in the shapes given.
    """
    first = parts[0]
    square = first.shape[-1] == first.shape[-2]
    symmetries = random_symmetries(len(first), square, flips, quarter_turns, first.device)
    return tuple(apply_symmetries(part, symmetries) for part in parts)
