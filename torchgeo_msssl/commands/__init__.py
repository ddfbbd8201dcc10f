"""Commands that need no trainer, one module each."""

import importlib
from collections.abc import Sequence

#: Name of each command and what it does, as the usage shows it.
COMMANDS = {
    'sample': 'write the synthetic sample area:  sample DIR',
    'export': 'cut the encoder out of a checkpoint:  export run.ckpt encoder.safetensors',
    'chip': 'cut scenes into chips for training:  chip SCENE… --output DIR --size 512',
    'rasterize': 'burn polygons and lines into a mask:  rasterize VECTOR --like SCENE --output MASK.tif',
    'statistics': 'measure the bands of scenes:  statistics SCENE… --output DIR',
    'vectorize': 'turn a map into polygons:  vectorize MAP.tif --output vines.gpkg',
    'doctor': 'find what is wrong or slow about scenes:  doctor SCENE…',
    'probe': 'classify frozen features of encoders:  probe --config configs/probe_s2.yaml',
    'study': 'measure whether pretraining helps:  study --config configs/study_vines.yaml',
    'compare': 'put results side by side:  compare RESULT…',
    'embed': 'embed chips and map the features:  embed --weights encoder.safetensors --data.paths … --output DIR',
}


def run(arguments: Sequence[str]) -> int:
    """Run a command.

    Args:
        arguments: A key of :data:`COMMANDS` and what follows it on the command line.

    Returns:
        Exit status.

    Raises:
        MSSSLError: If the command fails; the message is for the user.
    """
    # imported here: what a command does not use, it does not wait for
    module = importlib.import_module(f'{__name__}.{arguments[0]}')
    return int(module.run(list(arguments[1:])))
