"""Figures embedded in a page."""

import base64
import io
from pathlib import Path

import numpy as np
from matplotlib.image import imread, imsave

from torchgeo_msssl.evaluation.page_figures import embed_figure, shrink, trim


def test_shrink_averages_blocks() -> None:
    picture = np.random.default_rng(0).random((70, 91, 4))
    small = shrink(picture, 40)
    assert small.shape == (23, 30, 4)
    np.testing.assert_allclose(small[3, 5], picture[9:12, 15:18].mean(axis=(0, 1)))
    assert shrink(picture, 91) is picture


def test_trim_leaves_a_margin() -> None:
    picture = np.ones((50, 60, 3))
    picture[20:22, 5:40] = 0.5
    assert trim(picture, 3).shape == (8, 41, 3)
    assert trim(np.ones((5, 5, 3))).shape == (5, 5, 3)


def test_figure_is_the_picture_itself(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).random((20, 30, 3))
    imsave(tmp_path / 'a.png', picture)
    figure = embed_figure(tmp_path / 'a.png', 'what it shows', 'below')
    assert (figure.width, figure.height, figure.alt, figure.caption) == (30, 20, 'what it shows', 'below')
    prefix, _, data = figure.data.partition(',')
    assert prefix == 'data:image/png;base64'
    np.testing.assert_allclose(imread(io.BytesIO(base64.b64decode(data))), imread(tmp_path / 'a.png'), atol=1 / 255)
