"""Benchmarks: their bare loops compute the losses of the tasks, and their tables are complete."""

import argparse
import copy
import importlib.util
import shlex
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import timm
import torch

from torchgeo_msssl.errors import WeightsError
from torchgeo_msssl.models.encoders import create_encoder
from torchgeo_msssl.models.weights import load_encoder

FOLDER = Path(__file__).parents[1] / 'benchmarks'


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f'benchmarks_{name}', FOLDER / f'{name}.py')
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TRAIN_STEP = load('train_step')


@pytest.mark.slow
@pytest.mark.parametrize('method', TRAIN_STEP.METHODS)
def test_bare_loop_has_the_loss_and_gradient_of_the_task(method: str) -> None:
    torch.manual_seed(0)
    task: Any = TRAIN_STEP.make_task(method, 'resnet18', 'cpu')
    chips, x = TRAIN_STEP.prepare(task, 4, 32, 'cpu')
    if method == 'MAE':  # its target is normalized differently for flat patches, which these are not
        assert x.std() > 0.1
    other = copy.deepcopy(task)  # a queue changes
    ours = task.compute_loss(chips)[0]
    bare = TRAIN_STEP.METHODS[method](other, x)
    assert ours.item() == pytest.approx(bare.item(), rel=1e-4)
    ours.backward()
    bare.backward()
    gradients = [next(iter(each.model.parameters())).grad for each in (task, other)]
    assert gradients[0].norm() > 0
    torch.testing.assert_close(*gradients, rtol=1e-2, atol=1e-4 * gradients[0].abs().max().item())


def test_table_of_methods(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = load('pretext_tasks')
    rows = [
        {'method': 'a', 'steps': '9', 'knn': '0.5', 'linear': '0.6'},
        {'method': 'a', 'steps': '9', 'knn': '0.7', 'linear': '0.8'},
        {'method': 'a', 'steps': '8', 'knn': '0.0', 'linear': '0.0'},
        {'method': 'b', 'steps': '9', 'knn': '0.1', 'linear': '0.9'},
    ]
    lines = module.table(rows, 9).splitlines()
    assert lines[2] == '| b | 0.100 | 0.900 | 1 |'
    assert lines[3] == '| a | 0.600 ± 0.141 | 0.700 ± 0.141 | 2 |'
    assert len(lines) == 4
    assert module.read(tmp_path / 'none.csv') == []


def test_row_of_the_step_table() -> None:
    options = argparse.Namespace(model='resnet18', batch=2, size=32, repeats=1, device='cpu', precision='32')
    cells = TRAIN_STEP.measure('SimCLR', options).strip('| ').split(' | ')
    assert cells[0] == 'SimCLR'
    ours, bare, ratio = map(float, cells[1:4])
    assert ratio == pytest.approx(ours / bare, rel=0.2)
    assert sys.modules.get('benchmarks_train_step') is None


@pytest.mark.slow
def test_tables_of_reading(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = '--size 600 --chip 64 --batch 2 --chips-per-read 2 --repeats 1 --open 2'
    load('read_chips').main([*shlex.split(options), '--folder', str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    read = [line.strip('| ').split(' | ') for line in lines if ': ' in line and line.startswith('|')]
    assert len(read) == 3 * 6
    for cells in read:
        assert float(cells[1]) > float(cells[2]) * 0.5
        assert float(cells[-1] if cells[-1] else cells[-2]) > 0
    assert lines[-1].startswith('| 2 | ')
    assert not list(tmp_path.iterdir())


def test_imagenet_weights_are_renamed_by_order(tmp_path: Path) -> None:
    """A network written under the names of another implementation comes back with its features."""
    module = load('imagenet_weights')
    network = timm.create_model(module.MODEL).eval()
    foreign = {f'_{name}': tensor for name, tensor in network.state_dict().items()}
    torch.save(foreign, tmp_path / 'lite0.pth')
    module.convert(str(tmp_path / 'lite0.pth'), str(tmp_path / 'lite0.safetensors'))
    encoder = create_encoder(module.MODEL, 3)
    load_encoder(encoder, tmp_path / 'lite0.safetensors', ['red', 'green', 'blue'], 'rgb')
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = network.global_pool(network.forward_features(image))
        torch.testing.assert_close(encoder.eval()(image), expected)
    with pytest.raises(WeightsError, match='; give its state dict'):
        module.rename(dict(reversed(foreign.items())))
