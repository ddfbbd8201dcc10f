"""The threshold on an index against brute force and against indices by hand."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torchgeo_msssl.errors import BandError
from torchgeo_msssl.evaluation import threshold as module
from torchgeo_msssl.evaluation.threshold import IndexBaseline, best_threshold, find_bands, vegetation_index


def test_indices_by_hand() -> None:
    image = torch.tensor([0.2, 0.3, 0.1, 0.6])[None, :, None, None]  # red, green, blue, nir
    assert vegetation_index(image, 'NDVI', (0, 3)).item() == pytest.approx(0.4 / 0.8)
    assert vegetation_index(image, 'ExG', (0, 1, 2)).item() == pytest.approx(0.3 / 0.6)
    assert vegetation_index(torch.zeros(1, 2, 3, 3), 'NDVI', (0, 1)).abs().max() == 0


@pytest.mark.parametrize(
    ('bands', 'wavelengths', 'expected'),
    [
        (['blue', 'green', 'red', 'rededge', 'nir'], [475, 560, 668, 717, 842], ('NDVI', (2, 4))),
        (['B08', 'B04'], [842, 665], ('NDVI', (1, 0))),
        (['red', 'green', 'blue'], [650, 550, 450], ('ExG', (0, 1, 2))),
        (['blue', 'red', 'green'], [None] * 3, ('ExG', (1, 2, 0))),
    ],
)
def test_the_index_that_the_bands_allow(bands: list[str], wavelengths: list[Any], expected: Any) -> None:
    assert find_bands(bands, wavelengths) == expected


def test_bands_that_allow_none() -> None:
    with pytest.raises(BandError, match='B11, B12'):
        find_bands(['B11', 'B12'], [1610.0, 2190.0])


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_the_threshold_is_the_best_of_all(data: Any) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    counts = np.zeros((2, module._STEPS), np.int64)
    steps = rng.integers(0, module._STEPS, 12)
    counts[:, steps] = rng.integers(0, 9, (2, 12))
    counts[1, steps[0]] += 1
    found = best_threshold(counts)

    def iou(edge: int, above: bool) -> float:
        low, high = counts[:, :edge].sum(1), counts[:, edge:].sum(1)
        others, hit = high if above else low
        return float(hit / (counts[1].sum() + others))

    every = max(iou(edge, above) for edge in range(module._STEPS + 1) for above in (True, False))
    edge = round((found.value + 2) / 4 * module._STEPS)
    assert iou(edge, found.above) == pytest.approx(every)


class Data:
    """Two classes that differ in the near infrared, and a third that nobody asks for."""

    bands = ('red', 'nir')
    wavelengths = (665.0, 840.0)

    def region_loader(self, part: str) -> list[dict[str, torch.Tensor]]:
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
        class_names=['soil', 'vine'], device='cpu', ignore_index=255, confusion=torch.tensor([[30, 10], [20, 40]]),
        labels=lambda batch: batch['mask'], reflectance=lambda batch: batch['image'],
    )  # fmt: skip
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
