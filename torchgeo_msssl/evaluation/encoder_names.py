"""Names of encoders and baselines in tables."""

from pathlib import Path
from typing import Literal

RANDOM, STATISTICS, CONVOLUTIONS = 'random initialisation', 'band statistics', 'random convolutions'
CONSTANT, TEXTURE = 'constant answer', 'texture statistics'

#: Features of a frozen encoder: pooled ``last`` map, or means of the maps of all ``stages``.
Features = Literal['last', 'stages']


def encoder_name(source: str) -> str:
    """Name an encoder after its source.

    Returns:
        ``experiment/version_N`` for a file in a run folder, followed by the checkpoint's name unless that is ``last``;
        otherwise the stem of the file or the source itself.
    """
    parts, stem = Path(source).parts, Path(source).stem
    version = next((i for i, part in enumerate(parts) if part.startswith('version_')), 0)
    if not version:
        return stem if Path(source).suffix in ('.ckpt', '.safetensors', '.pth', '.pt') else source
    return '/'.join([*parts[version - 1 : version + 1], *([] if stem in ('last', 'encoder') else [stem])])


def random_name(model: str, stem: str = 'standard') -> str:
    """Name a network with random weights that is normalized with the statistics of the data.

    Args:
        model: timm name, with or without the tag of pretrained weights.
        stem: Stride of its first layers.

    Returns:
        Such as ``random initialisation (resnet18)``, with the stem unless it is standard.
    """
    name = model.partition('.')[0]
    return f'{RANDOM} ({name})' if stem == 'standard' else f'{RANDOM} ({name}, {stem} stem)'
