"""The command that embeds scenes."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from torchgeo_msssl.__main__ import main
from torchgeo_msssl.geo.open_datasets import close_datasets
from torchgeo_msssl.models.encoders import create_encoder
from torchgeo_msssl.models.metadata import EncoderMetadata
from torchgeo_msssl.models.weights import save_encoder


def test_embed_several_files(
    make_scene: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = np.random.default_rng(0).integers(1, 3000, (3, 48, 48)).astype(np.uint16)
    paths = [make_scene(f'{name}.tif', image + n, names=('B02', 'B03', 'B04')) for n, name in enumerate('ab')]
    command = [
        'embed',
        '--weights',
        'random',
        '--model',
        'test_resnet',
        '--data.paths',
        *paths,
        '--data.chip_size',
        '16',
        '--data.bands',
        'B04,B02',
        '--dense',
        'false',
        '--lidar_chips',
        '4',
        '--lidar_views',
        '2',
        '--queries',
        '2',
        '--output',
        str(tmp_path / 'out'),
    ]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert '18 chips' in printed
    metrics = json.loads((tmp_path / 'out' / 'metrics.json').read_text())
    assert f'rank_me        {metrics["rank_me"]:8.4f}' in printed
    assert metrics['bands'] == ['B04', 'B02']
    assert metrics['scenes'] == ['a', 'b']
    assert not list((tmp_path / 'out').glob('*.tif'))
    assert main(command) == 1
    assert 'choose another folder, or add --overwrite' in capsys.readouterr().err
    close_datasets()


def test_stopped_by_the_user(
    make_scene: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr('torchgeo_msssl.evaluation.embeddings.embed_chips', stop)
    path = make_scene('a.tif', np.random.default_rng(0).integers(1, 3000, (3, 48, 48)).astype(np.uint16))
    command = ['embed', '--weights', 'random', '--model', 'test_resnet', '--data.paths', path, '--data.chip-size', '16']
    assert main([*command, '--output', str(tmp_path / 'out')]) == 130
    assert 'Stopped' in capsys.readouterr().out
    assert not (tmp_path / 'out').exists()
    close_datasets()


@pytest.mark.parametrize('name', ['embed', 'compare'])
def test_help_does_not_wait_for_torch(name: str) -> None:
    code = (
        f'import sys\nfrom torchgeo_msssl.commands import {name} as command\n'
        'try:\n    command.run(["--help"])\nexcept SystemExit:\n    print("torch" in sys.modules)'
    )
    found = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout
    assert 'usage:' in found
    assert found.splitlines()[-1] == 'False'


def test_dense_is_true_or_false(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['embed', '--weights', 'random', '--data.paths', 'x', '--output', 'y', '--dense=maybe']) == 1
    assert 'dense: expected true or false, got maybe' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--device', 'foo'], 'device: foo cannot be used here'),
        (['--data.chip_size', '0'], 'data.chip_size: expected at least 1'),
        (['--lidar_chips', '0'], 'lidar_chips: expected at least 2'),
        (['--lidar_chips', '-3'], 'lidar_chips: expected at least 2'),
        (['--data.sensor', 'foo'], "sensor: unknown sensor 'foo'"),
        (['--weights', 'imagenet'], 'weights: the ImageNet weights of test_resnet are not on this machine'),
    ],
)
def test_errors_are_one_sentence(
    make_scene: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    path = make_scene('a.tif', np.random.default_rng(0).integers(1, 3000, (3, 48, 48)).astype(np.uint16))
    metadata = EncoderMetadata(
        'test', 'test_resnet', ('B02', 'B03', 'B04'), sensor='sentinel2_l2a', mean=(0.1,) * 3, std=(0.1,) * 3
    )
    save_encoder(create_encoder('test_resnet', 3), tmp_path / 'ours.safetensors', metadata)
    command = ['embed', '--model', 'test_resnet', '--data.paths', path, '--output', str(tmp_path / 'out')]
    assert main([*command, '--weights', str(tmp_path / 'ours.safetensors'), *options]) == 1
    printed = capsys.readouterr().err
    assert message in printed
    assert 'Traceback' not in printed
    close_datasets()
