"""One choice of bands, with one error, for datasets, `chip` and `statistics`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from torchgeo_msssl.commands.statistics import run as run_statistics
from torchgeo_msssl.datasets import Chips, Scenes
from torchgeo_msssl.errors import BandError
from torchgeo_msssl.geo.band_choice import choose_bands, spectral_bands
from torchgeo_msssl.geo.chipping.options import ChipOptions
from torchgeo_msssl.geo.chipping.run import chip_scenes
from torchgeo_msssl.geo.headers import find_scenes

type Maker = Callable[..., str]


@pytest.fixture
def scene(make_scene: Maker) -> str:
    return make_scene('T31TFJ_20210601.tif', np.ones((4, 16, 16), np.uint16), names=['B02', 'B03', 'B08', 'SCL'])


def test_bands_are_chosen_by_name_in_the_order_wanted(scene: str, make_scene: Maker) -> None:
    scenes = find_scenes(scene, None)
    assert choose_bands(scenes, ['B8', 'b02']) == ('B08', 'B02')
    assert choose_bands(scenes, None) == choose_bands(scenes, ()) == ('B02', 'B03', 'B08', 'SCL')
    assert spectral_bands(scenes[0].bands, scenes[0].path) == ('B02', 'B03', 'B08')
    other = make_scene('T31TFJ_20210611.tif', np.ones((2, 16, 16), np.uint16), names=['B03', 'B08'])
    with pytest.raises(BandError, match=r'choose common bands with `bands: \[B03, B08\]`'):
        choose_bands(find_scenes([scene, other], None), None)
    with pytest.raises(BandError, match='none of which is a spectral band'):
        spectral_bands(['SCL'], 'classes.tif')


@pytest.mark.parametrize(
    ('bands', 'message'), [(['B02', 'B2'], 'bands: expected different bands'), (['B02', 'B11'], 'has no band B11')]
)
def test_every_user_raises_the_same_error(scene: str, tmp_path: Path, bands: list[str], message: str) -> None:
    def chip() -> Any:
        return chip_scenes([scene], tmp_path / 'chips', ChipOptions(chip_size=8, bands=tuple(bands)), progress=False)

    def statistics() -> Any:
        return run_statistics([scene, '--output', str(tmp_path / 'statistics.yaml'), '--bands', ','.join(bands)])

    for use in (lambda: Scenes(scene, bands), lambda: Chips(Path(scene).parent, 'all', bands), chip, statistics):
        with pytest.raises(BandError, match=message):
            use()
