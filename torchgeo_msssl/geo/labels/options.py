"""Options of labels, the same wherever labels are read."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

from torchgeo_msssl.geo.labels.classes import ClassNames

#: What geometries without a value in their column are.
MissingClass = Literal['refuse', 'unlabelled']


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelSettings:
    """Reading of labels.

    Used by :func:`~torchgeo_msssl.geo.labels.open.open_labels`.

    Attributes:
        class_names: List of names such as background,vine, whose index is the value; or mapping of names to values of
            the labels such as forest=2,built=[8,9], which numbers the classes in its order and leaves other values
            unlabelled. Default: integers of a column as they are, without a column one class named after the file; of
            rasters the names in their tags, else background and one class per value.
        column: Vectors: column with the class, as name or number. Default: all geometries are of one class.
        missing_class: Vectors: whether geometries without a value in the column are refused, or unlabelled.
        layer: Vectors: layer of each file; required if there are several.
        buffer: Vectors: metres by which lines and points are widened to each side.
        background: Whether ground without a label is the background class, else it is unlabelled. Default: false for
            rasters; for vectors true, unless class 0 is drawn or class_names is a mapping without background.
        extent: Polygons of the surveyed ground (file, file.gpkg|layername=NAME, or layer of the labels); outside of it
            everything is unlabelled.
        priority: Vectors: classes that lie on top of the others, the uppermost first.
        all_touched: Vectors: burn every pixel that is touched, not only those whose centre is covered.
    """

    class_names: ClassNames | None = None
    column: str | None = None
    missing_class: MissingClass = 'refuse'
    layer: str | None = None
    buffer: float = 0.0
    background: bool | None = None
    extent: str | None = None
    priority: Sequence[str] = ()
    all_touched: bool = False

    def arguments(self) -> dict[str, Any]:
        """Return the options as arguments of :func:`~torchgeo_msssl.geo.labels.open.open_labels`."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(LabelSettings)}
