"""What the user asks of a folder of chips."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.labels.classes import ClassNames

Edge = Literal['pad', 'shift', 'drop']
Compression = Literal['zstd', 'deflate', 'none']

EDGES: tuple[Edge, ...] = ('pad', 'shift', 'drop')
COMPRESSIONS: tuple[Compression, ...] = ('zstd', 'deflate', 'none')
#: Parts of a split in the order of their shares; without a split there is :data:`ALL` alone.
PARTS = ('train', 'val', 'test')
ALL = 'all'
#: Value of unlabelled pixels in masks.
IGNORE = 255


@dataclass(frozen=True)
class LabelOptions:
    """Where masks come from, see :func:`~torchgeo_msssl.geo.labels.open.open_labels`.

    Attributes:
        paths: Mask rasters, or vector files.
        class_names: List of names, whose index is the value, or mapping of names to values of the source; optional for
            vectors of one class or with numbers as classes.
        column: Vectors: column with the class.
        layer: Vectors: layer of each file.
        buffer: Vectors: metres by which lines and points are widened to each side.
        background: Whether ground without a label is the background class, else it is unlabelled. Default: false for
            rasters; for vectors true, unless class 0 is drawn.
        extent: Vector file with the surveyed ground; outside of it everything is unlabelled.
        priority: Vectors: classes that lie on top of the others, the uppermost first.
        all_touched: Vectors: burn every pixel that is touched.
    """

    paths: tuple[str, ...]
    class_names: ClassNames | None = None
    column: str | None = None
    layer: str | None = None
    buffer: float = 0.0
    background: bool | None = None
    extent: str | None = None
    priority: tuple[str, ...] = ()
    all_touched: bool = False


@dataclass(frozen=True)
class ChipOptions:
    """What chips are cut, and which are kept.

    Attributes:
        size: Side of a chip, in pixels.
        stride: Pixels from one chip to the next.
        bands: Bands to write, in this order; empty for all of the first scene.
        sensor: Name of the sensor, where the files do not tell.
        labels: Where masks come from, or None.
        min_valid: Smallest share of a chip's pixels that have data.
        min_labelled: Smallest share of a chip's pixels that have a label, and data.
        keep_empty: Share of the chips without any foreground class that is kept.
        edge: What is done at the lower and right border: ``pad`` with nodata, ``shift`` the last chip inwards, or
            ``drop`` it.
        crs: CRS to bring the scenes to, or None for their own.
        res: Pixel size to bring them to, in units of that CRS, or None.
        split: Shares of training, validation and test; empty for no split.
        block: Side of the blocks of ground that a split deals out, in pixels.
        seed: Decides where balance leaves a choice, and which empty chips are kept.
        compress: ``zstd``, ``deflate`` or ``none``.
        virtual: Whether to write the manifest alone.
    """

    size: int
    stride: int
    bands: tuple[str, ...] = ()
    sensor: str | None = None
    labels: LabelOptions | None = None
    min_valid: float = 0.5
    min_labelled: float = 0.0
    keep_empty: float = 1.0
    edge: Edge = 'pad'
    crs: str | None = None
    res: float | None = None
    split: tuple[float, ...] = ()
    block: int = 2048
    seed: int = 0
    compress: Compression = 'zstd'
    virtual: bool = False

    def __post_init__(self) -> None:
        """Check that the values are in range and go together."""
        _expect(self.size >= 1, 'size', 'at least 1 pixel', self.size)
        expected = f'1 to the size of {self.size} pixels, so that no ground is left between chips'
        _expect(1 <= self.stride <= self.size, 'stride', expected, self.stride)
        for name in ('min_valid', 'min_labelled', 'keep_empty'):
            _expect(0 <= getattr(self, name) <= 1, name, 'a share from 0 to 1', getattr(self, name))
        _expect(self.edge in EDGES, 'edge', f'one of {", ".join(EDGES)}', self.edge)
        _expect(self.compress in COMPRESSIONS, 'compress', f'one of {", ".join(COMPRESSIONS)}', self.compress)
        _expect(self.res is None or 0 < self.res < math.inf, 'res', 'a positive pixel size', self.res)
        shares = 'two or three shares from 0 on with a sum of 1, the first one positive'
        right = 2 <= len(self.split) <= len(PARTS) and all(share >= 0 for share in self.split) and self.split[0] > 0
        _expect(not self.split or (right and abs(sum(self.split) - 1) < 1e-6), 'split', shares, self.split)
        expected = f'more than two chips ({2 * self.size} pixels), or hardly any chip would be left between the parts'
        _expect(not self.split or self.block > 2 * self.size, 'block', expected, self.block)
        if self.labels is None and (self.min_labelled > 0 or self.keep_empty < 1):
            name = 'min_labelled' if self.min_labelled > 0 else 'keep_empty'
            raise ConfigurationError(f'{name}: speaks of labels, and there are none; give them, or leave it out.')

    def as_dict(self) -> dict[str, Any]:
        """The options as plain values, for ``summary.json``."""
        return asdict(self)

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts that get chips."""
        return tuple(part for part, share in zip(PARTS, self.split, strict=False) if share > 0) or (ALL,)


def _expect(right: bool, option: str, expected: str, got: Any) -> None:
    if not right:
        raise ConfigurationError(f'{option}: expected {expected}, got {got}.')
