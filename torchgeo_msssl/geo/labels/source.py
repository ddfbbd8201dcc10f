"""What every source of labels can do."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS as PROJ_CRS
from rasterio.crs import CRS
from rasterio.warp import transform_bounds

from torchgeo_msssl.errors import EmptyIntersectionError
from torchgeo_msssl.geo.grid import PixelGrid, Window
from torchgeo_msssl.geo.scene import Scene
from torchgeo_msssl.geo.vector.burn import GeometryIndex

type Bounds = tuple[float, float, float, float]
#: An interval of time: anything with the attributes ``left`` and ``right``, such as :class:`pandas.Interval`.
type Time = Any


class TimeSpan(NamedTuple):
    """First and last moment of a scene.

    Attributes:
        left: First moment.
        right: Last moment.
    """

    left: datetime
    right: datetime


class Footprint(NamedTuple):
    """Place and time of a file of labels.

    Attributes:
        path: The file.
        bounds: ``(left, bottom, right, top)``.
        date: First and last moment that its labels hold for, or None for any time.
    """

    path: str
    bounds: Bounds
    date: tuple[datetime, datetime] | None


class LabelSource(Protocol):
    """Labels that can be burned on any pixel grid.

    A new label format is one class with these members, chosen in :func:`~torchgeo_msssl.geo.labels.open.open_labels`.

    Attributes:
        class_names: Class names; the index is the value.
        ignore_index: Value of unlabelled pixels.
        background: Whether ground without a label is the background class, else it is unlabelled.
        extent: The surveyed ground, or None.
    """

    class_names: tuple[str, ...]
    ignore_index: int
    background: bool
    extent: GeometryIndex | None

    @property
    def files(self) -> tuple[str, ...]:
        """Every file whose content decides the labels, the main one first, those of the extent last."""

    @property
    def crs(self) -> CRS:
        """CRS of the labels."""

    @property
    def res(self) -> tuple[float, float]:
        """Pixel size in units of the CRS; ``(0, 0)`` for vectors."""

    def bounds(self, crs: Any) -> Bounds:
        """Return ``(left, bottom, right, top)`` of all labels in a CRS."""

    def footprints(self, crs: Any) -> list[Footprint]:
        """Return place and time of each file, with bounds in a CRS."""

    def touches(self, grid: PixelGrid, time: Time | None = None) -> bool:
        """Return whether labels of a time (default: of any) meet a grid."""

    def burn(self, grid: PixelGrid, window: Window, time: Time | None = None) -> NDArray[np.uint8]:
        """Return the classes of the pixels of a window.

        Args:
            grid: Pixel grid in any CRS.
            window: Window on it; it may reach outside.
            time: Interval that labels with a date must overlap; None for all.

        Returns:
            Shape (height, width), ``ignore_index`` where nothing is known.

        Raises:
            ConfigurationError: If the source holds a value that is no class.
            SceneReadError: If a file is damaged there.
        """

    def describe(self) -> str:
        """Return what was read, for a report."""


def time_of(scene: Scene) -> TimeSpan | None:
    """Return the time of a scene, or None without a date."""
    return None if scene.date is None else TimeSpan(*scene.date)


def unlabelled_scenes(source: LabelSource, scenes: Sequence[Scene]) -> list[Scene]:
    """Find the scenes that no label touches.

    Args:
        source: The labels.
        scenes: The images.

    Returns:
        Scenes without a label.

    Raises:
        EmptyIntersectionError: If no scene has a label; files and bounds are named.
    """
    bare = [scene for scene in scenes if not source.touches(scene.grid, time_of(scene))]
    if len(bare) < len(scenes):
        return bare
    if any(source.touches(scene.grid) for scene in scenes):
        msg = (
            f'labels: the dates in the names of the masks ({source.files[0]}, …) are none of those of the images '
            f'({scenes[0].path}, …); rename them, or keep one date only.'
        )
        raise EmptyIntersectionError(msg)
    check_overlap(source, scenes[0].path, scenes[0].grid)
    raise AssertionError('labels that touch no scene do not touch the first one')


def check_overlap(source: LabelSource, scene: str, grid: PixelGrid) -> None:
    """Check that labels touch an image.

    Args:
        source: The labels.
        scene: File of the image.
        grid: Its grid.

    Raises:
        EmptyIntersectionError: If they do not; both bounds are named in the image's CRS.
    """
    if source.touches(grid):
        return
    what, file, crs, bounds = 'labels', source.files[0], source.crs, source.bounds(grid.crs)
    if source.extent is not None and not source.extent.touches(grid):
        what, file, crs, bounds = 'extent', source.files[-1], source.extent.crs, source.extent.bounds(grid.crs)
    ours, theirs = (', '.join(f'{value:.10g}' for value in box) for box in (bounds, grid.bounds))
    raise EmptyIntersectionError(
        f'{what}: {file} (drawn in {_name(crs)}) does not touch {scene}: in {_name(grid.crs)} it lies within ({ours}) '
        f'and the image within ({theirs}); check the CRS of both, or choose the {what} of this place.'
    )


def bounds_in(grid: PixelGrid, window: Window, crs: CRS) -> Bounds:
    """Return the bounds of a window in another CRS.

    Args:
        grid: Pixel grid.
        window: Window on it.
        crs: The other CRS.

    Returns:
        ``(left, bottom, right, top)``; all longitudes where the window crosses 180°.
    """
    bounds = grid.window_bounds(window)
    if grid.crs == crs:
        return bounds
    left, bottom, right, top = transform_bounds(grid.crs, crs, *bounds)
    return (left, bottom, right, top) if left <= right else (-180.0, bottom, 180.0, top)


def common_bounds(boxes: Iterable[Bounds]) -> Bounds:
    """Return the bounds of several bounds."""
    lefts, bottoms, rights, tops = zip(*boxes, strict=True)
    return min(lefts), min(bottoms), max(rights), max(tops)


def _name(crs: Any) -> str:
    known = PROJ_CRS.from_user_input(crs)
    authority = known.to_authority()
    return ':'.join(authority) if authority else str(known.name)
