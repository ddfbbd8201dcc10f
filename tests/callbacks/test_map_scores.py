"""The test of a task against the map that ``predict`` writes."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger
from numpy.typing import NDArray
from rasterio.features import rasterize

from torchgeo_msssl.callbacks import MapScores, PixelBaselines
from torchgeo_msssl.callbacks.map_scores import _shared
from torchgeo_msssl.contract import MappedData
from torchgeo_msssl.datamodules import SegmentationDataModule
from torchgeo_msssl.prediction.ground_map import ClassTiles
from torchgeo_msssl.prediction.predict import MapSettings, map_scenes
from torchgeo_msssl.tasks import TextureClassifier

QUIET: dict[str, Any] = {'enable_progress_bar': False, 'enable_model_summary': False, 'enable_checkpointing': False}


@pytest.fixture
def vineyard(tmp_path: Path, make_scene: Any) -> dict[str, Any]:
    """Two overlapping scenes with a nodata corner, and polygons whose edges cross blocks and windows.

    No pixel centre lies on the edge of a block, which would be in either, at pixels of 5 and of 8 m.
    """
    rng = np.random.default_rng(0)
    shapes = [shapely.Point(x, y).buffer(25) for x, y in rng.uniform((0, -450), (700, 0), (60, 2))]
    vines = gpd.GeoDataFrame(
        {'kind': ['vine'] * 60},
        geometry=[shapely.affinity.translate(s, 600000, 5000000) for s in shapes],
        crs='EPSG:32631',
    )
    vines.to_file(tmp_path / 'vines.gpkg')
    paths = []
    for number, left in enumerate((600000, 600320)):
        transform = rasterio.Affine(5, 0, left, 0, -5, 5000000)
        inside = rasterize(vines.geometry, (90, 83), transform=transform)
        image = rng.normal(1000, 200, (2, 90, 83)) + 250 * inside
        image[:, :20, :20] = 0
        paths.append(
            make_scene(f'{number}.tif', image.astype(np.uint16), names=('red', 'nir'), transform=transform, nodata=0)
        )
    return {'paths': paths, 'labels': str(tmp_path / 'vines.gpkg'), 'class_names': ['background', 'vine']}


def fitted(vineyard: dict[str, Any], folder: Path, **options: Any) -> tuple[TextureClassifier, Trainer, Any]:
    seed_everything(0)
    data = SegmentationDataModule(**vineyard, chip_size=12, block_size=26, batch_size=2, chips_per_epoch=8, **options)
    task = TextureClassifier(in_channels=2, classifier='logistic', max_pixels=500)
    logger = CSVLogger(folder, 'test')
    trainer = Trainer(logger=logger, accelerator='cpu', max_epochs=1, limit_val_batches=0, **QUIET)
    trainer.fit(task, datamodule=data)
    trainer.save_checkpoint(folder / 'last.ckpt')
    return task, trainer, data


def score_by_hand(vineyard: dict[str, Any], maps: Path, region: shapely.Geometry) -> NDArray[np.int64]:
    """Count (label, prediction) of the pixels of written maps whose centres are in a region."""
    vines, counts = gpd.read_file(vineyard['labels']).geometry, np.zeros((2, 2), np.int64)
    for path in vineyard['paths']:
        with rasterio.open(maps / Path(path).name) as dataset:
            classes, transform = dataset.read(1), dataset.transform
        label = rasterize(vines, classes.shape, transform=transform)
        rows, cols = np.indices(classes.shape) + 0.5
        inside = shapely.contains_xy(region, *(transform @ (cols, rows)))
        for pair in np.ndindex(2, 2):
            counts[pair] += ((label == pair[0]) & (classes == pair[1]) & inside).sum()
    return counts


@pytest.mark.parametrize(
    ('blend', 'res'),
    [('auto', None), *(pytest.param(*one, marks=pytest.mark.slow) for one in (('hann', None), ('auto', 8.0)))],
)
def test_a_test_scores_the_map_that_predict_writes(
    vineyard: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blend: Any, res: float | None
) -> None:
    # the default window of 512 pixels would be one for each scene
    settings = MapSettings(blend=blend, window=96 if blend == 'auto' else 32, output=str(tmp_path / 'maps'))
    monkeypatch.setattr('torchgeo_msssl.prediction.predict.MapSettings', lambda: settings)
    task, trainer, data = fitted(vineyard, tmp_path, res=res)
    trainer.callbacks.append(MapScores())  # type: ignore[attr-defined]
    if blend == 'hann':
        trainer.callbacks.append(PixelBaselines(max_pixels=500, max_test_pixels=10**9))  # type: ignore[attr-defined]
    trainer.test(task, datamodule=data, verbose=False)
    map_scenes(task, vineyard['paths'], tmp_path / 'last.ckpt', settings, res=res)
    expected = score_by_hand(vineyard, tmp_path / 'maps', data.regions['test'])
    assert expected.min() > 0
    np.testing.assert_array_equal(task.confusion.numpy(), expected)
    report = json.loads(Path(trainer.loggers[0].log_dir or '', 'metrics_test.json').read_text())
    assert report['pixels'] == expected.sum()
    assert all(baseline['pixels'] == expected.sum() for baseline in report.get('baselines', {}).values())
    assert ('baselines' in report) == (blend == 'hann')
    assert task.maps is None


def test_ranks_share_the_scenes() -> None:
    """Each rank maps every other scene and gets the maps of the others."""
    parts = [{0: ClassTiles(), 2: ClassTiles()}, {1: ClassTiles()}]

    class Strategy:
        def broadcast(self, own: Any, src: int) -> Any:
            return parts[src]

    for rank in (0, 1):
        trainer = SimpleNamespace(world_size=2, global_rank=rank, strategy=Strategy())
        maps = _shared(trainer, parts[rank])  # type: ignore[arg-type]
        assert maps == parts[0] | parts[1]


def test_chips_of_a_folder_have_no_map(tmp_path: Path) -> None:
    for part in ('train', 'val', 'test'):
        for kind in ('images', 'masks'):
            (tmp_path / part / kind).mkdir(parents=True)
            np.save(tmp_path / part / kind / 'a.npy', np.ones((2, 8, 8) if kind == 'images' else (8, 8), np.uint8))
    data = SegmentationDataModule(str(tmp_path), class_names=['soil', 'vine'])
    assert isinstance(data, MappedData)
    assert data.mapped_ground is None
