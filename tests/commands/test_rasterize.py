"""``rasterize``: a mask from a command line, and every wrong input refused in one sentence."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from shapely.geometry import LineString, Point, box

from tests.geo.drawings import X, Y, save, square
from tests.real_data import DATA
from torchgeo_msssl.__main__ import main
from torchgeo_msssl.commands import run
from torchgeo_msssl.geo.open_datasets import close_datasets

type MakeScene = Callable[..., str]


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    close_datasets()


@pytest.fixture
def scene(make_scene: MakeScene) -> str:
    return make_scene('scene.tif', np.ones((3, 40, 60), dtype=np.uint16), res=1.0)


@pytest.fixture
def drawn(tmp_path: Path) -> str:
    shapes = [square(2, 2, 10), square(8, 2, 10), square(30, 20, 5)]
    path = save(tmp_path / 'drawn.gpkg', shapes, layer='crops', kind=['vine', 'grass', 'vine'])
    save(tmp_path / 'drawn.gpkg', [square(0, 0, 30)], layer='blocks')
    return path


def read(path: Path) -> Any:
    with rasterio.open(path) as dataset:
        return dataset.read(1)


def test_classes_priority_extent_and_borders(
    tmp_path: Path, scene: str, drawn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / 'mask.tif'
    command = ['rasterize', drawn, '--like', scene, '--output', str(out), '--layer', 'crops', '--column', 'kind']
    command += ['--class_names', 'background,vine,grass', '--priority', 'vine, grass']
    assert main(command) == 0
    assert np.bincount(read(out).ravel(), minlength=3).tolist() == [2400 - 160 - 25, 125, 60]
    said = capsys.readouterr().out
    assert '3 geometries' in said
    assert 'vine (1): 125 pixels, 5.21%' in said
    assert f'Wrote {out}' in said

    assert main(command) == 1  # it is there
    assert '--overwrite' in capsys.readouterr().err
    more = ['--overwrite', '--extent', 'blocks', '--ignore-index', '9', '--boundary-ignore', '1']
    assert main([*command, *more]) == 0
    mask = read(out)
    assert set(np.unique(mask)) == {0, 1, 2, 9}
    assert (mask[:, 30:] == 9).all()
    assert mask[7, [0, 1, 2, 3, 10, 11, 12, 13, 17, 18, 19]].tolist() == [0, 9, 9, 1, 1, 9, 9, 2, 9, 9, 0]
    choice = ['--overwrite', '--class-names', 'grass=grass', '--background', 'true']
    assert main([*command[:-4], *choice]) == 0
    assert np.bincount(read(out).ravel()).tolist() == [2400 - 100, 100]


def test_rows_of_another_crs_get_their_width(tmp_path: Path, scene: str) -> None:
    rows = gpd.GeoSeries([LineString([(X + 5, Y - y), (X + 45, Y - y)]) for y in (5.5, 15.5)], crs='EPSG:32631')
    path = save(tmp_path / 'rows.geojson', list(rows.to_crs('EPSG:4326')), crs='EPSG:4326')
    out = tmp_path / 'rows.tif'
    assert main(['rasterize', path, '--like', scene, '--output', str(out), '--buffer', '1.5']) == 0
    assert int(read(out).sum()) == pytest.approx(2 * 40 * 3, rel=0.03)
    assert (
        main(
            ['rasterize', path, '--like', scene, '--output', str(out), '--buffer', '0.25', '--coverage', '--overwrite']
        )
        == 0
    )
    assert read(out).sum() == pytest.approx(2 * 40 * 0.5, rel=0.02)
    assert main(['rasterize', path, '--like', scene, '--output', str(out), '--all-touched', '--overwrite']) == 0
    assert set(np.flatnonzero(read(out).any(axis=1))) == {5, 15}


def test_what_does_not_fit_is_refused_in_one_sentence(
    tmp_path: Path, scene: str, drawn: str, make_scene: MakeScene, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = make_scene('bare.tif', np.ones((5, 5), dtype=np.uint8), crs=None)
    nowhere = save(tmp_path / 'nowhere.shp', [square(0, 0, 5)], crs=None)
    far = save(tmp_path / 'far.gpkg', [box(X + 900, Y, X + 910, Y + 9)])
    points = save(tmp_path / 'points.gpkg', [Point(X + 3, Y - 3)])
    empty = str(tmp_path / 'empty.geojson')
    Path(empty).write_text('{"type": "FeatureCollection", "features": []}')
    crops = ['--layer', 'crops', '--column', 'kind']
    refused = [
        (drawn, bare, [], 'bare.tif: has no coordinate reference system'),
        (nowhere, scene, [], 'nowhere.shp: has no coordinate reference system'),
        (far, scene, [], 'far.gpkg (drawn in EPSG:32631) does not touch'),
        (points, scene, [], 'cover no ground'),
        (empty, scene, [], 'is empty'),
        (drawn, scene, [], 'has 2 layers (crops, blocks)'),
        (drawn, scene, ['--layer', 'crops', '--column', 'sort'], "no column 'sort'; it has kind"),
        (drawn, scene, crops, '--class_names=\'["background", "grass", "vine"]\''),
        (
            drawn,
            scene,
            [*crops, '--class_names', 'ground,vine'],
            'holds grass, which the classes (ground, vine) do not',
        ),
        (
            drawn,
            scene,
            [*crops, '--class_names', 'vine=300'],
            'holds grass, vine, and none of the values of class_names',
        ),
        (drawn, scene, ['--layer', 'blocks', '--extent', far], 'far.gpkg (drawn in EPSG:32631) does not touch'),
        (drawn, scene, ['--layer', 'blocks', '--extent', 'none'], "extent: 'none' is neither a file nor a layer"),
        (drawn, scene, ['--layer', 'blocks', '--coverage', '--all-touched'], 'to which all_touched does not apply'),
        (str(tmp_path / 'none.gpkg'), scene, [], 'no vector file'),
        (drawn, str(tmp_path / 'none.tif'), ['--layer', 'blocks'], 'no raster file'),
    ]
    out = tmp_path / 'mask.tif'
    for vector, like, more, sentence in refused:
        assert main(['rasterize', vector, '--like', like, '--output', str(out), *more]) == 1, sentence
        said = capsys.readouterr().err.strip()
        assert sentence in said
        assert said.count('error:') == 1
    assert main(['rasterize', drawn, '--like', scene, '--output', scene, '--overwrite', '--layer', 'crops']) == 1
    assert 'is an input too' in capsys.readouterr().err
    assert not out.exists()


def test_an_interrupted_run_leaves_nothing(
    tmp_path: Path, scene: str, drawn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr('torchgeo_msssl.geo.rasterize._burn', interrupted)
    out = str(tmp_path / 'out' / 'mask.tif')
    with pytest.raises(KeyboardInterrupt):
        run(['rasterize', drawn, '--like', scene, '--output', out, '--layer', 'crops'])
    assert list((tmp_path / 'out').iterdir()) == []


@pytest.mark.skipif(not DATA.is_dir(), reason='no real data next to the repository')
def test_aerial_vineyards_become_their_mask(tmp_path: Path) -> None:
    folder = DATA / 'vineyard_aerial'
    out = tmp_path / 'mask.tif'
    command = ['rasterize', str(folder / 'aerial0_vineyards.gpkg'), '--like', str(folder / 'aerial0.tif')]
    assert main([*command, '--output', str(out), '--column', 'class', '--class_names', 'background,vineyard']) == 0
    np.testing.assert_array_equal(read(out), read(folder / 'aerial0_mask.tif'))


@pytest.mark.skipif(not DATA.is_dir(), reason='no real data next to the repository')
def test_demmin_fields_and_plots(tmp_path: Path) -> None:
    folder = DATA / 's2_demmin_fields'
    like = ['--like', str(folder / 'sentinel2_fields.tif'), '--output']
    fields = ['rasterize', str(folder / 'fields.gpkg'), *like, str(tmp_path / 'fields.tif')]
    assert main([*fields, '--column', 'desc', '--class_names', 'background,Field 1,Field 2']) == 0
    plots = ['rasterize', str(folder / 'esus.gpkg'), *like, str(tmp_path / 'plots.tif'), '--buffer', '15']
    assert main(plots) == 0
    inside = read(tmp_path / 'fields.tif')[read(tmp_path / 'plots.tif') == 1]
    assert (inside > 0).mean() > 0.9  # the plots were sampled in the fields


def test_one_mask_per_scene_in_shards(
    tmp_path: Path, drawn: str, make_scene: MakeScene, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in 'abc':
        make_scene(f'scenes/{name}.tif', np.ones((1, 30, 40), np.uint8), res=1.0)
    command = ['rasterize', drawn, '--layer', 'crops', '--like', str(tmp_path / 'scenes')]
    assert main([*command, '--output', str(tmp_path / 'one')]) == 0
    for shard in ('2/2', '1/2'):
        assert main([*command, '--output', str(tmp_path / 'many'), '--shard', shard]) == 0
    one, many = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ('one', 'many'))
    assert sorted(one) == ['a.tif', 'b.tif', 'c.tif']
    assert one == many
    assert main([*command, '--output', str(tmp_path / 'many'), '--shard', '1/2']) == 1
    assert 'a.tif exists; add --overwrite' in capsys.readouterr().err
    assert main([*command, '--output', str(tmp_path / 'more'), '--shard', '1/9']) == 0
    assert 'none for shard 1/9' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('more', 'message'),
    [
        (['--output', 'mask.tif', '--shard', '1/2'], 'shard: mask.tif is one file'),
        (['--output', 'masks', '--shard', '3/2'], 'shard: expected i/n'),
        (['--output', 'mask.png'], 'expected the path of a GeoTIFF (.tif) or a folder'),
    ],
)
def test_outputs_that_are_refused(
    scene: str, drawn: str, more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(['rasterize', drawn, '--like', scene, *more]) == 1
    assert message in capsys.readouterr().err
