"""``doctor`` prints its findings in groups, and its exit status tells whether something is wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasterio.errors import RasterioError

from tests.real_data import DATA
from torchgeo_msssl.__main__ import main
from torchgeo_msssl.geo.open_datasets import close_datasets

TILES = {'tiled': True, 'blockxsize': 256, 'blockysize': 256}
NAMES = ('red', 'green', 'blue')

pytestmark = pytest.mark.usefixtures('own_place')


def picture(frame: bool = False) -> np.ndarray:
    array = np.random.default_rng(0).integers(20, 250, (3, 200, 300)).astype('uint8')
    array[:, : 40 if frame else 0] = 0
    return array


def test_no_problems(make_scene, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['doctor', make_scene('a.tif', picture(), names=NAMES, **TILES), '--quick']) == 0
    assert capsys.readouterr().out.strip() == 'Checked 1 file(s): no problems found.'


def test_what_is_wrong_comes_first(make_scene, capsys: pytest.CaptureFixture[str]) -> None:
    framed = make_scene('s/a.tif', picture(frame=True), names=NAMES, **TILES)
    make_scene('s/b.tif', picture(), **TILES)
    assert main(['doctor', 's', '--quick', '--json', 'found.json']) == 1
    printed = capsys.readouterr().out
    assert (
        printed.index('ERRORS')
        < printed.index('[frame_without_nodata]')
        < printed.index('NOTES')
        < printed.index('[unnamed')
    )
    assert 'rio edit-info --nodata 0 s/a.tif' in printed
    assert 'Wrote found.json' in printed
    content = json.loads(Path('found.json').read_text())
    assert content['files'] == ['s/a.tif', 's/b.tif']
    assert content['findings'][0]['severity'] == 'error'
    with rasterio.open(framed, 'r+') as dataset:
        dataset.nodata = 0
    close_datasets()
    assert main(['doctor', 's', '--quick']) == 0  # notes alone


def test_many_files_of_one_topic_are_cut_short(make_scene, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(7):
        make_scene(f's/{i}.tif', picture(), **TILES)
    assert main(['doctor', 's', '--quick']) == 0
    printed = capsys.readouterr().out
    assert printed.count('--description NAME') == 5
    assert '… and 2 more (--json FILE writes all of them)' in printed


def test_rewriting(make_scene, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_scene('a b.tif', picture(), names=NAMES)
    assert main(['doctor', path, '--rewrite', 'out.tif', '--scale', '0.004', '--interleave', 'band']) == 0
    assert 'Wrote 1 file(s) to out.tif' in capsys.readouterr().out
    with rasterio.open('out.tif') as dataset:
        assert dataset.scales == (0.004,) * 3
        assert dataset.profile['interleave'] == 'band'
        np.testing.assert_array_equal(dataset.read(), picture())


def test_rewriting_a_folder_resumes(make_scene, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ('s/a.tif', 's/b.tif'):
        make_scene(name, picture(), names=NAMES)
    assert main(['doctor', 's/a.tif', '--rewrite', 'out']) == 0
    first = Path('out/a.tif').stat().st_mtime_ns
    capsys.readouterr()
    assert main(['doctor', 's', '--rewrite', 'out']) == 0
    printed = capsys.readouterr().out
    assert 'Skipped 1 file(s) that exist' in printed
    assert 'Wrote 1 file(s) to out' in printed
    assert Path('out/a.tif').stat().st_mtime_ns == first
    with rasterio.open('out/b.tif') as dataset:
        assert dataset.descriptions == NAMES
    os.utime('s/b.tif', ns=(2 * first, 2 * first))  # another scene has come in its place
    assert main(['doctor', 's', '--rewrite', 'out']) == 1
    assert 'out/b.tif exists; add --overwrite' in capsys.readouterr().err
    assert main(['doctor', 's', '--rewrite', 'out', '--overwrite']) == 0
    assert 'Wrote 2 file(s) to out' in capsys.readouterr().out
    make_scene('s/deep/a.tif', picture(), names=NAMES)
    assert main(['doctor', 's', '--rewrite', 'out']) == 1
    assert 'out/a.tif would be written for two files' in capsys.readouterr().err


def test_rewriting_does_the_others_if_one_is_damaged(
    make_scene, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [make_scene(f's/{name}.tif', picture(), names=NAMES, **TILES) for name in 'abc']
    Path(paths[0]).write_bytes(Path(paths[0]).read_bytes()[:50_000])
    assert main(['doctor', 's', '--rewrite', 'out']) == 1
    printed = capsys.readouterr()
    assert 'Wrote 2 file(s) to out' in printed.out
    (sentence,) = [line for line in printed.err.splitlines() if line.startswith('error: ')]
    assert 's/a.tif is damaged (at least ' in sentence
    assert sorted(os.listdir('out')) == ['b.tif', 'c.tif']

    def full(*args: object, **options: object) -> None:
        raise RasterioError('No space left on device')

    monkeypatch.setattr(rasterio.shutil, 'copy', full)
    assert main(['doctor', 's', '--rewrite', 'full']) == 1
    assert main(['doctor', *paths[1:], '--rewrite', 'full']) == 1
    printed = capsys.readouterr()
    assert 'Wrote' not in printed.out
    assert printed.err.count('full/b.tif cannot be written (No space left on device)') == 2
    assert 'c.tif' not in printed.err


def test_failures_are_one_sentence(make_scene, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = (make_scene(name, picture(), names=NAMES) for name in ('a.tif', 'b.tif'))
    for arguments, printed in (
        (['nowhere'], 'no raster file'),
        ([a, b, '--rewrite', 'c.tif'], 'c.tif is one file for 2 scenes; give a folder'),
        ([a, '--scale', '2'], 'only used with --rewrite'),
        ([a, '--rewrite', b], 'b.tif exists; add --overwrite'),
        ([a, '--rewrite', a], 'is the source itself'),
        ([a, '--sensor', 'eye'], "unknown sensor 'eye'"),
    ):
        assert main(['doctor', *arguments]) == 1
        err = capsys.readouterr().err.strip().splitlines()[-1]
        assert err.startswith('error: ')
        assert printed in err


def test_starts_without_torch() -> None:
    code = (
        'import sys; from torchgeo_msssl.commands import doctor; '
        'sys.exit(any(name in sys.modules for name in ("torch", "lightning", "torchgeo", "matplotlib")))'
    )
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason='real data are not at hand')
def test_real_scenes_have_known_findings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['doctor', str(DATA), '--quick']) == 1  # masks lie next to scenes
    printed = capsys.readouterr().out
    for topic in ('labels_among_scenes', 'degrees', 'not_finite', 'unnamed_bands', 'mixed_bands'):
        assert f'[{topic}]' in printed
    assert 'frame' not in printed
    guessed = printed.partition('[era_unknown]')[2].partition('[')[0]
    assert 'lahinch' in guessed  # dates of 2017 say nothing about reprocessing
    assert 'demmin' not in guessed  # the fields are darker than an offset would leave them
