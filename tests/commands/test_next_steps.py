"""The commands that a run prints at its end."""

import shlex
from pathlib import Path

import pytest

from torchgeo_msssl.commands.next_steps import after_pretraining, after_training
from torchgeo_msssl.commands.trainer_options import spell_trainer_options

CONFIGS = Path(__file__).parents[2] / 'configs'
PROGRAM = 'python -m torchgeo_msssl '
ENCODER = Path('runs/x/version_0/encoder.safetensors')


def test_after_a_pretraining_on_the_sample_area(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CONFIGS.parent)
    commands = after_pretraining(['fit', '--config', 'configs/simclr_s2.yaml', '--trainer.max_steps', '3'], ENCODER)
    assert commands == [
        f'{PROGRAM}fit --config configs/landcover_l1.yaml --model.weights {ENCODER}',
        f'{PROGRAM}probe --config configs/probe_s2.yaml --encoders {ENCODER}',
    ]


def test_after_a_pretraining_on_own_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CONFIGS.parent)
    given = ['fit', '-c', 'configs/fastsiam_drone.yaml', '--data.paths', 'my flights/*.tif', '--data.chip_size=32']
    (command,) = after_pretraining([*given, '--data.sensor', 'rgbn'], ENCODER)
    assert command == (
        f'{PROGRAM}fit --config configs/vineseg_drone.yaml --model.weights {ENCODER} '
        "--data.paths 'my flights/*.tif' --data.sensor rgbn --data.labels LABELS"
    )


@pytest.mark.parametrize('given', ['fastsiam_s2', 'mine/fastsiam_s2.yaml'])
def test_shipped_configurations_are_named(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert after_pretraining(['fit', '--config', given], ENCODER) == [
        f'{PROGRAM}fit --config landcover_l1 --model.weights {ENCODER}',
        f'{PROGRAM}probe --config probe_s2 --encoders {ENCODER}',
    ]


def test_after_a_segmentation() -> None:
    config = str(CONFIGS / 'vineseg_drone.yaml')
    options = ['--config', config, '--data.paths', 'a.tif', '--data.class_names', '["a", "b"]']
    given = ['fit', *options, '--model.weights', 'e.ckpt', '--trainer.max_epochs', '2', '--ckpt_path', 'last']
    checkpoint = Path('runs/x/version_0/checkpoints/best.ckpt')
    test, predict = [shlex.split(command.removeprefix(PROGRAM)) for command in after_training(given, checkpoint)]
    assert test == ['test', *options, '--ckpt_path', str(checkpoint)]
    assert predict == ['predict', *test[1:], '--data.predict_paths', 'a.tif']
    assert spell_trainer_options(test) == test
    (after_test,) = after_training(test, checkpoint)
    assert shlex.split(after_test.removeprefix(PROGRAM)) == predict


def test_scenes_of_the_sample_area() -> None:
    for config, folder in (('landcover_l1', 'sentinel2'), ('vineseg_drone', 'drone')):
        command = after_training(['test', '--config', f'configs/{config}.yaml'], Path('best.ckpt'))[0]
        assert command.endswith(f'--ckpt_path best.ckpt --data.predict_paths data/sample/{folder}')
