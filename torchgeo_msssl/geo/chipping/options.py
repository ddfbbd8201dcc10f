"""Options of a folder of chips."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.ground.parts import PARTS, part_names
from torchgeo_msssl.geo.labels.options import LabelSettings

Edge = Literal['pad', 'shift', 'drop']
Compression = Literal['zstd', 'deflate', 'none']

#: The only part without a split.
ALL = 'all'
#: Value of unlabelled pixels in masks.
IGNORE = 255


@dataclass(frozen=True, kw_only=True)
class SplitSettings:
    """Split of the ground.

    Attributes:
        split: How the ground is divided: blocks; scenes, to hold out whole scenes; or a file of polygons with a column
            split that holds train, val or test, such as the split.geojson of an earlier run. Default: no split.
        fractions: Fractions of the ground for training, validation and test; 0 leaves a part out.
        block_size: Side of a block of ground in pixels of the first scene. Blocks begin at the origin of the CRS.
        gap: Minimum distance between chips of different parts, in pixels of the first scene. Default: chip_size.
        seed: Seed of the split, and of the selection by keep_empty.
    """

    split: str | None = None
    fractions: tuple[float, ...] = (0.7, 0.15, 0.15)
    block_size: int = 2048
    gap: int | None = None
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class ChipOptions(LabelSettings, SplitSettings):
    """Chips.

    Attributes:
        chip_size: Side of a chip in pixels.
        stride: Pixels from one chip to the next. Default: chip_size minus overlap.
        overlap: Pixels that neighbouring chips share, instead of a stride.
        edge: At the lower and right border of a scene: pad chips with nodata, shift the last chip inwards, or drop it.
        bands: Bands to write, in this order. Default: all bands of the first scene.
        sensor: Sensor of files that do not identify it.
        crs: CRS to warp the scenes to, such as EPSG:32631. Default: their own.
        res: Pixel size to warp the scenes to, in units of the CRS. Default: their own.
        min_valid: Minimum fraction of valid pixels per chip.
        labels: Mask rasters or vector files to write masks from.
        min_labelled: Minimum fraction of pixels per chip that have a label and are valid.
        keep_empty: Fraction of the chips with only background that is kept.
        compress: Compression of the files.
        virtual: Write only the manifest; chips are read from the scenes.
    """

    chip_size: int = 512
    stride: int | None = None
    overlap: int = 0
    edge: Edge = 'pad'
    bands: Sequence[str] = ()
    sensor: str | None = None
    crs: str | None = None
    res: float | None = None
    min_valid: float = 0.5
    labels: str | Sequence[str] = ()
    min_labelled: float = 0.0
    keep_empty: float = 1.0
    compress: Compression = 'zstd'
    virtual: bool = False

    def __post_init__(self) -> None:
        """Check that the values are in range and fit each other."""
        if isinstance(self.labels, str):
            object.__setattr__(self, 'labels', (self.labels,))
        size = self.chip_size
        _expect(size >= 1, 'chip_size', 'at least 1 pixel', size)
        _expect(0 <= self.overlap < size, 'overlap', f'0 to {size - 1} pixels', self.overlap)
        _expect(self.stride is None or self.overlap == 0, 'overlap', 'either a stride or an overlap', self.overlap)
        expected = f'1 to the chip_size of {size} pixels, so that no ground is left between chips'
        _expect(1 <= self.step <= size, 'stride', expected, self.stride)
        for name in ('min_valid', 'min_labelled', 'keep_empty'):
            _expect(0 <= getattr(self, name) <= 1, name, 'a fraction from 0 to 1', getattr(self, name))
        _expect(self.edge in get_args(Edge), 'edge', f'one of {", ".join(get_args(Edge))}', self.edge)
        known = get_args(Compression)
        _expect(self.compress in known, 'compress', f'one of {", ".join(known)}', self.compress)
        _expect(self.res is None or 0 < self.res < math.inf, 'res', 'a positive pixel size', self.res)
        part_names(self.fractions)
        expected = f'more than two chips ({2 * size} pixels), as few chips would be left between the parts'
        _expect(self.split != 'blocks' or self.block_size > 2 * size, 'block_size', expected, self.block_size)
        _expect(self.gap is None or self.gap >= 0, 'gap', '0 pixels or more', self.gap)
        if not self.labels:
            self._check_no_labels()

    def _check_no_labels(self) -> None:
        defaults = LabelSettings().arguments()
        given = {name: bool(value) and value != defaults[name] for name, value in self.arguments().items()}
        given |= {'background': self.background is not None, 'keep_empty': self.keep_empty < 1}
        given |= {'min_labelled': self.min_labelled > 0}
        for name in filter(given.__getitem__, given):
            raise ConfigurationError(f'{name}: requires labels; set labels, or leave it out.')

    def as_dict(self) -> dict[str, Any]:
        """Return the options as plain values, for ``summary.json``."""
        return {field.name: getattr(self, field.name) for field in fields(ChipOptions)}

    @property
    def step(self) -> int:
        """Pixels from one chip to the next."""
        return self.chip_size - self.overlap if self.stride is None else self.stride

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts that get chips."""
        if self.split is None:
            return (ALL,)
        return part_names(self.fractions) if self.split in ('blocks', 'scenes') else PARTS

    @property
    def chip_gap(self) -> int:
        """Minimum distance between chips of different parts, in pixels."""
        return self.chip_size if self.gap is None else self.gap


def _expect(right: bool, option: str, expected: str, got: Any) -> None:
    if not right:
        raise ConfigurationError(f'{option}: expected {expected}, got {got}.')
