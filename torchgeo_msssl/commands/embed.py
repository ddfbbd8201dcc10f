"""``embed``: embeddings of every chip, maps of the features, and how they fill their space."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def run(arguments: Sequence[str]) -> int:
    """Embed scenes.

    Args:
        arguments: What follows the command's name.

    Returns:
        Exit status: 130 where the user stopped it.

    Raises:
        MSSSLError: If weights, scenes and options do not suit each other, or the folder cannot be written.
    """
    options = _parser().parse_args(arguments)
    # what `--help` does not need, it does not wait for
    from torchgeo_msssl.evaluation.embeddings import EmbedSettings, embed_scenes
    from torchgeo_msssl.evaluation.encoders import check_local, choose_device
    from torchgeo_msssl.evaluation.frozen_encoder import open_encoder, open_scenes_of, read_metadata

    device = choose_device(options.device)
    check_local(options.weights, options.model, 'weights')
    metadata = read_metadata(options.weights)
    trained_on = metadata.chip_size if metadata is not None else None
    chip_size = options.chip_size if options.chip_size is not None else trained_on
    settings = EmbedSettings(
        chip_size=EmbedSettings.chip_size if chip_size is None else chip_size,
        **{
            name: getattr(options, name)
            for name in ('stride', 'min_valid', 'batch_size', 'dense', 'map_step', 'lidar_chips', 'lidar_views',
                         'queries', 'neighbours', 'seed')
        },
    )  # fmt: skip
    data = open_scenes_of(
        metadata, options.paths, settings.chip_size, _names(options.bands), options.sensor, settings.batch_size
    )
    encoder = open_encoder(options.weights, data, options.model, device, options.seed)
    print(
        f'{encoder.model} ({encoder.report.source}) on {len(data.scenes)} scene(s), bands {", ".join(data.bands)}, '
        f'normalised with the statistics of the {encoder.statistics}'
    )
    try:
        metrics = embed_scenes(encoder, data, Path(options.output), settings, options.overwrite)
    except KeyboardInterrupt:
        print('Stopped; no file was left half written, and the same command begins anew.')
        return 130
    _report(metrics, options.output)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='python -m torchgeo_msssl embed', description=__doc__)
    add = parser.add_argument
    add(
        '--weights',
        required=True,
        metavar='FILE',
        help='encoder: a .ckpt or .safetensors file, the name of a TorchGeo weight, imagenet or random',
    )
    add(
        '--data.paths',
        required=True,
        nargs='+',
        dest='paths',
        metavar='SCENE',
        help='scenes (files, folders or patterns), or a folder of chips in GeoTIFFs',
    )
    add('--output', required=True, metavar='DIR', help='folder to write into')
    add('--chip_size', type=int, metavar='PX', help="side of a chip (default: the encoder's, else 32)")
    add('--stride', type=int, metavar='PX', help='distance between chips (default: chip_size)')
    add('--bands', nargs='+', metavar='NAME', help="bands by name (default: the encoder's, else all)")
    add('--sensor', metavar='NAME', help='sensor, where the files do not tell')
    add('--model', default='resnet18', metavar='NAME', help='timm name for imagenet and random (default: %(default)s)')
    add('--min_valid', type=float, default=0.9, metavar='SHARE', help='valid pixels of a chip (default: %(default)s)')
    add('--batch_size', type=int, default=64, metavar='N', help='chips at once (default: %(default)s)')
    add('--dense', type=_truth, default=True, metavar='true|false', help='whether to map the features (default: true)')
    add('--map_step', type=int, metavar='PX', help="side of a map's cell (default: a quarter of a chip)")
    add('--lidar_chips', type=int, default=500, metavar='N', help='chips for LiDAR (default: %(default)s)')
    add('--lidar_views', type=int, default=10, metavar='N', help='views of each of them (default: %(default)s)')
    add('--queries', type=int, default=8, metavar='N', help='rows of the contact sheet (default: %(default)s)')
    add('--neighbours', type=int, default=5, metavar='K', help='neighbours in a row (default: %(default)s)')
    add('--seed', type=int, default=0, help='of random weights, views and queries (default: %(default)s)')
    add('--device', default='auto', metavar='NAME', help='cpu, cuda, … (default: cuda where there is one)')
    add('--overwrite', action='store_true', help='replace the results of an earlier run')
    return parser


def _names(bands: Sequence[str] | None) -> list[str] | None:
    """Names from ``B02 B03`` as well as from ``'[B02,B03]'``, as the trainer's commands have it."""
    return [name for text in bands for name in text.strip('[]').replace(',', ' ').split()] if bands else None


def _truth(text: str) -> bool:
    if text.lower() not in ('true', 'false'):
        raise argparse.ArgumentTypeError(f'expected true or false, got {text}')
    return text.lower() == 'true'


def _report(metrics: dict[str, Any], output: str) -> None:
    print(f'{metrics["chips"]} chips, {metrics["features"]} features:')
    for name in ('rank_me', 'alpha_req', 'lidar', 'mean_cosine', 'embedding_std'):
        note = f'   (healthy: about {metrics["healthy_embedding_std"]:.4f})' if name == 'embedding_std' else ''
        print(f'  {name:<14} {metrics[name]:8.4f}{note}')
    maps = ', one *_pca.tif a scene' if metrics['settings']['dense'] else ''
    print(f'Wrote embeddings.parquet, neighbours.png, metrics.json{maps} to {output}')
