"""DINO as a task: its loss, the frozen prototypes, the teacher, what is saved, and resuming."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer, seed_everything
from torch import Tensor

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.tasks import DINO

SMALL = {'model': 'test_resnet', 'in_channels': 4, 'hidden_dim': 32, 'bottleneck_dim': 8, 'output_dim': 16}


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
    x = task.normalize.standardize(made.flatten(0, 1), valid.flatten(0, 1))
    student = task.projection_head(task.model(x)).reshape(views, 4, 16)
    teacher = task.momentum_encoder(x).reshape(views, 4, 16)
    # the paper's algorithm 1, with the centre still at zero
    terms = [
        -(F.softmax(teacher[i] / 0.05, dim=1) * F.log_softmax(student[j] / 0.2, dim=1)).sum(dim=1).mean()
        for i in range(views)
        for j in range(views)
        if i != j
    ]
    assert loss.item() == pytest.approx(torch.stack(terms).mean().item(), rel=1e-5)
    assert features.shape == (views * 4, 96)
    torch.testing.assert_close(embedding, student[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(task.criterion.center, 0.1 * teacher.mean(dim=(0, 1)), rtol=1e-4, atol=1e-6)
    loss.backward()
    assert next(task.model.parameters()).grad.abs().sum() > 0
    for name, parameter in task.named_parameters():
        assert (parameter.grad is None) == name.startswith('momentum_'), name


LOCAL = {'local_crops_number': 3, 'local_crops_size': 16, 'local_crops_scale': (0.1, 0.3)}


def test_the_teacher_sees_global_views_only_and_the_student_all(batch: dict[str, Tensor]) -> None:
    """Multi-crop (section 3.1): global views pass both networks, local views the student; in float64."""
    task = DINO(**SMALL, **LOCAL, global_crops_scale=(0.4, 1.0), teacher_temperature=0.05).double()
    for parameter in task.momentum_encoder.parameters():
        parameter.mul_(1.1)  # another network than the student
    sizes: dict[str, list[tuple[int, ...]]] = {'teacher': [], 'student': []}
    for name, network in (('teacher', task.momentum_encoder.encoder), ('student', task.model)):
        network.register_forward_pre_hook(lambda _, inputs, seen=sizes[name]: seen.append(tuple(inputs[0].shape)))
    standardize = task.normalize.standardize
    task.normalize.standardize = lambda *parts: standardize(*parts).double()  # type: ignore[method-assign]
    torch.manual_seed(5)
    loss, features, embedding = task.compute_loss(batch)
    assert sizes == {'teacher': [(8, 4, 32, 32)], 'student': [(8, 4, 32, 32), (12, 4, 16, 16)]}
    torch.manual_seed(5)
    large, small = task.view_inputs(batch), task.view_inputs(batch, task.local_multiview)
    teacher = task.momentum_encoder(large).reshape(2, 4, 16)
    student = [*task.projection_head(task.model(large)).reshape(2, 4, 16)]
    student += [*task.projection_head(task.model(small)).reshape(3, 4, 16)]
    # the authors' loops over views, with the center still at zero
    terms = [
        -(F.softmax(teacher[i] / 0.05, dim=1) * F.log_softmax(student[j] / 0.1, dim=1)).sum(dim=1).mean()
        for i in range(2)
        for j in range(5)
        if i != j
    ]
    assert len(terms) == 8
    assert loss.item() == pytest.approx(torch.stack(terms).mean().item(), rel=1e-6)
    assert features.shape == (8, 96)
    torch.testing.assert_close(embedding, student[0])
    torch.testing.assert_close(task.criterion.center, 0.1 * teacher.mean(dim=(0, 1)))
    loss.backward()
    for name, parameter in task.named_parameters():
        assert (parameter.grad is None) == name.startswith('momentum_'), name


def test_local_views_are_small_crops_and_global_views_are_as_without(batch: dict[str, Tensor]) -> None:
    plain = {'blur': 0.0, 'noise': 0.0, 'common_gain': (1.0, 1.0), 'band_gain': (1.0, 1.0)}
    task, without = DINO(**SMALL, **LOCAL, augmentation=plain), DINO(**SMALL, augmentation=plain)
    assert without.local_multiview is None
    torch.manual_seed(5)
    shown = task.shown_views(batch)
    torch.manual_seed(5)
    for (view, valid), (expected, expected_valid) in zip(without.shown_views(batch), shown[:2], strict=True):
        assert torch.equal(view, expected)
        assert torch.equal(valid, expected_valid)
    assert [view.shape[-1] for view, _ in shown] == [32, 32, 16, 16, 16]
    draws = task.local_multiview.draw(batch['image'])
    area = draws.boxes[..., 2] * draws.boxes[..., 3] / 32**2
    assert area.min() >= 0.1 - 1e-4
    assert area.max() <= 0.3 + 1e-4
    assert DINO(**SMALL, global_crops_scale=(0.5, 0.6)).multiview.augmentation.crop_scale == (0.5, 0.6)


@pytest.mark.slow
def test_a_resumed_run_with_local_views_equals_the_uninterrupted_one(
    check_resume: Callable[..., Any], tmp_path: Path
) -> None:
    check_resume(lambda: DINO(**SMALL, **LOCAL, freeze_last_layer_epochs=0), tmp_path)


def test_local_views_larger_than_global_ones_are_refused(tiny_data: Any, tmp_path: Path) -> None:
    trainer = Trainer(
        default_root_dir=tmp_path, max_steps=1, logger=False, accelerator='cpu', enable_checkpointing=False
    )
    with pytest.raises(ConfigurationError, match=r'local_crops_size: local views of 96 px .* about 16'):
        trainer.fit(DINO(**SMALL, local_crops_number=2), datamodule=tiny_data())
    vit = SMALL | {'model': 'test_vit'}
    with pytest.raises(ConfigurationError, match=r'patches of 16 px .* of 20 px'):
        trainer.fit(DINO(**vit, local_crops_number=2, local_crops_size=20), datamodule=tiny_data())


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
        'criterion.cross_entropy.center',
        'momentum_encoder.encoder.conv1.0.weight',
        'momentum_encoder.encoder.bn1.running_mean',
        'momentum_encoder.projection_head.last_layer.weight',
    }
    for key in evolving:
        assert not torch.equal(middle['state_dict'][key], end['state_dict'][key]), key


def test_schedules_are_functions_of_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    task = DINO(
        **SMALL,
        encoder_momentum=0.9,
        teacher_temperature=0.07,
        warmup_teacher_temperature=0.04,
        warmup_temperature_epochs=2,
        freeze_last_layer_epochs=3,
    )

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
    assert [task.momentum_encoder.momentum_at(step, 100) for step in (0, 50, 100)] == pytest.approx(
        [0.9, 0.95, 1.0], abs=1e-12
    )


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
        ({'local_crops_number': -1}, 'local_crops_number'),
        ({'local_crops_size': 0}, 'local_crops_size'),
        ({'local_crops_scale': (0.0, 0.4)}, 'local_crops_scale'),
        ({'global_crops_scale': (0.4, 1.1)}, 'global_crops_scale'),
        ({'projection_head': 'conv'}, 'kind'),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        DINO(**(SMALL | options))
