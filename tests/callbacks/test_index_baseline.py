"""The index baseline on two classes that differ in the near infrared."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from torchgeo_msssl.callbacks import index_baseline as module
from torchgeo_msssl.callbacks.index_baseline import IndexBaseline


class Data:
    """Two classes that differ in the near infrared, and unlabelled pixels."""

    bands = ('red', 'nir')
    wavelengths = (665.0, 840.0)
    in_channels, chip_size, batch_size, ignore_index = 2, 8, 2, 255
    sensor_name, rgb_index, class_names = None, (0, 0, 0), ('soil', 'vine')
    scale, offset, mean, std = (1.0, 1.0), (0.0, 0.0), (), ()

    def describe_chips(self, batch: dict[str, torch.Tensor]) -> list[str]:
        return []

    def region_loader(self, part: str, context: int = 0) -> list[dict[str, torch.Tensor]]:
        generator = torch.Generator().manual_seed(len(part))
        mask = torch.randint(0, 2, (2, 8, 8), generator=generator)
        nir = torch.where(mask == 1, 0.6, 0.3)
        image = torch.stack([torch.full_like(nir, 0.2), nir], dim=1)
        mask[:, 0] = 255
        return [{'image': image, 'mask': mask}]


def test_the_scores_are_printed_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, 'run_folder', lambda trainer: tmp_path)
    task = SimpleNamespace(
        class_names=['soil', 'vine'],
        device='cpu',
        ignore_index=255,
        confusion=torch.tensor([[30, 10], [20, 40]]),
        labels=lambda batch: batch['mask'],
        reflectance=lambda batch: batch['image'],
    )
    trainer = SimpleNamespace(datamodule=Data(), is_global_zero=True)
    IndexBaseline().on_test_end(trainer, task)  # type: ignore[arg-type]
    kept = json.loads((tmp_path / 'baseline.json').read_text())
    assert kept['class'] == 'vine'
    rule = next(name for name in kept['scores'] if name.startswith('NDVI >'))
    assert kept['scores'][rule]['iou'] == 1.0  # NDVI is 0.5 for vine and 0.2 for soil
    assert 0.2 < kept['threshold']['value'] <= 0.5
    assert kept['scores']['network']['iou'] == pytest.approx(40 / 70)
    test = Data().region_loader('test')[0]['mask']
    assert kept['scores']['everything']['iou'] == pytest.approx(((test == 1).sum() / (test != 255).sum()).item())
    assert 'IoU of vine on 112 labelled test pixels' in capsys.readouterr().out
