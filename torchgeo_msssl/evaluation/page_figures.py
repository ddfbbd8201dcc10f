"""Figures that are embedded in a web page."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import image as pictures
from numpy.typing import NDArray

matplotlib.use('agg')  # figures are written to files, without a display

#: Maximum side of a picture in pixels.
_WIDEST = 1100


@dataclass(frozen=True)
class PageFigure:
    """Figure of a web page.

    Attributes:
        data: The picture as a ``data:`` URL.
        alt: Description for readers who cannot see it.
        caption: Text below the picture.
        width: Width in pixels.
        height: Height in pixels.
    """

    data: str
    alt: str
    caption: str
    width: int
    height: int


def embed_figure(path: Path, alt: str, caption: str) -> PageFigure:
    """Read a picture to embed in a page, no larger than a screen shows.

    Args:
        path: PNG.
        alt: Description for readers who cannot see it.
        caption: Text below the picture.

    Returns:
        The figure.
    """
    picture = shrink(trim(pictures.imread(path)), _WIDEST)
    buffer = io.BytesIO()
    pictures.imsave(buffer, picture, format='png')
    data = base64.b64encode(buffer.getvalue()).decode('ascii')
    height, width = picture.shape[:2]
    return PageFigure(f'data:image/png;base64,{data}', alt, caption, width, height)


def trim(picture: NDArray[np.floating], margin: int = 10) -> NDArray[np.floating]:
    """Crop white borders.

    Args:
        picture: Values from 0 to 1, shape (height, width, channel).
        margin: Width of the border to keep, in pixels.

    Returns:
        The cropped picture; one that is all white is returned unchanged.
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
    """Reduce a picture by averaging whole blocks of pixels.

    Args:
        picture: Shape (height, width[, channel]).
        widest: Maximum side of the result in pixels.

    Returns:
        The picture; up to one block of pixels at the lower and right border is cut off.
    """
    factor = -(-max(picture.shape[:2]) // widest)
    if factor == 1:
        return picture
    height, width = (max(1, side // factor) for side in picture.shape[:2])
    cut = picture[: height * factor, : width * factor]
    blocks = cut.reshape(height, cut.shape[0] // height, width, cut.shape[1] // width, -1)
    smaller: NDArray[np.floating] = blocks.mean(axis=(1, 3))
    return smaller.reshape(height, width, *picture.shape[2:])
