"""Momentum encoders against the closed form of their average."""

import copy

import pytest
import torch
from torch import nn

from torchgeo_msssl.models.momentum import MomentumEncoder, Teacher, momentum_at


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).double()


def test_an_average_approaches_a_network_at_rest_as_the_power_of_its_momentum() -> None:
    encoder, head = network(), nn.Linear(4, 2).double()
    average = MomentumEncoder(encoder, head, momentum=0.9)
    start = [parameter.clone() for parameter in average.parameters()]
    followed = [*encoder.parameters(), *head.parameters()]
    with torch.no_grad():
        for parameter in followed:
            parameter.add_(torch.randn_like(parameter))
    for step in range(7):
        average.update(step, 100)
    for now, first, aim in zip(average.parameters(), start, followed, strict=True):
        torch.testing.assert_close(now, aim + 0.9**7 * (first - aim), rtol=0, atol=1e-12)


def test_copies_are_other_objects_that_are_not_trained() -> None:
    encoder = network()
    average = MomentumEncoder(encoder, momentum=0.5)
    assert not any(parameter.requires_grad for parameter in average.parameters())
    assert {id(p) for p in average.parameters()}.isdisjoint(id(p) for p in encoder.parameters())
    assert set(average.state_dict()) == {f'encoder.{key}' for key in encoder.state_dict()}
    encoder(torch.randn(5, 3).double())
    average.update(0, 10)
    assert torch.equal(average.encoder[1].running_mean, torch.zeros(4).double())  # statistics of its own images only
    output = average(torch.randn(5, 3).double().requires_grad_())
    assert not output.requires_grad
    assert not torch.equal(average.encoder[1].running_mean, torch.zeros(4).double())
    average.restart()
    for key, tensor in encoder.state_dict().items():
        assert torch.equal(average.encoder.state_dict()[key], tensor), key


def test_a_schedule_is_a_function_of_the_step() -> None:
    encoder = network()
    average = MomentumEncoder(encoder, momentum=lambda step, total: step / total)
    start = average.encoder[0].weight.clone()
    with torch.no_grad():
        encoder[0].weight.add_(1)
    average.update(10, 10)
    assert torch.equal(average.encoder[0].weight, start)
    average.update(5, 10)
    torch.testing.assert_close(average.encoder[0].weight, start + 0.5, rtol=0, atol=1e-12)


@pytest.mark.parametrize(('step', 'expected'), [(0, 0.996), (50, 0.998), (100, 1.0), (120, 1.0)])
def test_momentum_rises_as_in_byol(step: int, expected: float) -> None:
    assert momentum_at(step, 100, 0.996) == pytest.approx(expected, abs=1e-12)


def test_a_teacher_averages_parameters_and_buffers_as_in_unimatch_v2() -> None:
    followed = network()
    teacher = Teacher(followed, ema=0.6)
    model_ema = copy.deepcopy(followed)
    for iters in range(6):
        with torch.no_grad():
            for parameter in followed.parameters():
                parameter.add_(torch.randn_like(parameter))
        followed(torch.randn(5, 3).double())  # changes the running statistics
        teacher.update(iters, 0)
        ema_ratio = min(1 - 1 / (iters + 1), 0.6)
        if iters == 0:
            assert all(map(torch.equal, teacher.parameters(), followed.parameters()))
        for name, tensor in model_ema.state_dict().items():
            new = followed.state_dict()[name]
            if name.endswith('num_batches_tracked'):
                tensor.copy_(new)
            else:
                tensor.copy_(tensor * ema_ratio + new * (1 - ema_ratio))
    torch.testing.assert_close(teacher.encoder.state_dict(), model_ema.state_dict())


def test_the_average_of_the_first_steps_is_their_mean() -> None:
    followed = nn.Linear(1, 1, bias=False)
    teacher, seen = Teacher(followed, ema=0.99), []
    for step in range(5):
        nn.init.constant_(followed.weight, float(step**2))
        seen.append(followed.weight.item())
        teacher.update(step, 0)
    assert next(teacher.parameters()).item() == pytest.approx(sum(seen) / 5)


def test_a_teacher_stays_in_evaluation_mode() -> None:
    teacher = Teacher(network())
    nn.Sequential(teacher).train()
    assert not any(module.training for module in teacher.modules())
    image = torch.randn(5, 3).double()
    torch.testing.assert_close(teacher(image)[:1], teacher(image[:1]))
