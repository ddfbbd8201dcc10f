"""A recommendation that really trains, on a small sample area."""

import json
import shlex
import sys
from pathlib import Path

import pytest
import rasterio

from torchgeo_msssl.__main__ import main
from torchgeo_msssl.commands.recommend import read_recommendation
from torchgeo_msssl.commands.study import run_command
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.evaluation.study.recommend import Recommender
from torchgeo_msssl.evaluation.study.run import run_pending
from torchgeo_msssl.geo.open_datasets import close_datasets
from torchgeo_msssl.geo.sample import write_sample_area

CONFIG = str(Path(__file__).parents[2] / 'configs' / 'recommend_vines.yaml')


def test_options_reach_candidates_and_pretrainings() -> None:
    options = read_recommendation(
        [
            *('--config', CONFIG, '--weights', 'a.safetensors', 'runs/b.ckpt', '--seeds', '4,5'),
            *('--data.paths', 'ortho.tif', '--model.lr', '0.1', '--pretraining.trainer.max_epochs', '3'),
        ]
    )
    study = options.study(['split.geojson'])
    assert [entry.name for entry in study.initialisations[-2:]] == ['from a', 'from b']
    assert (study.part, study.seeds, study.regions) == ('val', [4, 5], ['split.geojson'])
    assert (study.options['data.paths'], study.options['model.lr']) == ('ortho.tif', '0.1')
    (pretraining,) = [entry.pretraining for entry in study.initialisations if entry.pretraining]
    assert (pretraining.options['data.paths'], pretraining.options['trainer.max_epochs']) == ('ortho.tif', '3')
    assert 'model.lr' not in pretraining.options
    with pytest.raises(ConfigurationError, match='jobs'):
        read_recommendation(['--config', CONFIG, '--jobs', '0'])


@pytest.mark.slow
def test_the_recommended_model_maps_a_scene(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sample_area(tmp_path / 'sample', scale=0.25)
    close_datasets()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', ['torchgeo_msssl'])
    arguments = [
        *('--config', CONFIG, '--output', 'out', '--seeds', '[0]', '--data.sample_dir', 'sample'),
        *('--data.chip_size', '32', '--data.block_size', '64', '--data.batch_size', '4'),
        *('--data.chips_per_epoch', '4', '--trainer.max_epochs', '1', '--trainer.limit_val_batches', '2'),
        *('--trainer.limit_test_batches', '2', '--candidates', '[{name: random}]'),
    ]
    recommender = Recommender(read_recommendation(arguments), run_command)
    run_pending(recommender.study, recommender.cells, run_command)
    capsys.readouterr()
    recommender.conclude()
    shown = capsys.readouterr().out
    assert 'random is the only candidate.' in shown
    report = json.loads(Path('out/recommendation.json').read_text())
    assert 0 <= report['test']['test_mean_iou'] <= 1
    assert (recommender.folder / 'checkpoints' / 'last.ckpt').is_file()

    command = shlex.split(shown.rpartition('Next: ')[2])[3:]
    assert main(command) == 0
    with rasterio.open(f'predictions/{Path(command[-1]).stem}.tif') as found, rasterio.open(command[-1]) as scene:
        assert (found.shape, found.transform) == (scene.shape, scene.transform)
