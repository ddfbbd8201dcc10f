"""Segmentation networks from digital numbers to class probabilities, as programs of torch.export."""

import os
from typing import cast

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from torchgeo_msssl.errors import ConfigurationError, WeightsError
from torchgeo_msssl.models.weights import read_source
from torchgeo_msssl.tasks.segmentation import Segmentation

__all__ = ('PortableNetwork', 'load_segmentation', 'trace')

#: Batch, height and width of the image with which a network is traced; sizes of 1 would become constants.
_TRACED = (2, 128, 192)
#: Relative difference up to which a number is the nodata value: programs scale digital numbers in float32.
_ROUNDING = 1e-6


def load_segmentation(checkpoint: str | os.PathLike[str]) -> Segmentation:
    """Load the segmentation task of a checkpoint.

    Args:
        checkpoint: Lightning checkpoint of this package.

    Returns:
        The task in eval mode.

    Raises:
        ConfigurationError: If it is the checkpoint of another task.
        WeightsError: If the file cannot be read.
    """
    name, metadata = os.fspath(checkpoint), read_source(checkpoint).metadata
    method = 'unknown' if metadata is None else metadata.method
    if method == 'texture_classifier':
        raise ConfigurationError(
            f'onnx, torch: {name} is a TextureClassifier, whose features other programs cannot run; export a network '
            'trained with VineSegmentation, or map with predict.'
        )
    if method != 'segmentation' or name.endswith('.safetensors'):
        raise ConfigurationError(
            f'onnx, torch: expected the checkpoint of a segmentation (best.ckpt), got {name} (method: {method}); train '
            'one with VineSegmentation first, or export the encoder alone.'
        )
    try:
        task = Segmentation.load_from_checkpoint(name, map_location='cpu', weights_only=True)
    except (RuntimeError, KeyError, TypeError) as error:
        raise WeightsError(
            f'{name} does not fit the network that it names ({str(error).splitlines()[0]}); it was written by another '
            'version of this package.'
        ) from error
    return task.eval()


class PortableNetwork(nn.Module):
    """Everything that `predict` does with a window, in one module.

    Pixels that are not finite, or nodata, in any band are invalid and enter the network as the mean of each band.
    """

    def __init__(self, task: Segmentation, nodata: float | None = None) -> None:
        """Take over the network that a task evaluates.

        Args:
            task: The trained task.
            nodata: Digital number of pixels without data; None for none.
        """
        super().__init__()
        self.normalize, self.network, self.stride = task.normalize, task.predictor, task.stride
        self.nodata = nodata

    def forward(self, image: Tensor) -> Tensor:
        """Compute class probabilities.

        Args:
            image: Digital numbers (batch, band, height, width), float32.

        Returns:
            Probabilities (batch, class, height, width), float32, which sum to 1 in every pixel.
        """
        batch, _, height, width = image.shape
        valid = torch.isfinite(image).all(dim=1, keepdim=True)
        if self.nodata is not None:
            near = (image - self.nodata).abs() <= _ROUNDING * abs(self.nodata)
            valid = valid & ~near.any(dim=1, keepdim=True)
        # scale and offset are given, since the defaults depend on len(image), which torch.export takes as a constant
        scale, offset = (values.expand(batch, -1) for values in (self.normalize.scale, self.normalize.offset))
        standardized = self.normalize(image, valid, scale, offset)
        padded = nn.functional.pad(standardized, (0, -width % self.stride, 0, -height % self.stride))
        return cast(Tensor, self.network(padded)[..., :height, :width].softmax(dim=1))


def trace(network: PortableNetwork, in_channels: int, tile_size: int | None = None) -> ExportedProgram:
    """Convert a network to a program without Python code.

    Args:
        network: The network, in eval mode.
        in_channels: Number of bands.
        tile_size: Side of the square images that the program accepts, in pixels; None for images of any size.

    Returns:
        The program, for batches of any size.

    Raises:
        ConfigurationError: If PyTorch cannot trace the network, such as one that needs images of a fixed size.
    """
    batch, height, width = _TRACED if tile_size is None else (_TRACED[0], tile_size, tile_size)
    sizes = {0: Dim.DYNAMIC} | ({} if tile_size else {2: Dim.DYNAMIC, 3: Dim.DYNAMIC})
    example = torch.zeros(batch, in_channels, height, width)
    try:
        with torch.no_grad():
            program = torch.export.export(network, (example,), dynamic_shapes=(sizes,), strict=False)
    except Exception as error:  # of many classes, some of them private
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        remedy = 'choose another backbone' if tile_size else 'give --tile_size, or choose another backbone'
        raise ConfigurationError(f'PyTorch cannot export this network ({reason.strip()}); {remedy}.') from error
    for module in program.graph_module.modules():
        for node in getattr(module, 'graph', torch.fx.Graph()).nodes:
            node.meta.pop('stack_trace', None)  # names files of this computer
    return program
