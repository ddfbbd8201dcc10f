import copy
import io
import math
from typing import Any

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.tasks.optimizers import cosine_factor, cosine_with_warmup, create_optimizer, parameter_groups

NAMES = ('sgd', 'adam', 'adamw', 'lars')


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(5, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))


def train(model: nn.Module, optimizer: Optimizer, scheduler: LambdaLR, steps: int) -> list[list[float]]:
    """Take some steps; give the learning rates that each was taken with, one a group."""
    rates = []
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.ones(2, 5, 4, 4)).square().mean().backward()
        rates.append([group['lr'] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return rates


def saved(state: Any) -> Any:
    """Round trip through a file, read as untrusted checkpoints are."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


# --- parameter groups -------------------------------------------------------------------------------------------------


def test_biases_norms_and_vectors_do_not_decay() -> None:
    model = network()
    model.register_parameter('gamma', nn.Parameter(torch.ones(3)))
    decaying, exempt = parameter_groups([model], 0.1)
    assert decaying['weight_decay'] == 0.1
    assert exempt['weight_decay'] == 0.0
    assert set(map(id, decaying['params'])) == {id(model[0].weight), id(model[3].weight)}
    expected = (model[0].bias, model[1].weight, model[1].bias, model[3].bias, model.gamma)
    assert set(map(id, exempt['params'])) == set(map(id, expected))


def test_norms_and_biases_of_several_dimensions_do_not_decay() -> None:
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(2, 3))

    (group,) = parameter_groups([nn.LayerNorm((4, 4)), Shifted()], 0.1)
    assert group['weight_decay'] == 0.0
    assert len(group['params']) == 3


@pytest.mark.parametrize(
    ('name', 'exempt'),
    [
        ('vit_tiny_patch16_224', ('pos_embed', 'cls_token')),
        ('swin_tiny_patch4_window7_224', ('layers.0.blocks.0.attn.relative_position_bias_table',)),
        ('convnext_atto', ('stages.0.blocks.0.gamma',)),
        ('resnet18', ('bn1.weight',)),
    ],
)
def test_every_parameter_of_a_backbone_is_in_exactly_one_group(name: str, exempt: tuple[str, ...]) -> None:
    with torch.device('meta'):
        model = timm.create_model(name, in_chans=5, num_classes=0)
    # Wrapped, since a task's or smp's encoder is, too.
    groups = parameter_groups([nn.Sequential(nn.Identity(), model)], 0.05)
    ids = [id(parameter) for group in groups for parameter in group['params']]
    assert sorted(ids) == sorted(map(id, model.parameters()))
    names = dict(model.named_parameters())
    spared = set(map(id, groups[1]['params']))
    assert all(id(names[key]) in spared for key in exempt)
    assert all(id(parameter) in spared for parameter in names.values() if parameter.ndim <= 1)
    assert all(parameter.ndim > 1 for parameter in groups[0]['params'])


def test_frozen_and_shared_parameters() -> None:
    first, second = network(), network()
    first[0].requires_grad_(False)
    second[3] = first[3]
    groups = parameter_groups([first, second, first], 0.1)
    ids = [id(parameter) for group in groups for parameter in group['params']]
    assert len(ids) == len(set(ids))
    assert set(ids) == {id(p) for p in (*first.parameters(), *second.parameters()) if p.requires_grad}


def test_negative_weight_decay_is_refused() -> None:
    with pytest.raises(ConfigurationError, match='weight_decay'):
        parameter_groups([network()], -1e-4)


# --- optimizers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', NAMES)
def test_each_optimizer_steps_every_group(name: Any) -> None:
    model = network()
    before = copy.deepcopy(model.state_dict())
    optimizer = create_optimizer(name, parameter_groups([model], 0.1), lr=0.5)
    assert [group['weight_decay'] for group in optimizer.param_groups] == [0.1, 0.0]
    model(torch.randn(2, 5, 4, 4)).square().mean().backward()
    optimizer.step()
    assert all(not torch.equal(before[key], value) for key, value in model.named_parameters())


def test_sgd_takes_momentum_and_adam_betas() -> None:
    groups = parameter_groups([network()], 0.1)
    assert create_optimizer('sgd', copy.copy(groups), 0.1, momentum=0.8).defaults['momentum'] == 0.8
    assert create_optimizer('lars', copy.copy(groups), 0.1, momentum=0.8).defaults['momentum'] == 0.8
    assert create_optimizer('adamw', copy.copy(groups), 0.1, betas=(0.9, 0.95)).defaults['betas'] == (0.9, 0.95)


def lars_step(weight: Tensor, gradient: Tensor, lr: float, weight_decay: float, trust: float = 1e-3) -> Tensor:
    """First step of eq. 6 of https://arxiv.org/abs/1708.03888."""
    local = trust * weight.norm() / (gradient.norm() + weight_decay * weight.norm())
    return weight - lr * local * (gradient + weight_decay * weight)


def test_lars_scales_decaying_groups_only() -> None:
    model = nn.Linear(4, 3, dtype=torch.float64)
    weight, bias = (parameter.detach().clone() for parameter in model.parameters())
    optimizer = create_optimizer('lars', parameter_groups([model], 0.1), lr=0.5)
    model(torch.ones(2, 4, dtype=torch.float64)).square().sum().backward()
    optimizer.step()
    assert model.weight.grad is not None
    assert model.bias.grad is not None
    torch.testing.assert_close(model.weight.data, lars_step(weight, model.weight.grad, 0.5, 0.1), rtol=1e-6, atol=0)
    torch.testing.assert_close(model.bias.data, bias - 0.5 * model.bias.grad)


@pytest.mark.parametrize(
    ('name', 'weight_decay', 'lr', 'message'),
    [
        ('lars', 0.0, 0.1, 'weight_decay above 0'),
        ('sgd', 0.1, 0.0, 'lr: expected a positive number, got 0.0'),
        ('sgd', 0.1, math.nan, 'lr: expected a positive number, got nan'),
        ('lion', 0.1, 0.1, "expected one of sgd, adam, adamw, lars, got 'lion'"),
    ],
)
def test_bad_optimizer_options_are_refused(name: Any, weight_decay: float, lr: float, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        create_optimizer(name, parameter_groups([network()], weight_decay), lr)


def test_nothing_to_train_is_refused() -> None:
    with pytest.raises(ConfigurationError, match='no trainable parameter'):
        create_optimizer('sgd', parameter_groups([network().requires_grad_(False)], 0.1), 0.1)


# --- schedule ---------------------------------------------------------------------------------------------------------


def moco_v3_rate(epoch: float, epochs: float, warmup: float, lr: float) -> float:
    """Transcription of adjust_learning_rate in main_moco.py of MoCo v3 (fractional epochs)."""
    return (
        lr * epoch / warmup
        if epoch < warmup
        else lr * 0.5 * (1 + math.cos(math.pi * (epoch - warmup) / (epochs - warmup)))
    )


def mae_rate(epoch: float, epochs: float, warmup: float, lr: float, min_lr: float) -> float:
    """Transcription of adjust_learning_rate in util/lr_sched.py of MAE (fractional epochs)."""
    if epoch < warmup:
        return lr * epoch / warmup
    return min_lr + (lr - min_lr) * 0.5 * (1 + math.cos(math.pi * (epoch - warmup) / (epochs - warmup)))


def test_closed_form_values() -> None:
    values = {0: 0.0, 5: 0.5, 10: 1.0, 35: 0.5 + math.sqrt(0.125), 60: 0.5, 110: 0.0, 111: 0.0, 10_000: 0.0}
    for step, value in values.items():
        assert cosine_factor(step, 110, 10) == pytest.approx(value, abs=1e-15)
    assert cosine_factor(0, 100, 0) == 1.0
    assert cosine_factor(50, 100, 0, final_lr_factor=0.2) == pytest.approx(0.6)
    assert cosine_factor(100, 100, 0, final_lr_factor=0.2) == 0.2


@pytest.mark.parametrize('step', [0, 1, 39, 40, 41, 200, 399])
def test_factor_is_the_papers_schedule(step: int) -> None:
    per_epoch, lr = 4, 0.3
    arguments = (step / per_epoch, 100, 10)
    factor = cosine_factor(step, 100 * per_epoch, 10 * per_epoch)
    assert lr * factor == pytest.approx(moco_v3_rate(*arguments, lr), abs=1e-12)
    factor = cosine_factor(step, 100 * per_epoch, 10 * per_epoch, final_lr_factor=0.1)
    assert lr * factor == pytest.approx(mae_rate(*arguments, lr, 0.1 * lr), abs=1e-12)


@given(total=st.integers(1, 500), data=st.data())
def test_factor_rises_to_one_then_falls_to_final(total: int, data: st.DataObject) -> None:
    warmup = data.draw(st.integers(0, total - 1))
    final = data.draw(st.floats(0, 1))
    factors = [cosine_factor(step, total, warmup, final) for step in range(total + 2)]
    assert all(0 <= factor <= 1 for factor in factors)
    assert factors[warmup] == 1.0
    assert factors[total] == factors[total + 1] == final
    assert factors[: warmup + 1] == sorted(factors[: warmup + 1])
    assert factors[warmup:] == sorted(factors[warmup:], reverse=True)


def test_scheduler_follows_the_factor_and_spares_constant_groups() -> None:
    model, predictor = network(), nn.Linear(3, 3)
    groups = parameter_groups([model], 0.1) + parameter_groups([predictor], 0.1, constant_lr=True)
    optimizer = create_optimizer('sgd', groups, lr=0.2)
    rates = train(nn.Sequential(model, predictor), optimizer, cosine_with_warmup(optimizer, 12, 3), 12)
    expected = [0.2 * cosine_factor(step, 12, 3) for step in range(12)]
    assert [group['constant_lr'] for group in optimizer.param_groups] == [False, False, True, True]
    assert rates == [[rate, rate, 0.2, 0.2] for rate in expected]


@pytest.mark.parametrize('name', NAMES)
def test_resumed_training_equals_uninterrupted(name: Any) -> None:
    def start() -> tuple[nn.Module, Optimizer, LambdaLR]:
        model = network()
        groups = parameter_groups([model[:3]], 0.1) + parameter_groups([model[3]], 0.1, constant_lr=True)
        optimizer = create_optimizer(name, groups, lr=0.05)
        return model, optimizer, cosine_with_warmup(optimizer, 20, 4)

    through = start()
    rates = train(*through, 20)

    first = start()
    before = train(*first, 10)
    states = [saved(part.state_dict()) for part in first]
    resumed = start()
    for part, state in zip(resumed, states, strict=True):
        part.load_state_dict(state)
    assert before + train(*resumed, 10) == rates
    for one, other in zip(through[0].state_dict().values(), resumed[0].state_dict().values(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'total_steps': 10, 'warmup_steps': 10}, 'fewer than the 10 steps of the run, got 10'),
        ({'total_steps': 10, 'warmup_steps': -1}, 'got -1'),
        ({'total_steps': 0}, 'fewer than the 0 steps'),
        ({'total_steps': 10, 'final_lr_factor': 1.5}, 'final_lr_factor: expected a number from 0 to 1, got 1.5'),
    ],
)
def test_bad_schedules_are_refused(options: dict[str, Any], message: str) -> None:
    optimizer = create_optimizer('sgd', parameter_groups([network()], 0.1), 0.1)
    with pytest.raises(ConfigurationError, match=message):
        cosine_with_warmup(optimizer, **options)
