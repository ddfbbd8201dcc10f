"""Moving averages of networks against their closed form."""

import pytest
import torch
from torch import nn

from torchgeo_msssl.models.momentum import frozen_copy, momentum_at, update_average


def test_an_average_approaches_a_network_at_rest_as_the_power_of_its_momentum() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).double()
    average = frozen_copy(network)
    start = [parameter.clone() for parameter in average.parameters()]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter))
    for _ in range(7):
        update_average(average, network, 0.9)
    for now, first, aim in zip(average.parameters(), start, network.parameters(), strict=True):
        torch.testing.assert_close(now, aim + 0.9**7 * (first - aim), rtol=0, atol=1e-12)


def test_a_copy_is_another_object_that_is_not_trained() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    average = frozen_copy(network)
    assert not any(parameter.requires_grad for parameter in average.parameters())
    assert {id(p) for p in average.parameters()}.isdisjoint(id(p) for p in network.parameters())
    network(torch.randn(5, 3))
    update_average(average, network, 0.5)
    assert torch.equal(average[1].running_mean, torch.zeros(4))  # its own images only
    assert average[1].running_mean is not network[1].running_mean


@pytest.mark.parametrize(('step', 'expected'), [(0, 0.996), (50, 0.998), (100, 1.0), (120, 1.0)])
def test_momentum_rises_as_in_byol(step: int, expected: float) -> None:
    assert momentum_at(step, 100, 0.996) == pytest.approx(expected, abs=1e-12)
