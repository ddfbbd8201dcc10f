"""DINO as a task: its loss, the frozen prototypes, the teacher, what is saved, and resuming."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import seed_everything
from torch import Tensor

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.tasks import DINO

SMALL = {'model': 'resnet18', 'in_channels': 4, 'hidden_dim': 32, 'bottleneck_dim': 8, 'output_dim': 16}


@pytest.fixture
def batch(tiny_data: Any) -> dict[str, Tensor]:
    return next(iter(tiny_data().train_dataloader()))


@pytest.mark.parametrize('views', [2, 3])
def test_loss_is_the_papers_on_the_views_the_task_makes(batch: dict[str, Tensor], views: int) -> None:
    task = DINO(**SMALL, views=views, teacher_temperature=0.05, student_temperature=0.2)
    for parameter in task.momentum_encoder.parameters():
        parameter.mul_(1.1)  # another network than the student
    torch.manual_seed(5)
    loss, features, embedding = task.compute_loss(batch)
    torch.manual_seed(5)
    made, valid = task.make_views(batch)
    x = task.normalize.standardise(made.flatten(0, 1), valid.flatten(0, 1))
    student = task.projection_head(task.model(x)).reshape(views, 4, 16)
    teacher = task.momentum_projection_head(task.momentum_encoder(x)).reshape(views, 4, 16)
    # the paper's algorithm 1, with the centre still at zero
    terms = [
        -(F.softmax(teacher[i] / 0.05, dim=1) * F.log_softmax(student[j] / 0.2, dim=1)).sum(dim=1).mean()
        for i in range(views)
        for j in range(views)
        if i != j
    ]
    assert loss.item() == pytest.approx(torch.stack(terms).mean().item(), rel=1e-5)
    assert features.shape == (views * 4, 512)
    torch.testing.assert_close(embedding, student[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(task.criterion.center, 0.1 * teacher.mean(dim=(0, 1)), rtol=1e-4, atol=1e-6)
    loss.backward()
    assert next(task.model.parameters()).grad.abs().sum() > 0
    for name, parameter in task.named_parameters():
        assert (parameter.grad is None) == name.startswith('momentum_'), name


@pytest.mark.slow
def test_the_prototypes_are_frozen_for_an_epoch(check_resume: Callable[..., Any], tmp_path: Path) -> None:
    """Three steps of four; bit for bit, though weight decay is large. Resuming in the middle of it changes nothing."""

    def make_task() -> DINO:
        return DINO(**SMALL, freeze_last_layer_epochs=1, warmup_epochs=0, weight_decay=0.5)

    middle, end = (point['state_dict'] for point in check_resume(make_task, tmp_path))
    seed_everything(5)
    start = make_task().state_dict()
    prototypes, other = 'projection_head.last_layer.weight', 'projection_head.layers.0.weight'
    assert torch.equal(middle[prototypes], start[prototypes])
    assert not torch.equal(middle[other], start[other])
    assert not torch.equal(end[prototypes], start[prototypes])


@pytest.mark.slow
def test_a_resumed_run_is_the_uninterrupted_one(check_resume: Callable[..., Any], tmp_path: Path) -> None:
    options = {'freeze_last_layer_epochs': 0, 'encoder_momentum': 0.5, 'warmup_temperature_epochs': 1}
    middle, end = check_resume(lambda: DINO(**SMALL, **options, warmup_teacher_temperature=0.02), tmp_path)
    evolving = {
        'criterion.cross_entropy.center', 'momentum_encoder.conv1.weight', 'momentum_encoder.bn1.running_mean',
        'momentum_projection_head.last_layer.weight',
    }  # fmt: skip
    for key in evolving:
        assert not torch.equal(middle['state_dict'][key], end['state_dict'][key]), key


def test_schedules_are_functions_of_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    task = DINO(
        **SMALL, encoder_momentum=0.9, teacher_temperature=0.07, warmup_teacher_temperature=0.04,
        warmup_temperature_epochs=2, freeze_last_layer_epochs=3,
    )  # fmt: skip

    def schedule_steps(epochs: float) -> tuple[int, int]:
        task._total_steps = 100
        return 100, round(10 * epochs)

    monkeypatch.setattr(task, 'schedule_steps', schedule_steps)
    task.configure_optimizers()
    weight, found = task.projection_head.last_layer.weight, []
    for step in (0, 10, 20, 29, 30):
        monkeypatch.setattr(DINO, 'global_step', step)
        weight.grad = torch.ones_like(weight)
        task.on_before_optimizer_step(None)  # type: ignore[arg-type]
        found.append((task.teacher_temperature, weight.grad is None))
    assert [frozen for _, frozen in found] == [True, True, True, True, False]
    assert [temperature for temperature, _ in found] == pytest.approx([0.04, 0.055, 0.07, 0.07, 0.07], abs=1e-12)
    assert [task.momentum_after(step) for step in (0, 50, 100)] == pytest.approx([0.9, 0.95, 1.0], abs=1e-12)


def test_hyperparameters_make_the_same_task() -> None:
    task = DINO(**SMALL, views=3, center_momentum=0.8, encoder_momentum=0.7, augmentation={'blur': 0.25})
    again = DINO(**pickle.loads(pickle.dumps(dict(task.hparams))))
    assert again.hparams == task.hparams
    assert again.criterion.cross_entropy.center_momentum == 0.8
    assert {type(value).__module__ for value in task.hparams.values()} == {'builtins'}
    shapes, expected = ({key: tensor.shape for key, tensor in t.state_dict().items()} for t in (again, task))
    assert shapes == expected


def test_only_the_encoder_is_called_model() -> None:
    task = DINO(**SMALL)
    keys = {key for key in task.state_dict() if 'model.' in key}
    assert keys == {f'model.{key}' for key in task.model.state_dict()}
    assert len(task.state_dict()) > 2 * len(keys)


@pytest.mark.parametrize('kind', ['linear', 'none'])
def test_the_head_can_be_less(batch: dict[str, Tensor], kind: str) -> None:
    task = DINO(**SMALL, projection_head=kind)
    loss, _, embedding = task.compute_loss(batch)
    assert torch.isfinite(loss)
    assert embedding.shape == (4, 16)
    assert task.dimension == 16


@pytest.mark.parametrize(
    ('options', 'named'),
    [
        ({'views': 1}, 'views'),
        ({'encoder_momentum': 1.1}, 'encoder_momentum'),
        ({'teacher_temperature': 0.0}, '^teacher_temperature'),
        ({'warmup_teacher_temperature': -1.0}, 'warmup_teacher_temperature'),
        ({'student_temperature': 0.0}, 'student_temperature'),
        ({'center_momentum': -0.1}, 'center_momentum'),
        ({'warmup_temperature_epochs': -1}, 'warmup_temperature_epochs'),
        ({'freeze_last_layer_epochs': -1}, 'freeze_last_layer_epochs'),
        ({'bottleneck_dim': 0}, 'bottleneck'),
        ({'projection_head': 'conv'}, 'kind'),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        DINO(**(SMALL | options))
