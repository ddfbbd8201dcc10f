"""Compiled networks and channels last: the same training, under the same names."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Callback

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.tasks import BYOL, MAE, Acceleration, FastSiam


class Losses(Callback):
    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *rest: Any) -> None:
        self.values.append(outputs['loss'].item())


def train(
    make_data: type[LightningDataModule],
    folder: Path,
    method: type[Any],
    steps: int = 2,
    model: str = 'resnet18',
    **options: Any,
) -> tuple[Any, list[float]]:
    seed_everything(0)
    task = method(model='test_resnet', in_channels=4, hidden_dim=32, output_dim=16, lr=0.005)
    losses = Losses()
    trainer = Trainer(
        default_root_dir=folder,
        max_steps=steps,
        logger=False,
        accelerator='cpu',
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=[losses, *([Acceleration(**options)] if options else [])],
    )
    trainer.fit(task, make_data())
    trainer.save_checkpoint(folder / 'run.ckpt')
    return task, losses.values


@pytest.mark.slow
@pytest.mark.parametrize(
    ('method', 'options'),
    [
        (FastSiam, {'channels_last': True}),
        (FastSiam, {'compile': True, 'backend': 'aot_eager'}),
        (BYOL, {'channels_last': True}),
    ],
)
def test_training_is_the_same(
    tiny_data: type[LightningDataModule], tmp_path: Path, method: type[Any], options: dict[str, Any]
) -> None:
    plain, expected = train(tiny_data, tmp_path, method)
    fast, losses = train(tiny_data, tmp_path, method, **options)
    assert losses == pytest.approx(expected, rel=1e-3, abs=1e-4)  # rounding, batch norm over few chips
    assert losses[0] != losses[1]
    assert fast.state_dict().keys() == plain.state_dict().keys()
    # and its checkpoint goes on without it
    again = method.load_from_checkpoint(tmp_path / 'run.ckpt', weights_only=True)
    torch.testing.assert_close(again.state_dict(), fast.state_dict(), rtol=0, atol=0)


@pytest.mark.slow
def test_networks_are_compiled_and_laid_out(tiny_data: type[LightningDataModule], tmp_path: Path) -> None:
    task, _ = train(tiny_data, tmp_path, FastSiam, 1, compile=True, channels_last=True, backend='eager')
    for network in (task.model, task.projection_head, task.prediction_head):
        assert network._compiled_call_impl is not None
    weight = next(weight for weight in task.model.parameters() if weight.ndim == 4 and min(weight.shape) > 1)
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()


def test_what_cannot_be_compiled_is_refused(tiny_data: type[LightningDataModule], tmp_path: Path) -> None:
    task = MAE(model='test_vit', in_channels=4)
    fast = Acceleration(compile=True)
    trainer = Trainer(default_root_dir=tmp_path, logger=False, accelerator='cpu', callbacks=[fast])
    with pytest.raises(ConfigurationError, match='compile: MAE'):
        trainer.fit(task, tiny_data())
    with pytest.raises(ConfigurationError, match=r'expected one of .*inductor.*, got'):
        Acceleration(backend='warp')
