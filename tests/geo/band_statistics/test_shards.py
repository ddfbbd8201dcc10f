"""Statistics that were counted in shards are those of a single run, byte by byte."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from torchgeo_msssl.__main__ import main

pytestmark = pytest.mark.usefixtures('own_place')


@pytest.fixture
def scenes(make_scene: Callable[..., str]) -> list[str]:
    """Five scenes of two offsets, which take turns, one without valid pixels."""
    rng = np.random.default_rng(0)
    paths = []
    for number, year in enumerate((2021, 2023, 2021, 2023, 2021)):
        array = rng.gamma(4, 300, (2, 30 + number, 40)).astype(np.uint16) + 1 + 1000 * (year == 2023)
        array[1, : 9 * number] = 0
        paths.append(make_scene(f'T31TF{"ABCDE"[number]}_{year}0601.tif', array, nodata=0, names=('B02', 'B03')))
    return paths


@pytest.mark.parametrize('count', [1, 3, 7])
def test_merged_shards_equal_one_run(scenes: list[str], count: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['statistics', *scenes, '--output', 'one/statistics.yaml']) == 0
    for index in reversed(range(1, count + 1)):
        assert main(['statistics', *scenes, '--output', 'many', '--shard', f'{index}/{count}']) == 0
    assert '--merge' in capsys.readouterr().out
    assert main(['statistics', *scenes, '--output', 'many', '--shard', f'1/{count}']) == 0
    assert f'Already exists: many/statistics.1-of-{count}.npz' in capsys.readouterr().out
    assert main(['statistics', *scenes, '--output', 'many', '--merge']) == 0
    names = {'statistics.yaml', 'statistics.png'}
    assert {path.name for path in Path('many').iterdir()} == names
    for name in names:
        assert (Path('many') / name).read_bytes() == (Path('one') / name).read_bytes()


def test_what_cannot_be_merged(
    scenes: list[str], make_scene: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*more: str) -> str:
        assert main(['statistics', *more]) == 1
        return capsys.readouterr().err.splitlines()[-1]  # behind progress bars

    assert 'merge: there is no statistics.i-of-n.npz' in refused(*scenes, '--merge')
    assert main(['statistics', *scenes, '--shard', '1/2']) == 0
    assert 'merge: shard 2/2 of statistics.yaml is missing' in refused(*scenes, '--merge')
    assert main(['statistics', *scenes, '--shard', '2/2']) == 0
    capsys.readouterr()
    assert 'measured with other scenes, radiometries;' in refused(*scenes[1:], '--merge')
    assert 'measured with other bands, radiometries;' in refused(*scenes, '--merge', '--bands', 'B03')
    assert 'measured with other radiometries;' in refused(*scenes, '--shard', '1/2', '--offset', '0')
    Path('statistics.2-of-2.npz').write_bytes(b'PK')
    assert 'statistics.2-of-2.npz cannot be read' in refused(*scenes, '--merge')
    Path('statistics.1-of-3.npz').touch()
    assert 'holds shards of 2 and 3 parts' in refused(*scenes, '--merge')
    assert 'leave merge or shard out' in refused(*scenes, '--merge', '--shard', '1/2')
    floats = make_scene('floats.tif', np.ones((2, 8, 8), np.float32), names=('B02', 'B03'))
    assert 'shard: expected integers of at most 16 bits' in refused(floats, '--shard', '1/2')
    assert not Path('statistics.yaml').exists()
