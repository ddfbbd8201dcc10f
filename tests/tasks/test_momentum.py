"""Momentum encoders of tasks: where they start, how they follow, and that nothing trains them."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer, seed_everything
from torch import Tensor, nn

from torchgeo_msssl.models.momentum import MomentumEncoder
from torchgeo_msssl.tasks import BYOL, DINO, MAE, FastSiam, MoCo, PretrainingTask

SMALL = {'model': 'test_resnet', 'in_channels': 4, 'hidden_dim': 16, 'output_dim': 8}

Make = Callable[..., PretrainingTask]


def moco2(**options: Any) -> MoCo:
    return MoCo(version=2, memory_bank_size=16, **(SMALL | options))


def moco3(**options: Any) -> MoCo:
    return MoCo(version=3, **(SMALL | options))


def byol(**options: Any) -> BYOL:
    return BYOL(**(SMALL | options))


def dino(**options: Any) -> DINO:
    options = {'bottleneck_dim': 8, 'freeze_last_layer_epochs': 0, 'warmup_epochs': 0} | options
    return DINO(**(SMALL | options))


class AveragedMAE(MAE):
    """A method without views or projection head that attaches a momentum encoder."""

    def configure_heads(self) -> None:
        super().configure_heads()
        self.momentum_encoder = MomentumEncoder(self.model, momentum=0.9)


def averaged_mae(**options: Any) -> AveragedMAE:
    decoder = {'decoder_dim': 32, 'decoder_depth': 1, 'decoder_heads': 2}
    return AveragedMAE(model='test_vit', in_channels=4, **decoder, **options)


methods = pytest.mark.parametrize('make', [moco2, moco3, byol, dino])
any_method = pytest.mark.parametrize('make', [moco2, moco3, byol, dino, averaged_mae])


def parts(task: Any) -> list[tuple[nn.Module, nn.Module]]:
    """Pairs of a copy and what it follows."""
    (average,) = task.momentum_encoders
    return [(average.encoder, task.model), (average.projection_head, getattr(task, 'projection_head', nn.Identity()))]


def flat(*modules: nn.Module) -> Tensor:
    """All parameters in one vector."""
    return torch.cat([parameter.detach().double().flatten() for module in modules for parameter in module.parameters()])


def perturb(module: nn.Module) -> None:
    """Change every parameter."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter))


def attach(task: PretrainingTask, data: LightningDataModule, folder: Path) -> None:
    """Do what fitting does before its first step."""
    task.trainer = Trainer(default_root_dir=folder, logger=False, accelerator='cpu', max_steps=4)
    task.trainer.datamodule = data  # type: ignore[attr-defined]
    task.setup('fit')


@any_method
def test_copies_are_other_objects_of_the_same_weights(make: Make) -> None:
    task = make()
    for copy, network in parts(task):
        assert copy is not network
        own, theirs = ({tensor.data_ptr() for tensor in module.state_dict().values()} for module in (copy, network))
        assert own.isdisjoint(theirs)
        for key, tensor in network.state_dict().items():
            assert torch.equal(copy.state_dict()[key], tensor), key
    keys = {key.removeprefix('model.') for key in task.state_dict() if 'model.' in key}
    assert keys == set(task.model.state_dict())


@methods
def test_copies_start_from_the_loaded_weights(make: Make, tmp_path: Path, tiny_data: type[LightningDataModule]) -> None:
    before = FastSiam(**SMALL, bottleneck_dim=4)
    perturb(before.model)
    checkpoint = {'state_dict': before.state_dict(), 'hyper_parameters': dict(before.hparams)}
    before.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, tmp_path / 'before.ckpt')
    task = make(weights=str(tmp_path / 'before.ckpt'))
    attach(task, tiny_data(), tmp_path)
    (average,) = task.momentum_encoders
    for key, tensor in before.model.state_dict().items():
        assert torch.equal(task.model.state_dict()[key], tensor), key
        assert torch.equal(average.encoder.state_dict()[key], tensor), key
    perturb(average)
    kept = flat(average)
    task.setup('fit')  # a second fit continues from the first
    assert torch.equal(flat(average), kept)


@methods
@pytest.mark.parametrize('projection_head', ['mlp', 'linear', 'none'])
def test_nothing_trains_the_copies_and_everything_else_is_trained(make: Make, projection_head: str) -> None:
    task = make(projection_head=projection_head)
    (average,) = task.momentum_encoders
    chips = torch.randint(1, 4000, (4, 4, 32, 32)).to(torch.uint16)
    copies = flat(average)
    loss, _, _ = task.compute_loss({'image': chips})
    loss.backward()
    frozen = {id(parameter) for parameter in average.parameters()}
    for name, parameter in task.named_parameters():
        assert (parameter.grad is None) == (id(parameter) in frozen), name
        assert parameter.requires_grad != (id(parameter) in frozen), name
    optimized = [parameter for group in task.parameter_groups() for parameter in group['params']]
    assert frozen.isdisjoint(map(id, optimized))
    assert len(optimized) + len(frozen) == len(list(task.parameters()))
    assert torch.equal(flat(average), copies)


def test_copies_approach_a_network_at_rest_as_the_power_of_the_momentum() -> None:
    task = moco2(encoder_momentum=0.9).double()
    start = flat(*(copy for copy, _ in parts(task)))
    for _, network in parts(task):
        perturb(network)
    aim = flat(*(network for _, network in parts(task)))
    for _ in range(7):
        task.after_step()
    now = flat(*(copy for copy, _ in parts(task)))
    torch.testing.assert_close(now, aim + 0.9**7 * (start - aim), rtol=0, atol=1e-12)


@pytest.mark.slow
@methods
def test_copies_follow_as_the_papers_say(make: Make, tmp_path: Path, tiny_data: type[LightningDataModule]) -> None:
    """Observed at each forward pass of a run of K steps, for the papers' formulas of step k = 0, 1, …"""
    steps, base, seen = 6, 0.8, []
    seed_everything(0)
    task = make(encoder_momentum=base, lr=0.05, optimizer='sgd')
    compute_loss = task.compute_loss

    def observed(batch: dict[str, Tensor]) -> Any:
        seen.append([flat(*modules) for modules in zip(*parts(task), strict=True)])
        return compute_loss(batch)

    task.compute_loss = observed  # type: ignore[method-assign]
    Trainer(
        default_root_dir=tmp_path,
        max_steps=steps,
        logger=False,
        accelerator='cpu',
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    ).fit(task, datamodule=tiny_data())
    assert len(seen) == steps
    assert torch.equal(*seen[0])
    for k in range(1, steps):
        (before, _), (now, network) = seen[k - 1], seen[k]
        # BYOL and DINO update after each step, with the momentum of that step
        rising = 1 - (1 - base) * (math.cos(math.pi * (k - 1) / steps) + 1) / 2
        momentum = {
            # MoCo v2 updates with a constant before each forward pass, v3 with that of the step
            moco2: base,
            moco3: 1 - (1 - base) * (math.cos(math.pi * k / steps) + 1) / 2,
        }.get(make, rising)
        torch.testing.assert_close(now, momentum * before + (1 - momentum) * network, rtol=1e-6, atol=1e-6)
        assert (network - before).abs().max() > 1e-3


@pytest.mark.slow
def test_a_resumed_run_of_any_task_equals_the_uninterrupted_one(
    tmp_path: Path, check_resume: Callable[..., Any]
) -> None:
    middle, end = check_resume(averaged_mae, tmp_path)
    name = 'momentum_encoder.encoder.blocks.0.attn.qkv.weight'
    assert not torch.equal(middle['state_dict'][name], end['state_dict'][name])
    assert not torch.equal(
        end['state_dict'][name], end['state_dict'][name.replace('momentum_encoder.encoder', 'model')]
    )


def test_momentum_of_byol_rises_to_one() -> None:
    average = byol().momentum_encoder
    assert [average.momentum_at(step, 1000) for step in (0, 500, 1000)] == pytest.approx([0.996, 0.998, 1], abs=1e-12)


@methods
@pytest.mark.parametrize('momentum', [-0.1, 1.5])
def test_momentum_out_of_range_is_named(make: Make, momentum: float) -> None:
    with pytest.raises(ValueError, match='encoder_momentum'):
        make(encoder_momentum=momentum)
