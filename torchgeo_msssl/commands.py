"""Small commands that need no trainer."""

import argparse
from collections.abc import Sequence


def run(arguments: Sequence[str]) -> int:
    """Parse and run ``sample`` or ``export``.

    Args:
        arguments: The command with its arguments.

    Returns:
        Exit status.

    Raises:
        MSSSLError: If the command fails; the message is for the user.
    """
    parser = argparse.ArgumentParser(prog='python -m torchgeo_msssl')
    commands = parser.add_subparsers(dest='command', required=True)

    sample = commands.add_parser('sample', help='write the synthetic sample area')
    sample.add_argument('directory', metavar='DIR', help='folder to write into')
    sample.add_argument('--seed', type=int, default=0, help='same seed, same pixels (default: 0)')

    export = commands.add_parser('export', help='cut the encoder out of a checkpoint')
    export.add_argument('checkpoint', metavar='run.ckpt', help='checkpoint of a pretraining run')
    export.add_argument('output', metavar='encoder.safetensors', help='file to write')

    options = parser.parse_args(arguments)
    if options.command == 'sample':
        from torchgeo_msssl.geo.sample import write_sample_area

        area = write_sample_area(options.directory, seed=options.seed)
        print(f'Wrote the synthetic sample area ({len(area.files)} files) to {area.directory}')
    else:
        from torchgeo_msssl.models.weights import export_encoder

        export_encoder(options.checkpoint, options.output)
        print(f'Wrote {options.output}')
    return 0
