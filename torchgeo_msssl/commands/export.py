"""``export``: the encoder of a checkpoint on its own."""

import argparse
from collections.abc import Sequence

from torchgeo_msssl.models.weights import export_encoder


def run(arguments: Sequence[str]) -> int:
    """Write the encoder of a checkpoint.

    Args:
        arguments: What follows the command's name.

    Returns:
        Exit status.

    Raises:
        MSSSLError: If the checkpoint has no encoder, or the file cannot be written.
    """
    parser = argparse.ArgumentParser(prog='python -m torchgeo_msssl export', description=__doc__)
    parser.add_argument('checkpoint', metavar='run.ckpt', help='checkpoint of a pretraining run')
    parser.add_argument('output', metavar='encoder.safetensors', help='file to write')
    options = parser.parse_args(arguments)
    export_encoder(options.checkpoint, options.output)
    print(f'Wrote {options.output}')
    return 0
