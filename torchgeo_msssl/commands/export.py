"""``export``: the encoder of a checkpoint in a file of its own."""

from collections.abc import Sequence
from dataclasses import dataclass

from torchgeo_msssl.commands.options import positional, read_options


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Write the encoder of a checkpoint, with its metadata, to a file of its own.

    Attributes:
        checkpoint: Checkpoint of a pretraining run.
        output: File to write.
    """

    checkpoint: str = positional('run.ckpt')
    output: str = positional('encoder.safetensors')


def run(arguments: Sequence[str]) -> int:
    """Write the encoder of a checkpoint.

    Args:
        arguments: Arguments that follow the command's name.

    Returns:
        Exit status.

    Raises:
        MSSSLError: If the checkpoint has no encoder, or the file cannot be written.
    """
    options = read_options(ExportOptions, 'export', arguments)
    from torchgeo_msssl.models.weights import export_encoder

    export_encoder(options.checkpoint, options.output)
    print(f'Wrote {options.output}')
    return 0
