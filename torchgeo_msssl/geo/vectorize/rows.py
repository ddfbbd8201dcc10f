"""Rows of plants, joined from the midlines of their pieces.

A short piece, such as a single plant between two gaps, does not show the direction of its row and takes that of long
pieces nearby. Two pieces belong to one row if their ends face each other: they are aligned, the gap is not too long and
no other piece is closer. Pieces are joined end to end, the closest first, so that number, spacing and direction of the
rows need not be known and rows may bend.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from torchgeo_msssl.geo.vectorize.centrelines import Floats, Midline, elongation, midlines

#: Largest angle between the directions of two facing ends, in radians.
_TURN = math.radians(15)
#: Largest lateral offset of two ends: fraction of the row's width, plus metres per metre of the gap.
_OFFSET, _DRIFT = 0.5, 0.05
#: Length of line that determines the direction of an end, in metres.
_REACH = 5.0
#: Minimum ratio of length to width of a piece that shows its direction.
LONG = 6.0
#: Minimum ratio of length to width of a row; shorter ones are single plants.
_ROW = 3.0
#: Distance in metres within which long pieces determine the direction of short ones.
_NEARBY = 10.0
#: Number of ends whose neighbours are searched at a time; among many specks, each has hundreds.
_PORTION = 1024


@dataclass(frozen=True)
class Row:
    """Row of pieces.

    Attributes:
        pieces: Points of each piece, shape (n, 2), in order along the row, all in one direction.
        numbers: Number of the midline of each piece.
        length: Length of the pieces in metres, with breaks too short to be gaps.
        gaps: Length of each gap in metres.
    """

    pieces: list[Floats]
    numbers: list[int]
    length: float
    gaps: list[float]


def row_midlines(polygons: Sequence[BaseGeometry], long: Sequence[Midline] | None = None) -> list[list[Midline]]:
    """Find the midlines of the pieces of rows.

    Args:
        polygons: Pieces, in metres.
        long: Further midlines of long pieces.

    Returns:
        Midlines of each piece; none for a short piece without a long one within 10 m.
    """
    lines: list[list[Midline]] = [midlines(polygon) if elongation(polygon) >= LONG else [] for polygon in polygons]
    known = [*(long or []), *(line for found in lines for line in found)]
    short = [number for number, found in enumerate(lines) if not found]
    directions = _directions(np.array([polygons[number].centroid for number in short], dtype=object), known)
    for number, direction in zip(short, directions, strict=True):
        if np.isfinite(direction):
            lines[number] = midlines(polygons[number], float(direction))
    return lines


def _directions(places: NDArray[np.object_], lines: Sequence[Midline]) -> Floats:
    """Return the mean direction of the lines near each place, in radians; NaN without a line."""
    tree = shapely.STRtree([shapely.LineString(line.points) for line in lines])
    place, line = tree.query(places, predicate='dwithin', distance=_NEARBY)
    away = shapely.distance(places[place], tree.geometries[line])
    chords = np.array([line.points[-1] - line.points[0] for line in lines]).reshape(-1, 2)
    # Angles are doubled, so that opposite directions of a line are the same.
    turn = np.exp(2j * np.arctan2(chords[:, 1], chords[:, 0])) * np.hypot(*chords.T)
    total = np.zeros(len(places), dtype=np.complex128)
    np.add.at(total, place, turn[line] / (1 + away**2))
    return np.where(total == 0, np.nan, np.angle(total) / 2)


def link_rows(
    pieces: Sequence[Midline], groups: Sequence[int], min_gap: float = 0.5, max_gap: float = 5.0
) -> list[Row]:
    """Join pieces to rows.

    Args:
        pieces: Midlines.
        groups: Group of each piece, such as its class; only pieces of one group are joined.
        min_gap: Shortest gap, in metres.
        max_gap: Longest gap, in metres.

    Returns:
        Rows from north to south, at least three times longer than wide.
    """
    if not pieces:
        return []
    ends = np.concatenate([[piece.points[0], piece.points[-1]] for piece in pieces])
    outward = np.concatenate([_outward(piece) for piece in pieces])
    widths = np.repeat([piece.width for piece in pieces], 2)
    partner = _partners(ends, outward, widths, np.repeat(groups, 2), max_gap)
    rows = [_row(pieces, path, ends, min_gap) for path in _paths(partner)]
    long = [row for row in rows if row.length + sum(row.gaps) >= _ROW * pieces[row.numbers[0]].width]
    return sorted(long, key=lambda row: (-row.pieces[0][0, 1], row.pieces[0][0, 0]))


def _outward(piece: Midline) -> list[Floats]:
    """Return the outward unit vectors at the first and the last point of a line."""
    if piece.length < _REACH:  # the direction of so short a line depends on single plants
        axis = np.array([math.cos(piece.axis), math.sin(piece.axis)])
        return [-axis, axis]
    return [_direction(piece.points[::-1]), _direction(piece.points)]


def _direction(points: Floats) -> Floats:
    """Return the unit vector in which a line ends."""
    away = np.hypot(*(points - points[-1]).T)
    far = np.flatnonzero(away >= _REACH)
    vector = points[-1] - (points[far[-1]] if len(far) else points[0])
    return np.asarray(vector / np.hypot(*vector), dtype=np.float64)


def _partners(ends: Floats, outward: Floats, widths: Floats, groups: NDArray[np.int64], max_gap: float) -> list[int]:
    """Return the end that each end is joined to, -1 for none. Piece n has the ends 2n and 2n + 1."""
    tree = shapely.STRtree(shapely.points(ends))
    found = []
    for start in range(0, len(ends), _PORTION):
        first, second = tree.query(tree.geometries[start : start + _PORTION], 'dwithin', max_gap)
        first += start
        keep = (first < second) & (first // 2 != second // 2) & (groups[first] == groups[second])
        keep &= (outward[first] * outward[second]).sum(axis=1) < -math.cos(_TURN)
        found.append(_aligned(ends, outward, widths, first[keep], second[keep]))
    first, second, cost = map(np.concatenate, zip(*found, strict=True))
    order = np.lexsort((second, first, cost))
    partner = [-1] * len(ends)
    row_of = list(range(len(ends) // 2))
    for one, other in zip(first[order].tolist(), second[order].tolist(), strict=True):
        rows = _root(row_of, one // 2), _root(row_of, other // 2)
        if partner[one] < 0 and partner[other] < 0 and rows[0] != rows[1]:
            partner[one], partner[other] = other, one
            row_of[rows[0]] = rows[1]
    return partner


def _aligned(
    ends: Floats, outward: Floats, widths: Floats, first: NDArray[np.int64], second: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """Return the pairs of aligned ends, with the cost of joining them: the gap, plus four times the offset."""
    between = ends[second] - ends[first]
    gap = np.hypot(*between.T)
    width = (widths[first] + widths[second]) / 2
    side = np.maximum(np.abs(_cross(between, outward[first])), np.abs(_cross(between, outward[second])))
    ahead = (between * (outward[first] - outward[second])).sum(axis=1) / 2
    fits = (side <= _OFFSET * width + _DRIFT * gap) & (ahead > -width)
    return first[fits], second[fits], (gap + 4 * side)[fits]


def _cross(a: Floats, b: Floats) -> Floats:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def _root(parents: list[int], number: int) -> int:
    while parents[number] != number:
        parents[number] = parents[parents[number]]
        number = parents[number]
    return number


def _paths(partner: list[int]) -> list[list[int]]:
    """Return the ends at which each row enters its pieces, in order."""
    paths, seen = [], set()
    for start in range(len(partner)):
        if partner[start] >= 0 or start // 2 in seen:
            continue
        path, end = [], start
        while end >= 0:
            path.append(end)
            seen.add(end // 2)
            end = partner[end ^ 1]
        paths.append(path)
    return paths


def _row(pieces: Sequence[Midline], path: list[int], ends: Floats, min_gap: float) -> Row:
    breaks = [float(np.hypot(*(ends[other] - ends[one ^ 1]))) for one, other in pairwise(path)]
    length = sum(pieces[end // 2].length for end in path) + sum(gap for gap in breaks if gap < min_gap)
    points = [pieces[end // 2].points[:: -1 if end % 2 else 1] for end in path]
    return Row(points, [end // 2 for end in path], length, [gap for gap in breaks if gap >= min_gap])
