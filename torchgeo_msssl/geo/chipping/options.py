"""What the user asks of a folder of chips."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.ground.parts import PARTS, part_names
from torchgeo_msssl.geo.labels.classes import ClassNames

Edge = Literal['pad', 'shift', 'drop']
Compression = Literal['zstd', 'deflate', 'none']

EDGES: tuple[Edge, ...] = ('pad', 'shift', 'drop')
COMPRESSIONS: tuple[Compression, ...] = ('zstd', 'deflate', 'none')
#: The only part without a split.
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
        split: How the ground is divided: ``blocks``; ``scenes``, so that whole scenes are held out; or a file of
            polygons with a column ``split`` that says train, val or test, such as an earlier ``split.geojson``. None
            for no split.
        fractions: Fractions of the ground for training, validation and test; 0 leaves a part out.
        block_size: Side of a block of ground in pixels of the first scene; blocks begin at the origin of the CRS.
        gap: Smallest distance between chips of different parts, in pixels of the first scene; None for ``size``.
        seed: Seed of the split, and of the choice of empty chips.
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
    split: str | None = None
    fractions: tuple[float, ...] = (0.7, 0.15, 0.15)
    block_size: int = 2048
    gap: int | None = None
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
        part_names(self.fractions)
        expected = f'more than two chips ({2 * self.size} pixels), or hardly any chip would be left between the parts'
        _expect(self.split != 'blocks' or self.block_size > 2 * self.size, 'block_size', expected, self.block_size)
        _expect(self.gap is None or self.gap >= 0, 'gap', '0 pixels or more', self.gap)
        if self.labels is None and (self.min_labelled > 0 or self.keep_empty < 1):
            name = 'min_labelled' if self.min_labelled > 0 else 'keep_empty'
            raise ConfigurationError(f'{name}: speaks of labels, and there are none; give them, or leave it out.')

    def as_dict(self) -> dict[str, Any]:
        """The options as plain values, for ``summary.json``."""
        return asdict(self)

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts that get chips."""
        if self.split is None:
            return (ALL,)
        return part_names(self.fractions) if self.split in ('blocks', 'scenes') else PARTS

    @property
    def chip_gap(self) -> int:
        """Smallest distance between chips of different parts, in pixels."""
        return self.size if self.gap is None else self.gap


def _expect(right: bool, option: str, expected: str, got: Any) -> None:
    if not right:
        raise ConfigurationError(f'{option}: expected {expected}, got {got}.')
