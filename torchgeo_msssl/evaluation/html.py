"""Pieces of a web page that needs nothing but itself."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import image as pictures
from numpy.typing import NDArray

matplotlib.use('agg')  # pictures go to files; a display need not exist

#: Side of a picture in pixels that shows everything on a large screen.
_WIDEST = 1100


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: What it says, not escaped.
        style: Classes of the style sheet, such as ``number``.
    """

    text: str
    style: str = ''


def page(title: str, parts: Iterable[str]) -> str:
    """Put a page together.

    Args:
        title: Title, not escaped.
        parts: Its parts as HTML.

    Returns:
        The document; its style is in it, and the policy in its head forbids the browser to load anything.
    """
    style = files('torchgeo_msssl.evaluation').joinpath('report.css').read_text(encoding='utf-8')
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    head = [
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<title>{escape(title)}</title>',
        '<link rel="icon" href="data:,">',  # or browsers ask the server for one
        f'<style>\n{style}</style>',
    ]
    lines = ['<!DOCTYPE html>', '<html lang="en">', '<head>', *head, '</head>', '<body>', *parts, '</body>', '</html>']
    return '\n'.join(lines) + '\n'


def table(head: Sequence[str | Cell], rows: Iterable[Sequence[str | Cell]], caption: str) -> str:
    """Write a table that scrolls inside its own box; the first cell of each row is its heading.

    Args:
        head: Names of the columns.
        rows: Cells.
        caption: What the table shows.

    Returns:
        HTML.
    """
    lines = [
        f'<p class="caption">{escape(caption)}</p>',  # not in the table, which may be wider than the screen
        f'<div class="box" tabindex="0" role="region" aria-label="{escape(caption)}">',
        f'<table aria-label="{escape(caption)}">',
        f'<thead><tr>{"".join(_tag("th", name, scope="col") for name in head)}</tr></thead>',
        '<tbody>',
    ]
    for first, *others in rows:
        cells = [_tag('th', first, scope='row'), *(_tag('td', cell) for cell in others)]
        lines.append(f'<tr>{"".join(cells)}</tr>')
    return '\n'.join([*lines, '</tbody></table></div>'])


def _tag(name: str, cell: str | Cell, **attributes: str) -> str:
    cell = Cell(cell) if isinstance(cell, str) else cell
    known = attributes | ({'class': cell.style} if cell.style else {})
    written = ''.join(f' {key}="{escape(value)}"' for key, value in known.items())
    return f'<{name}{written}>{escape(cell.text)}</{name}>'


def definitions(entries: Mapping[str, str]) -> str:
    """Write names with what they stand for.

    Args:
        entries: Text by name, not escaped; empty ones are left out.

    Returns:
        HTML.
    """
    lines = [f'<dt>{escape(name)}</dt><dd>{escape(text)}</dd>' for name, text in entries.items() if text]
    return '\n'.join(['<dl>', *lines, '</dl>'])


def figure(path: Path, alt: str, caption: str = '') -> str:
    """Put a picture into the page itself, no larger than a screen can show.

    Args:
        path: PNG.
        alt: What it shows, for those who cannot see it.
        caption: Text below.

    Returns:
        HTML.
    """
    picture = shrink(trim(pictures.imread(path)), _WIDEST)
    buffer = io.BytesIO()
    pictures.imsave(buffer, picture, format='png')
    data = base64.b64encode(buffer.getvalue()).decode('ascii')
    height, width = picture.shape[:2]
    size = f'width="{width}" height="{height}"'
    below = f'<figcaption>{escape(caption)}</figcaption>' if caption else ''
    return f'<figure><img src="data:image/png;base64,{data}" alt="{escape(alt)}" {size}>{below}</figure>'


def trim(picture: NDArray[np.floating], margin: int = 10) -> NDArray[np.floating]:
    """Cut white borders off.

    Args:
        picture: Values from 0 to 1, shape (height, width, channel).
        margin: Pixels of the border that are left.

    Returns:
        The picture; one that is all white stays as it is.
    """
    drawn = (picture < 1).any(axis=-1)
    if not drawn.any():
        return picture
    cut = []
    for axis in (1, 0):
        places = np.flatnonzero(drawn.any(axis=axis))
        cut.append(slice(max(0, int(places[0]) - margin), int(places[-1]) + 1 + margin))
    return picture[cut[0], cut[1]]


def shrink(picture: NDArray[np.floating], widest: int) -> NDArray[np.floating]:
    """Make a picture smaller by averaging whole blocks of pixels.

    Args:
        picture: Shape (height, width[, channel]).
        widest: No side is longer afterwards, in pixels.

    Returns:
        The picture; up to one block of pixels at the lower and right border is left out.
    """
    factor = -(-max(picture.shape[:2]) // widest)
    if factor == 1:
        return picture
    height, width = (max(1, side // factor) for side in picture.shape[:2])
    cut = picture[: height * factor, : width * factor]
    blocks = cut.reshape(height, cut.shape[0] // height, width, cut.shape[1] // width, -1)
    smaller: NDArray[np.floating] = blocks.mean(axis=(1, 3))
    return smaller.reshape(height, width, *picture.shape[2:])
