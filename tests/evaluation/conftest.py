"""Scenes with labels, for whatever measures encoders."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from affine import Affine

from torchgeo_msssl.geo.handles import close_handles

Make = Callable[..., str]


@pytest.fixture(autouse=True)
def no_handles_left() -> Iterator[None]:
    """Files that are open when the interpreter ends are closed too late to be told of properly."""
    yield
    close_handles()


@pytest.fixture
def tiles(make_scene: Make) -> tuple[list[str], str]:
    """Two tiles that overlap by half, on two dates, and labels of all their ground."""
    rng = np.random.default_rng(0)
    classes = np.kron(rng.integers(1, 3, (8, 12)), np.ones((16, 16), int))  # 128 × 192 pixels
    paths = []
    for date in ('20210601', '20210701'):
        for col in (0, 64):
            image = classes[None, :, col : col + 128] * 500 + rng.integers(0, 100, (2, 128, 128))
            path = f'scenes/T31TFJ_{date}_{col}.tif'
            transform = Affine(10, 0, 600000 + 10 * col, 0, -10, 5000000)
            paths.append(make_scene(path, image.astype(np.uint16), names=('B02', 'B03'), transform=transform))
    return paths, make_scene('labels.tif', classes.astype(np.uint8), nodata=0)
