"""Midlines of elongated polygons, such as the canopy of a row of vines.

A polygon is cut across its main axis at steps of half its width; the centres of the cuts form its midline. Where two
rows have grown together, the cuts are wider and each line continues straight through. A bent polygon is cut again
across its midline, so that the line is centred up to its ends. A polygon must not turn back along its axis.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy import ndimage
from shapely.geometry.base import BaseGeometry

type Floats = NDArray[np.float64]
type Interval = tuple[float, float]

#: Cuts per width of the polygon along its axis.
_CUTS_PER_WIDTH = 2
#: Number of centres in the moving average that smooths the edges of pixels.
_SMOOTHED = 5
#: Width of a cut, relative to the median, from which it goes through strips that have grown together.
_GROWN_TOGETHER = 2.0
#: Minimum ratio of length to width of strips other than the longest.
_STRIP = 5
#: A line is bent if this quantile of its slopes against the axis exceeds this slope.
_BENT_QUANTILE, _BENT = 0.9, 0.15
#: Tolerance of simplified lines, relative to the width of the strip.
_TOLERANCE = 0.1


@dataclass(frozen=True)
class Midline:
    """Midline of a strip.

    Attributes:
        points: Vertices from end to end, shape (n, 2), in metres.
        width: Mean width of the strip, in metres.
        axis: Direction of the line, in radians from the x axis; the strip was cut across it.
    """

    points: Floats
    width: float
    axis: float

    @property
    def length(self) -> float:
        """Length of the line in metres."""
        return float(np.hypot(*np.diff(self.points, axis=0).T).sum())


@dataclass
class _Chain:
    """Consecutive cuts of one strip.

    Attributes:
        first: Number of its first cut.
        last: The latest cut.
        middles: Centre of each cut.
    """

    first: int
    last: Interval
    middles: list[float] = field(default_factory=list)


def main_axis(polygon: BaseGeometry) -> float:
    """Return the direction of the largest second moment of area of a polygon.

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
        sign = 1.0 if (cross.sum() > 0) == (number == 0) else -1.0  # for either direction of the ring
        xx += sign * float((cross * (x * x + x * u + u * u)).sum()) / 12
        yy += sign * float((cross * (y * y + y * v + v * v)).sum()) / 12
        xy += sign * float((cross * (x * v + 2 * x * y + 2 * u * v + u * y)).sum()) / 24
    return 0.5 * math.atan2(2 * xy, xx - yy)


def elongation(polygon: BaseGeometry) -> float:
    """Return the ratio of length to width of a strip with the length and area of a polygon.

    Args:
        polygon: Polygon in metres.

    Returns:
        Squared length along the main axis, divided by the area.
    """
    left, _, right, _ = _turned(polygon, main_axis(polygon)).bounds
    return float((right - left) ** 2 / polygon.area)


def midlines(polygon: BaseGeometry, direction: float | None = None) -> list[Midline]:
    """Find the midline of a polygon, or several if it consists of strips that have grown together.

    Args:
        polygon: Polygon in metres.
        direction: Direction across which it is cut, in radians from the x axis; None for the main axis.

    Returns:
        Midlines, without short branches and the sides of small holes.
    """
    angle = main_axis(polygon) if direction is None else direction
    turned = _turned(polygon, angle)
    left, bottom, right, top = turned.bounds
    width = polygon.area / (right - left)
    count = max(1, round(_CUTS_PER_WIDTH * (right - left) / width))
    step = (right - left) / count
    at = left + step * (np.arange(count) + 0.5)
    chains = _chains(_cuts(turned, at, (bottom, top)))
    shares = max(1, round(sum(len(chain.middles) for chain in chains) / count))
    longest = max(len(chain.middles) for chain in chains)
    enough = min(longest, _STRIP * _CUTS_PER_WIDTH)
    strips = [chain for chain in chains if len(chain.middles) >= enough]
    width /= shares
    lines = [_recut(turned, _line(chain, left, step), width) for chain in strips]
    return [Midline(_simplified(_rotated(points, angle), width), width, angle) for points in lines]


def _turned(polygon: BaseGeometry, angle: float) -> BaseGeometry:
    """Rotate a polygon so that a direction becomes the x axis."""
    return shapely.transform(polygon, lambda xy: _rotated(xy, -angle))


def _rotated(points: Floats, angle: float) -> Floats:
    cos, sin = math.cos(angle), math.sin(angle)
    return np.asarray(points @ np.array([[cos, sin], [-sin, cos]]), dtype=np.float64)


def _cuts(polygon: BaseGeometry, at: Floats, span: Interval) -> list[list[Interval]]:
    """Return the intervals of lines across a polygon that lie in it, for each line from below."""
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
    """Trace the strips from cut to cut."""
    typical = float(np.median([high - low for cut in cuts for low, high in cut]))
    done: list[_Chain] = []
    growing: list[_Chain] = []
    for number, here in enumerate(cuts):
        continued: list[_Chain] = []
        for cut in here:
            before = [chain for chain in growing if _shared(chain.last, cut) > 0 and _best(chain, here) == cut]
            if len(before) > 1 and cut[1] - cut[0] >= _GROWN_TOGETHER * typical:
                continued += before  # each keeps its centre
                continue
            # If several end in one strip, the longest continues.
            chain = max(before, key=lambda chain: len(chain.middles), default=_Chain(number, cut))
            chain.last = cut
            continued.append(chain)
        done += [chain for chain in growing if not any(chain is other for other in continued)]
        growing = continued
        for chain in growing:
            chain.middles.append(sum(chain.last) / 2)
    return done + growing


def _shared(first: Interval, second: Interval) -> float:
    return min(first[1], second[1]) - max(first[0], second[0])


def _best(chain: _Chain, cuts: Sequence[Interval]) -> Interval:
    return max(cuts, key=lambda cut: _shared(chain.last, cut))


def _line(chain: _Chain, left: float, step: float) -> Floats:
    """Return the points of a chain, extended by half a step at each end to the length of the strip."""
    middles = np.asarray(chain.middles)
    if len(middles) >= _SMOOTHED:
        middles = ndimage.uniform_filter1d(middles, _SMOOTHED, mode='nearest')
    at = left + step * (chain.first + 0.5 + np.arange(len(middles)))
    at = np.concatenate([[at[0] - step / 2], at, [at[-1] + step / 2]])
    return np.column_stack([at, np.concatenate([middles[:1], middles, middles[-1:]])])


def _recut(polygon: BaseGeometry, points: Floats, width: float) -> Floats:
    """Cut a bent strip again across its own line, and end the line where the strip ends."""
    slope = np.abs(np.diff(points[:, 1])) / np.diff(points[:, 0])
    if len(points) < _SMOOTHED or np.quantile(slope, _BENT_QUANTILE) < _BENT:
        return points
    line = shapely.LineString(points).simplify(_TOLERANCE * width)
    at = np.arange(width, line.length - width / 2, width / _CUTS_PER_WIDTH)
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
    """Return points of a line, with its direction there over two widths."""
    ahead, behind = (
        shapely.get_coordinates(shapely.line_interpolate_point(line, np.clip(at + side * width, 0, line.length)))
        for side in (1, -1)
    )
    along = ahead - behind
    along /= np.hypot(*along.T)[:, None]
    return shapely.get_coordinates(shapely.line_interpolate_point(line, at)), along


def _end(polygon: BaseGeometry, last: Floats, width: float) -> Floats:
    """Return where a line, extended in the direction of its last two points, leaves a polygon."""
    along = (last[1] - last[0]) / np.hypot(*(last[1] - last[0]))
    ray = shapely.intersection(shapely.LineString([last[1], last[1] + 3 * width * along]), polygon)
    parts = shapely.get_parts(ray)
    parts = parts[~shapely.is_empty(parts)]
    nearest = parts[np.argmin(shapely.distance(parts, shapely.Point(last[1])))] if len(parts) else None
    return last[1] if nearest is None else np.asarray(shapely.get_coordinates(nearest)[-1], dtype=np.float64)


def _simplified(points: Floats, width: float) -> Floats:
    line = shapely.simplify(shapely.LineString(points), _TOLERANCE * width)
    return np.asarray(shapely.get_coordinates(line), dtype=np.float64)
