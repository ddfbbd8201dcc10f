"""``export``: a checkpoint in files that other programs read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torchgeo_msssl.commands.options import option, positional, read_options


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Write a checkpoint for other programs: its encoder, or the whole segmentation network, with a model card.

    Attributes:
        checkpoint: Checkpoint of a pretraining, for its encoder, or of a segmentation.
        output: File for the encoder alone, with its metadata.
        onnx: File for the segmentation network as ONNX, from digital numbers to probabilities, with the metadata that
            the QGIS plugin Deepness reads.
        torch: File for the segmentation network as a program of `torch.export` (``.pt2``).
        tile_size: Side in pixels of the only images that `onnx` and `torch` then accept. Deepness needs it, such as
            512; by default images have any size.
        nodata: Digital number of pixels without data, for `onnx` and `torch`.
    """

    checkpoint: str = positional('run.ckpt')
    output: str | None = option(None, metavar='encoder.safetensors', positional=True)
    onnx: str | None = option(None, metavar='FILE.onnx')
    torch: str | None = option(None, metavar='FILE.pt2')
    tile_size: int | None = None
    nodata: float | None = None


def run(arguments: Sequence[str]) -> int:
    """Write the files of a checkpoint.

    Args:
        arguments: Arguments that follow the command's name.

    Returns:
        Exit status.

    Raises:
        MSSSLError: If an option is out of range, the checkpoint holds another task or no encoder, or a file cannot be
            written.
    """
    options: Any = read_options(ExportOptions, 'export', arguments)
    from torchgeo_msssl.prediction.export.run import export

    card = export(**vars(options))
    for path in (options.output, options.onnx, options.torch, card):
        if path is not None:
            print(f'Wrote {path}')
    if options.onnx is not None and options.tile_size is None:
        print('The QGIS plugin Deepness needs tiles of a fixed size: export with --tile_size 512 for it.')
    return 0
