"""Midlines of elongated polygons, such as the canopy of a row of vines.

A polygon is cut across its main axis every half of its width; the middles of the cuts, one after the other, are its
midline. Where two rows have grown together the cuts are wider, and each line goes straight on through. A bent line is
then cut again, across itself, so that it lies in the middle up to its ends; it must not turn back along the axis.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy import ndimage
from shapely.geometry.base import BaseGeometry

__all__ = ('Midline', 'elongation', 'main_axis', 'midlines')

type Floats = NDArray[np.float64]
type Interval = tuple[float, float]

#: Cuts for one width of the polygon along its axis.
_CUTS_A_WIDTH = 2
#: Cuts over which the middles are averaged, for the edges of pixels are no plants.
_SMOOTHED = 5
#: A cut so many times wider than usual goes through strips that have grown together.
_GROWN_TOGETHER = 2.0
#: Strips beside the longest are so many times longer than wide.
_STRIP = 5
#: A line is bent where a tenth of it rises by more than this against the axis.
_BENT, _BENT_SHARE = 0.15, 0.9
#: Points that move a line by less than this fraction of its width are left out.
_NEEDLESS = 0.1


@dataclass(frozen=True)
class Midline:
    """The middle of a strip.

    Attributes:
        points: From end to end, shape (n, 2), in metres.
        width: Mean width of the strip, in metres.
        axis: Direction across which it was cut, in radians from the x axis; the points run along it.
    """

    points: Floats
    width: float
    axis: float

    @property
    def length(self) -> float:
        """Metres from end to end along the line."""
        return float(np.hypot(*np.diff(self.points, axis=0).T).sum())


@dataclass
class _Chain:
    """Cuts that follow one another.

    Attributes:
        first: Number of its first cut.
        middles: Middle of each cut.
        last: The cut it goes on from.
    """

    first: int
    last: Interval
    middles: list[float] = field(default_factory=list)


def main_axis(polygon: BaseGeometry) -> float:
    """Direction in which a polygon extends most: that of the largest second moment of its area.

    Args:
        polygon: Polygon in metres.

    Returns:
        Radians from the x axis, -π/2 to π/2.
    """
    middle = polygon.centroid
    xx = yy = xy = 0.0
    for number, ring in enumerate((polygon.exterior, *polygon.interiors)):
        points = shapely.get_coordinates(ring) - (middle.x, middle.y)
        (x, y), (u, v) = points[:-1].T, points[1:].T
        cross = x * v - u * y
        sign = 1.0 if (cross.sum() > 0) == (number == 0) else -1.0  # whichever way the ring runs
        xx += sign * float((cross * (x * x + x * u + u * u)).sum()) / 12
        yy += sign * float((cross * (y * y + y * v + v * v)).sum()) / 12
        xy += sign * float((cross * (x * v + 2 * x * y + 2 * u * v + u * y)).sum()) / 24
    return 0.5 * math.atan2(2 * xy, xx - yy)


def elongation(polygon: BaseGeometry) -> float:
    """How many times longer than wide a strip of the same length and area would be.

    Args:
        polygon: Polygon in metres.

    Returns:
        Length along the main axis, squared, by the area.
    """
    left, _, right, _ = _turned(polygon, main_axis(polygon)).bounds
    return float((right - left) ** 2 / polygon.area)


def midlines(polygon: BaseGeometry, direction: float | None = None) -> list[Midline]:
    """Find the midline of a polygon, or several where it is several strips that have grown together.

    Args:
        polygon: Polygon in metres.
        direction: Radians from the x axis of the cuts' normal; None for the polygon's main axis.

    Returns:
        Midlines; side shoots and the sides of holes are left out, unless they are long for their width.
    """
    angle = main_axis(polygon) if direction is None else direction
    turned = _turned(polygon, angle)
    left, bottom, right, top = turned.bounds
    width = polygon.area / (right - left)
    count = max(1, round(_CUTS_A_WIDTH * (right - left) / width))
    step = (right - left) / count
    at = left + step * (np.arange(count) + 0.5)
    chains = _chains(_cuts(turned, at, (bottom, top)))
    shares = max(1, round(sum(len(chain.middles) for chain in chains) / count))
    longest = max(len(chain.middles) for chain in chains)
    enough = min(longest, _STRIP * _CUTS_A_WIDTH)
    strips = [chain for chain in chains if len(chain.middles) >= enough]
    width /= shares
    lines = [_recut(turned, _line(chain, left, step), width) for chain in strips]
    return [Midline(_simplified(_back(points, angle), width), width, angle) for points in lines]


def _turned(polygon: BaseGeometry, angle: float) -> BaseGeometry:
    """A polygon turned so that a direction becomes the x axis."""
    return shapely.transform(polygon, lambda xy: _back(xy, -angle))


def _back(points: Floats, angle: float) -> Floats:
    cos, sin = math.cos(angle), math.sin(angle)
    return np.asarray(points @ np.array([[cos, sin], [-sin, cos]]), dtype=np.float64)


def _cuts(polygon: BaseGeometry, at: Floats, span: Interval) -> list[list[Interval]]:
    """Where lines across a polygon lie in it, for each line from below."""
    ends = np.empty((len(at), 2, 2))
    ends[:, :, 0], ends[:, :, 1] = at[:, None], (span[0] - 1, span[1] + 1)
    shapely.prepare(polygon)
    parts, owner = shapely.get_parts(shapely.intersection(shapely.linestrings(ends), polygon), return_index=True)
    cuts: list[list[Interval]] = [[] for _ in at]
    for number, (_, low, _, high) in zip(owner.tolist(), shapely.bounds(parts).tolist(), strict=True):
        if high > low:
            cuts[number].append((low, high))
    return [sorted(cut) for cut in cuts]


def _chains(cuts: Sequence[Sequence[Interval]]) -> list[_Chain]:
    """Follow the strips from cut to cut."""
    typical = float(np.median([high - low for cut in cuts for low, high in cut]))
    done: list[_Chain] = []
    growing: list[_Chain] = []
    for number, here in enumerate(cuts):
        going_on: list[_Chain] = []
        for cut in here:
            before = [chain for chain in growing if _shared(chain.last, cut) > 0 and _best(chain, here) == cut]
            if len(before) > 1 and cut[1] - cut[0] >= _GROWN_TOGETHER * typical:
                going_on += before  # each keeps its place
                continue
            # Of several that end in one strip the longest is that strip.
            chain = max(before, key=lambda chain: len(chain.middles), default=_Chain(number, cut))
            chain.last = cut
            going_on.append(chain)
        done += [chain for chain in growing if not any(chain is other for other in going_on)]
        growing = going_on
        for chain in growing:
            chain.middles.append(sum(chain.last) / 2)
    return done + growing


def _shared(first: Interval, second: Interval) -> float:
    return min(first[1], second[1]) - max(first[0], second[0])


def _best(chain: _Chain, cuts: Sequence[Interval]) -> Interval:
    return max(cuts, key=lambda cut: _shared(chain.last, cut))


def _line(chain: _Chain, left: float, step: float) -> Floats:
    """The points of a chain; half a step is added at each end, so that the line is as long as the strip."""
    middles = np.asarray(chain.middles)
    if len(middles) >= _SMOOTHED:
        middles = ndimage.uniform_filter1d(middles, _SMOOTHED, mode='nearest')
    at = left + step * (chain.first + 0.5 + np.arange(len(middles)))
    at = np.concatenate([[at[0] - step / 2], at, [at[-1] + step / 2]])
    return np.column_stack([at, np.concatenate([middles[:1], middles, middles[-1:]])])


def _recut(polygon: BaseGeometry, points: Floats, width: float) -> Floats:
    """Cut a strip across its own line where that is not along the x axis, and end the line where the strip ends."""
    slope = np.abs(np.diff(points[:, 1])) / np.diff(points[:, 0])
    if len(points) < _SMOOTHED or np.quantile(slope, _BENT_SHARE) < _BENT:
        return points
    line = shapely.LineString(points).simplify(_NEEDLESS * width)
    at = np.arange(width, line.length - width / 2, width / _CUTS_A_WIDTH)
    if len(at) < _SMOOTHED:
        return points
    middles, along = _at(line, at, width)
    across = width * np.column_stack([-along[:, 1], along[:, 0]])
    cuts = shapely.intersection(shapely.linestrings(np.stack([middles - across, middles + across], axis=1)), polygon)
    # an empty line counts as one geometry
    single = (shapely.get_num_geometries(cuts) == 1) & ~shapely.is_empty(cuts) & (shapely.length(cuts) < 1.9 * width)
    middles[single] = shapely.get_coordinates(shapely.centroid(cuts[single]))
    middles = ndimage.uniform_filter1d(middles, _SMOOTHED, axis=0, mode='nearest')
    return np.concatenate([[_end(polygon, middles[1::-1], width)], middles, [_end(polygon, middles[-2:], width)]])


def _at(line: shapely.LineString, at: Floats, width: float) -> tuple[Floats, Floats]:
    """Points of a line, with its direction there over some widths."""
    ahead, behind = (
        shapely.get_coordinates(shapely.line_interpolate_point(line, np.clip(at + side * width, 0, line.length)))
        for side in (1, -1)
    )
    along = ahead - behind
    along /= np.hypot(*along.T)[:, None]
    return shapely.get_coordinates(shapely.line_interpolate_point(line, at)), along


def _end(polygon: BaseGeometry, last: Floats, width: float) -> Floats:
    """Where a line that goes on in the direction of its last two points leaves a polygon."""
    along = (last[1] - last[0]) / np.hypot(*(last[1] - last[0]))
    ray = shapely.intersection(shapely.LineString([last[1], last[1] + 3 * width * along]), polygon)
    parts = shapely.get_parts(ray)
    parts = parts[~shapely.is_empty(parts)]
    nearest = parts[np.argmin(shapely.distance(parts, shapely.Point(last[1])))] if len(parts) else None
    return last[1] if nearest is None else np.asarray(shapely.get_coordinates(nearest)[-1], dtype=np.float64)


def _simplified(points: Floats, width: float) -> Floats:
    line = shapely.simplify(shapely.LineString(points), _NEEDLESS * width)
    return np.asarray(shapely.get_coordinates(line), dtype=np.float64)
