"""Commands without a trainer, one module each."""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

#: Name of each command with its summary in the usage.
COMMANDS = {
    'sample': 'write the synthetic sample area:  sample DIR',
    'export': 'write an encoder, or a network as ONNX:  export best.ckpt --onnx vines.onnx',
    'configs': 'list the configurations, or copy them:  configs [NAME… --output DIR]',
    'chip': 'cut scenes into chips for training:  chip SCENE… --output DIR --chip_size 512',
    'rasterize': 'burn polygons and lines into a mask:  rasterize VECTOR --like SCENE --output MASK.tif',
    'statistics': 'compute band statistics of scenes:  statistics SCENE… --output DIR',
    'vectorize': 'convert a class map to polygons:  vectorize MAP.tif --output vines.gpkg',
    'doctor': 'check scenes for errors and slow formats:  doctor SCENE…',
    'probe': 'classify frozen features of encoders:  probe --config probe_s2',
    'study': 'repeat a training with one thing changed:  study --config study_vines',
    'recommend': 'train several models and keep the best:  recommend --config recommend_vines',
    'compare': 'compare runs, probes and studies:  compare RESULT…',
    'embed': 'embed chips and map the features:  embed --weights encoder.safetensors --data.paths … --output DIR',
}


def program() -> str:
    """Return the name by which this package was called, for usages and examples."""
    called = Path(sys.argv[0]).stem if sys.argv else ''
    return called if called == 'torchgeo-msssl' else 'python -m torchgeo_msssl'


def run(arguments: Sequence[str]) -> int:
    """Run a command.

    Args:
        arguments: A key of :data:`COMMANDS` and the arguments that follow it.

    Returns:
        Exit status.

    Raises:
        MSSSLError: If the command fails; the message is for the user.
    """
    # imported here, so that no command waits for the imports of another
    module = importlib.import_module(f'{__name__}.{arguments[0]}')
    return int(module.run(list(arguments[1:])))
