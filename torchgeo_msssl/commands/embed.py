"""``embed``: embeddings of chips, maps of them, and how they use their dimensions."""

from collections.abc import Mapping, Sequence
from typing import Any

from torchgeo_msssl.commands.options import read_options
from torchgeo_msssl.evaluation.embed_settings import EmbedSettings


def run(arguments: Sequence[str]) -> int:
    """Embed scenes or chips.

    Args:
        arguments: Arguments that follow the command's name.

    Returns:
        Exit status: 130 if the user stopped it.

    Raises:
        MSSSLError: If weights, data and options do not fit, or the folder cannot be written.
    """
    settings = read_options(
        EmbedSettings,
        'embed',
        arguments,
        config=True,
        example='embed --weights encoder.safetensors --data.paths scenes/*.tif --output embeddings',
    )
    from torchgeo_msssl.evaluation.embeddings import embed

    try:
        metrics = embed(settings)
    except KeyboardInterrupt:
        print('Stopped; there are no incomplete files. The same command starts again; complete maps are kept.')
        return 130
    print(f'{metrics["chips"]} chips, {metrics["features"]} features:')
    _print_metrics(metrics)
    print(f'Wrote {", ".join(metrics["files"])} to {settings.output}')
    return 0


def _print_metrics(metrics: Mapping[str, Any]) -> None:
    for name in ('rank_me', 'alpha_req', 'lidar', 'mean_cosine', 'embedding_std'):
        note = f'   (healthy: about {metrics["healthy_embedding_std"]:.4f})' if name == 'embedding_std' else ''
        print(f'  {name:<14} {metrics[name]:8.4f}{note}')
