"""Options of ``embed``."""

from dataclasses import dataclass, field
from typing import Literal

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.evaluation.encoder_names import Features
from torchgeo_msssl.validation import check_choice

#: Side of a chip if neither the options nor the encoder name one, in pixels.
DEFAULT_CHIP_SIZE = 32


@dataclass(frozen=True)
class EmbedData:
    """Chips to embed.

    Attributes:
        paths: Scenes: files, folders or patterns; or one folder of chips.
        bands: Bands by name, which are matched with those of the encoder; default: those of the encoder, otherwise all
            spectral bands of the files.
        sensor: Sensor of the files, if they do not name it; default: that of the encoder.
        chip_size: Side of a chip in pixels; default: that of the encoder, otherwise 32. Windows of this size cover the
            chips of a folder; default for these: whole chips.
        stride: Distance between chips of scenes in pixels, which may exceed chip_size to embed a sample of the ground;
            default: chip_size.
        min_valid: Minimum fraction of valid pixels per chip of scenes.
        offset: Digital number added before scaling; `auto` reads it from metadata or date.
        channels: Axis of the bands in chips that are .npy files.
        band_names: Names of the bands of chips in order, if the files do not name them.
    """

    paths: str | list[str] = field(metadata={'metavar': 'SCENE,...'})
    bands: list[str] | None = None
    sensor: str | None = None
    chip_size: int | None = None
    stride: int | None = None
    min_valid: float = 0.9
    offset: float | Literal['auto'] = 'auto'
    channels: Literal['first', 'last'] | None = None
    band_names: list[str] | None = None

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ConfigurationError: If an option is out of range.
        """
        if self.chip_size is not None and self.chip_size < 1:
            raise ConfigurationError(f'data.chip_size: expected at least 1, got {self.chip_size}.')
        if self.stride is not None and self.stride < 1:
            raise ConfigurationError(f'data.stride: expected at least 1, got {self.stride}.')
        if not 0 <= self.min_valid <= 1:
            raise ConfigurationError(f'data.min_valid: expected a fraction from 0 to 1, got {self.min_valid}.')


@dataclass(frozen=True)
class EmbedSettings:
    """Embed chips with a frozen encoder, map the embeddings, and measure how they use their dimensions.

    Attributes:
        data: Chips to embed.
        weights: Encoder: a .ckpt or .safetensors file, the name of TorchGeo weights, `imagenet` or `random`.
        output: Folder to write into.
        model: timm name of the network for `imagenet`, `random`, and weights that do not name theirs.
        features: Embed by the pooled `last` map, or by the means of the maps of all `stages`.
        dense: Write a map of the embeddings of each scene that has a CRS.
        map_step: Side of a cell of these maps in pixels; default: a quarter of a chip.
        lidar_chips: Maximum number of chips for LiDAR.
        lidar_views: Number of views of each of them.
        queries: Number of rows of the contact sheet.
        neighbours: Number of nearest neighbours in a row.
        batch_size: Chips per batch.
        seed: Seed of random weights, views and queries.
        device: `auto`, `cpu`, `cuda`, …
        overwrite: Replace the results of an earlier run.
    """

    data: EmbedData
    weights: str
    output: str = field(metadata={'metavar': 'DIR'})
    model: str = 'resnet18'
    features: Features = 'last'
    dense: bool = True
    map_step: int | None = None
    lidar_chips: int = 500
    lidar_views: int = 10
    queries: int = 8
    neighbours: int = 5
    batch_size: int = 64
    seed: int = 0
    device: str = 'auto'
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ConfigurationError: If an option is out of range.
        """
        check_choice('features', self.features, Features)
        minimums = {'batch_size': 1, 'lidar_chips': 2, 'lidar_views': 2, 'queries': 1, 'neighbours': 1}
        for name, least in minimums.items():
            if getattr(self, name) < least:
                raise ConfigurationError(f'{name}: expected at least {least}, got {getattr(self, name)}.')
        _check_map_step(self.map_step, self.data.chip_size)


def _check_map_step(step: int | None, chip_size: int | None) -> None:
    """Check that the chips around the cells of a map leave no gaps; the size of a chip is None where unknown."""
    if step is not None and (step < 1 or (chip_size is not None and step > chip_size)):
        size = '' if chip_size is None else f' {chip_size}'
        raise ConfigurationError(f'map_step: expected 1 to the chip_size{size}, got {step}; more would leave gaps.')
