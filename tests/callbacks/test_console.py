"""What a run prints."""

import io
import logging
import re
from types import SimpleNamespace
from typing import Any

import pytest
import rich
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelSummary
from lightning.pytorch.demos.boring_classes import BoringModel

from torchgeo_msssl.callbacks.console import EpochLines, NetworkLine, OneLineBar, console_callbacks
from torchgeo_msssl.callbacks.run_time import Stopwatch, announcement, duration


class LoggingModel(BoringModel):
    """A model that logs more than fits into a line of 80 characters."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.layer(batch).sum()
        for name in ('train_loss', 'embedding_std', 'mean_cosine', 'a_long_name_of_a_metric'):
            self.log(name, loss * 0 + 0.5, on_step=True, on_epoch=True, prog_bar=True)
        self.log('chips_per_s', 1234.5, prog_bar=True)
        return {'loss': loss}


def run(callback: Any, epochs: int = 2) -> None:
    callbacks = [Stopwatch(), NetworkLine(), callback]
    Trainer(
        max_epochs=epochs,
        limit_train_batches=3,
        limit_val_batches=1,
        callbacks=callbacks,
        accelerator='cpu',
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=isinstance(callback, OneLineBar),
        enable_model_summary=False,
        log_every_n_steps=1,
    ).fit(LoggingModel())


def test_the_bar_stays_on_one_line_of_80_columns() -> None:
    bar, screen = OneLineBar(), io.StringIO()
    bar._console_kwargs = {'file': screen, 'force_terminal': True, 'width': 80}
    try:
        run(bar)
    finally:
        rich.reconfigure()
    drawn = screen.getvalue()
    assert '\x1b[1A' not in drawn  # the cursor never goes up, as it does to draw several lines again
    lines = [re.sub(r'\x1b\[[0-9;?]*[a-zA-Z]', '', line) for line in re.split(r'[\r\n]+', drawn)]
    assert max(map(len, lines)) <= 80
    assert any(line.startswith('Epoch 2/2') and 'loss: 0.500 chips/s: 12' in line for line in lines)


def test_one_line_per_epoch_without_a_bar(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, 'torchgeo_msssl'):
        run(EpochLines())
    lines = [text for text in caplog.messages if text.startswith('Epoch')]
    assert [line.split(':')[0] for line in lines] == ['Epoch 1/2', 'Epoch 2/2']
    assert all(re.match(r'Epoch ./2: loss 0\.5, \d+ chips/s', line) for line in lines)
    assert lines[1].endswith('finished')
    assert 'Parameters: 66 trained (layer 66).' in caplog.messages
    assert not any('FLOPs' in text for text in caplog.messages)
    caplog.clear()
    NetworkLine.summarize([('Name', []), ('Params', [])], 0, 0, 0.0, {}, 0)
    assert not caplog.messages


def test_callbacks_of_the_configuration_are_not_repeated() -> None:
    def kinds(*given: Any, bar: bool = True, summary: bool = True) -> list[type]:
        return [type(callback) for callback in console_callbacks(given, bar, summary)]

    assert kinds() == [Stopwatch, NetworkLine, OneLineBar]
    assert kinds(bar=False, summary=False) == [Stopwatch, EpochLines]
    assert kinds(OneLineBar(), ModelSummary()) == [Stopwatch]


def expected(
    monkeypatch: pytest.MonkeyPatch, steps: float, per_step: float, threads: int, busy: float, device: str = 'cpu'
) -> list[str]:
    monkeypatch.setattr(torch, 'get_num_threads', lambda: threads)
    monkeypatch.setattr('os.sched_getaffinity', lambda _: set(range(4)), raising=False)
    trainer: Any = SimpleNamespace(estimated_stepping_batches=steps, global_step=10)
    return announcement(trainer, per_step, busy, device)


def test_time_and_hints(monkeypatch: pytest.MonkeyPatch) -> None:
    assert expected(monkeypatch, 20, 1, 4, 4) == []
    assert expected(monkeypatch, float('inf'), 1, 4, 4) == []
    line = '1,000 steps of 1 s: about 16 min left, without validation.'
    assert expected(monkeypatch, 1000, 1, 4, 3.8) == [line]
    assert 'OMP_NUM_THREADS=1 may be faster' in expected(monkeypatch, 1000, 1, 4, 0.9)[1]
    assert expected(monkeypatch, 12, 130.0, 4, 3.8) == ['12 steps of 2 min: about 4 min left, without validation.']
    slow = expected(monkeypatch, 10_000, 2, 1, 1)
    assert slow[0].startswith('10,000 steps of 2 s: about 5.5 h left')
    assert slow[1:] == [
        'One of 4 processors is used: OMP_NUM_THREADS=4 may be faster.',
        'For a run of 10 min set --trainer.max_steps 300.',
    ]
    assert len(expected(monkeypatch, 10_000, 2, 1, 1, device='cuda')) == 1
    assert [duration(seconds) for seconds in (45, 200, 7200)] == ['45 s', '3 min', '2.0 h']
