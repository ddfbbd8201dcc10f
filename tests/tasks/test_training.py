import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import SGD

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.tasks import MAE, FastSiam, Segmentation
from torchgeo_msssl.tasks.training import TrainingTask

TASKS: list[Callable[..., TrainingTask]] = [
    lambda **options: FastSiam(model='test_resnet', in_channels=4, **options),
    lambda **options: MAE(model='test_vit', in_channels=4, **options),
    lambda **options: Segmentation('fpn', backbone='tu-test_resnet', in_channels=4, **options),
]


@pytest.mark.parametrize('make', TASKS)
@pytest.mark.parametrize(('options', 'final'), [({}, 0.0), ({'final_lr_factor': 0.25}, 0.25)])
def test_cosine_ends_at_the_final_factor(
    make: Callable[..., TrainingTask], options: dict[str, Any], final: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make(lr=0.5, **options)
    assert task.hparams.get('final_lr_factor', 0.0) == final
    monkeypatch.setattr(task, 'schedule', lambda: (12, 4))
    schedule: Any = task.with_cosine_schedule(SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5))
    assert schedule['lr_scheduler']['interval'] == 'step'
    rates = []
    for _ in range(15):
        rates.append(schedule['optimizer'].param_groups[0]['lr'])
        schedule['optimizer'].step()
        schedule['lr_scheduler']['scheduler'].step()
    # lr_min + (lr_max - lr_min) (1 + cos(pi t / T)) / 2 (Loshchilov & Hutter, eq. 5)
    low = 0.5 * final
    cosine = [low + (0.5 - low) * (1 + math.cos(math.pi * t / 8)) / 2 for t in range(9)]
    assert rates == pytest.approx([0, 0.125, 0.25, 0.375, *cosine, low, low])


@pytest.mark.parametrize('make', TASKS[:2])
@pytest.mark.parametrize('factor', [-0.1, 1.5, math.nan])
def test_bad_final_factors_are_refused(make: Callable[..., TrainingTask], factor: float) -> None:
    with pytest.raises(ConfigurationError, match='final_lr_factor: expected a number from 0 to 1, got'):
        make(final_lr_factor=factor)
