"""Rows of plants put together from the midlines of their pieces.

A piece that is hardly longer than wide, such as a plant between two gaps, says nothing about the direction of its row;
it takes that of the long pieces nearby. Two pieces belong to one row where the end of one looks at the end of the
other: both lie in one line, the gap is not too long and nothing lies closer. Pieces are joined end to end, the closest
first, so that no number of rows, spacing or direction of a parcel has to be known and rows may bend.
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

__all__ = ('LONG', 'Row', 'link_rows', 'row_midlines')

#: Radians by which the directions of two ends may differ.
_TURN = math.radians(15)
#: How far an end may be off to the side: this share of the row's width, and metres for each metre of the gap.
_ASIDE, _DRIFT = 0.5, 0.05
#: Metres of line from which the direction of an end is taken.
_REACH = 5.0
#: A piece tells its direction if it is at least so many times longer than wide.
LONG = 6.0
#: A row is at least so many times longer than wide, else it is a plant that stands alone.
_ROW = 3.0
#: Metres within which long pieces tell the direction of short ones.
_NEARBY = 10.0
#: Ends whose neighbours are looked for at a time; where there are many specks, each has hundreds.
_PORTION = 1024


@dataclass(frozen=True)
class Row:
    """Pieces in one line.

    Attributes:
        pieces: Points of each piece, shape (n, 2), in order along the row, all in one direction.
        numbers: Which midline each piece is.
        length: Metres of the pieces, with breaks too short to be gaps.
        gaps: Length of each gap, in metres.
    """

    pieces: list[Floats]
    numbers: list[int]
    length: float
    gaps: list[float]


def row_midlines(polygons: Sequence[BaseGeometry], long: Sequence[Midline] | None = None) -> list[list[Midline]]:
    """Find the midlines of the pieces of rows.

    Args:
        polygons: Pieces, in metres.
        long: Midlines of long pieces elsewhere that give short ones their direction too.

    Returns:
        Midlines of each piece; none of one that is not elongated and has no long piece within 10 m.
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
    """Mean direction of the lines near each place, in radians; NaN where there is none."""
    tree = shapely.STRtree([shapely.LineString(line.points) for line in lines])
    place, line = tree.query(places, predicate='dwithin', distance=_NEARBY)
    away = shapely.distance(places[place], tree.geometries[line])
    chords = np.array([line.points[-1] - line.points[0] for line in lines]).reshape(-1, 2)
    # Lines have no sense of direction: their angles are doubled, so that opposite ones are the same.
    turn = np.exp(2j * np.arctan2(chords[:, 1], chords[:, 0])) * np.hypot(*chords.T)
    total = np.zeros(len(places), dtype=np.complex128)
    np.add.at(total, place, turn[line] / (1 + away**2))
    return np.where(total == 0, np.nan, np.angle(total) / 2)


def link_rows(
    pieces: Sequence[Midline], groups: Sequence[int], min_gap: float = 0.5, max_gap: float = 5.0
) -> list[Row]:
    """Put pieces that lie in one line together.

    Args:
        pieces: Midlines.
        groups: What is never put together has different numbers, such as the class; one a piece.
        min_gap: Breaks shorter than this are no gaps, in metres.
        max_gap: Pieces farther apart than this are different rows, in metres.

    Returns:
        Rows from north to south; what is shorter than three times its width is none.
    """
    if not pieces:
        return []
    ends = np.concatenate([[piece.points[0], piece.points[-1]] for piece in pieces])
    looks = np.concatenate([_looks(piece) for piece in pieces])
    widths = np.repeat([piece.width for piece in pieces], 2)
    partner = _partners(ends, looks, widths, np.repeat(groups, 2), max_gap)
    rows = [_row(pieces, path, ends, min_gap) for path in _paths(partner)]
    long = [row for row in rows if row.length + sum(row.gaps) >= _ROW * pieces[row.numbers[0]].width]
    return sorted(long, key=lambda row: (-row.pieces[0][0, 1], row.pieces[0][0, 0]))


def _looks(piece: Midline) -> list[Floats]:
    """Unit vectors in which a line leaves at its first and its last point."""
    if piece.length < _REACH:  # a plant more at one side would turn so short a line
        axis = np.array([math.cos(piece.axis), math.sin(piece.axis)])
        return [-axis, axis]
    return [_look(piece.points[::-1]), _look(piece.points)]


def _look(points: Floats) -> Floats:
    away = np.hypot(*(points - points[-1]).T)
    far = np.flatnonzero(away >= _REACH)
    vector = points[-1] - (points[far[-1]] if len(far) else points[0])
    return np.asarray(vector / np.hypot(*vector), dtype=np.float64)


def _partners(ends: Floats, looks: Floats, widths: Floats, groups: NDArray[np.int64], max_gap: float) -> list[int]:
    """The end that each end is joined to, -1 for none. Ends 2n and 2n + 1 are those of piece n."""
    tree = shapely.STRtree(shapely.points(ends))
    found = []
    for start in range(0, len(ends), _PORTION):
        first, second = tree.query(tree.geometries[start : start + _PORTION], 'dwithin', max_gap)
        first += start
        keep = (first < second) & (first // 2 != second // 2) & (groups[first] == groups[second])
        keep &= (looks[first] * looks[second]).sum(axis=1) < -math.cos(_TURN)
        found.append(_fitting(ends, looks, widths, first[keep], second[keep]))
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


def _fitting(
    ends: Floats, looks: Floats, widths: Floats, first: NDArray[np.int64], second: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """Pairs of ends that lie in one line, with how far they are from each other, above all to the side."""
    between = ends[second] - ends[first]
    gap = np.hypot(*between.T)
    width = (widths[first] + widths[second]) / 2
    side = np.maximum(np.abs(_cross(between, looks[first])), np.abs(_cross(between, looks[second])))
    ahead = (between * (looks[first] - looks[second])).sum(axis=1) / 2
    fits = (side <= _ASIDE * width + _DRIFT * gap) & (ahead > -width)
    return first[fits], second[fits], (gap + 4 * side)[fits]


def _cross(a: Floats, b: Floats) -> Floats:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def _root(parents: list[int], number: int) -> int:
    while parents[number] != number:
        parents[number] = parents[parents[number]]
        number = parents[number]
    return number


def _paths(partner: list[int]) -> list[list[int]]:
    """The ends at which each row enters its pieces, in order."""
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
