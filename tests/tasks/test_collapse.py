"""Collapse is logged, warned of, and stops a run when asked."""

import logging
from types import SimpleNamespace

import pytest
import torch

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.tasks.collapse import CollapseMonitor


class Module:
    """Takes what a LightningModule would log."""

    def __init__(self) -> None:
        self.logged: dict[str, float] = {}

    def log(self, name: str, value: torch.Tensor, **_: object) -> None:
        self.logged[name] = float(value)


def run_epoch(monitor: CollapseMonitor, embedding: torch.Tensor) -> tuple[SimpleNamespace, Module]:
    alone = SimpleNamespace(reduce=lambda value, reduce_op: value)
    trainer, module = SimpleNamespace(should_stop=False, strategy=alone), Module()
    outputs = {'features': embedding, 'embedding': embedding}
    for i in range(3):
        monitor.on_train_batch_end(trainer, module, outputs, {}, i)
    monitor.on_train_epoch_end(trainer, module)
    return trainer, module


def test_healthy_embeddings_pass(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    trainer, module = run_epoch(CollapseMonitor(patience=1), torch.randn(256, 64))
    assert module.logged['epoch_embedding_std'] == pytest.approx(64**-0.5, rel=0.05)
    assert abs(module.logged['mean_cosine']) < 0.05
    assert module.logged['rank_me'] > 40
    assert not trainer.should_stop
    assert not caplog.records


def test_collapse_warns_then_stops(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    same = torch.ones(64, 64) + 1e-4 * torch.randn(64, 64)
    monitor = CollapseMonitor(patience=2)
    with caplog.at_level(logging.WARNING, logger='torchgeo_msssl.tasks.collapse'):
        trainer, module = run_epoch(monitor, same)
        assert module.logged['mean_cosine'] > 0.99
        assert not trainer.should_stop
        trainer, _ = run_epoch(monitor, same)
    assert trainer.should_stop
    assert 'collapsing' in caplog.text


def test_recovery_starts_the_count_anew_and_the_count_is_saved() -> None:
    same = torch.ones(64, 64)
    monitor = CollapseMonitor(patience=2)
    run_epoch(monitor, same)
    run_epoch(monitor, torch.randn(64, 64))
    assert not run_epoch(monitor, same)[0].should_stop
    resumed = CollapseMonitor(patience=2)
    resumed.load_state_dict(monitor.state_dict())
    assert run_epoch(resumed, same)[0].should_stop


def test_patience_is_checked() -> None:
    with pytest.raises(ConfigurationError, match='collapse_patience'):
        CollapseMonitor(patience=0)
