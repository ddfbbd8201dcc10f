"""The example of docs/extending.md trains."""

import importlib
import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml

from torchgeo_msssl.__main__ import main
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.sample import SampleArea

PAGE = Path(__file__).parents[1] / 'docs' / 'extending.md'


def block(language: str) -> str:
    (found,) = re.findall(rf'```{language}\n(.*?)```', PAGE.read_text(encoding='utf-8'), flags=re.DOTALL)
    return str(found)


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    (tmp_path / 'align_uniform.py').write_text(block('python'), encoding='utf-8')
    (tmp_path / 'align_uniform.yaml').write_text(block('yaml'), encoding='utf-8')
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, 'argv', ['torchgeo_msssl'])
    yield importlib.import_module('align_uniform')
    sys.modules.pop('align_uniform', None)


def test_example_has_about_sixty_lines() -> None:
    assert 40 <= len(block('python').splitlines()) <= 75


def test_losses_have_the_values_of_the_paper(example: ModuleType) -> None:
    z = torch.eye(4, dtype=torch.float64)
    assert example.alignment(z, z).item() == 0
    assert example.alignment(z, -z).item() == 4
    assert example.uniformity(torch.ones(5, 3, dtype=torch.float64)).item() == 0
    assert example.uniformity(z).item() == pytest.approx(math.log(math.exp(-4)))  # all distances are √2


def test_example_trains_from_its_yaml(
    example: ModuleType, small_area: SampleArea, capsys: pytest.CaptureFixture[str]
) -> None:
    assert yaml.safe_load(block('yaml'))['model']['class_path'] == 'align_uniform.AlignUniform'
    options = [
        *('--data.sample_dir', str(small_area.directory), '--data.batch_size', '4', '--data.chips_per_epoch', '8'),
        *('--trainer.max_epochs', '1', '--trainer.accelerator', 'cpu'),
    ]
    assert main(['fit', '--config', 'align_uniform.yaml', *options]) == 0
    folder = re.search(r'Run folder: (\S+)', capsys.readouterr().out)
    assert folder is not None
    assert (Path(folder[1]) / 'encoder.safetensors').is_file()
    with pytest.raises(ConfigurationError, match='uniformity_weight'):
        example.AlignUniform(uniformity_weight=-1.0)
