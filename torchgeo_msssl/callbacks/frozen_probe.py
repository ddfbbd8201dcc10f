"""A frozen probe at the end of pretraining, or all along it."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from torchgeo_msssl.datasets.scenes import Scenes
from torchgeo_msssl.errors import ConfigurationError, MSSSLError
from torchgeo_msssl.evaluation.features import (
    LabelledChips,
    band_statistics,
    extract_features,
    split_chips_to_choose,
    split_labelled_chips,
)
from torchgeo_msssl.evaluation.probes import ProbeResult, knn_probe
from torchgeo_msssl.files import write_json
from torchgeo_msssl.geo.headers import find_scenes
from torchgeo_msssl.models.encoders import create_encoder
from torchgeo_msssl.runs import run_folder

log = logging.getLogger(__name__)

#: Name of the accuracy in the logs, for ``ModelCheckpoint`` too.
METRIC = 'knn_accuracy'


class FrozenProbe(Callback):
    """Compares the pretrained encoder with random weights and band statistics, by kNN on labelled chips.

    Training and test chips come from blocks of ground that have no pixel in common. The scores are printed, logged
    and written to ``knn.json`` in the run folder. Data without labels are not probed.

    With ``every_n_epochs`` the encoder is also probed while it learns, and ``knn_accuracy`` is logged, for the curves
    and for ``ModelCheckpoint(monitor='knn_accuracy', mode='max', every_n_epochs=…)``. Nothing random is drawn, so the
    training is the same with and without. It is scored on other ground than the final numbers: the half of the blocks
    that these learn from is halved again, to learn from and to choose by. The checkpoint that is best by it was chosen
    without the labels of any test chip. The pixels of the chips are part of the pretraining ground, as in any
    transductive probe; what is kept apart are their labels.
    """

    def __init__(
        self,
        chip_size: int = 32,
        k: int = 5,
        purity: float = 0.7,
        block_size: int = 128,
        every_n_epochs: int | None = None,
    ) -> None:
        """Choose chips and probe.

        Args:
            chip_size: Side of a labelled chip in pixels.
            k: Neighbours.
            purity: Smallest share of a chip's pixels that its class has.
            block_size: Side of a block of ground in pixels.
            every_n_epochs: Also probe after every so many epochs; None only at the end.

        Raises:
            ConfigurationError: If blocks are smaller than chips, or the number of epochs is below 1.
        """
        if block_size < chip_size:
            raise ConfigurationError(f'block_size: expected at least chip_size {chip_size}, got {block_size}.')
        if every_n_epochs is not None and every_n_epochs < 1:
            raise ConfigurationError(f'every_n_epochs: expected at least 1, or null, got {every_n_epochs}.')
        self.chip_size = chip_size
        self.k = k
        self.purity = purity
        self.block_size = block_size
        self.every_n_epochs = every_n_epochs
        self._to_choose: tuple[LabelledChips, LabelledChips] | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See that the labels are there, before hours of training."""
        self._to_choose = None
        labels = getattr(getattr(trainer, 'datamodule', None), 'labels', None)
        if labels is not None:
            find_scenes(labels)
        else:  # a checkpoint by its accuracy is then not written, which Lightning takes for a mistake in the code
            warnings.filterwarnings('ignore', f".*monitor='{METRIC}'.*could not find the monitored key")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Probe the encoder as it is, where it is time to."""
        data = getattr(trainer, 'datamodule', None)
        if self.every_n_epochs is None or getattr(data, 'labels', None) is None:
            return
        if (trainer.current_epoch + 1) % self.every_n_epochs:
            # the value of an earlier epoch would be taken for this one's
            trainer.callback_metrics.pop(METRIC, None)
            return
        accuracy = self._accuracy(data, pl_module) if trainer.is_global_zero else None
        # every rank comes by here, and all have the same value
        accuracy = trainer.strategy.broadcast(accuracy)
        if accuracy is None:  # nor will there be one later
            self.every_n_epochs = None
        else:
            pl_module.log(METRIC, accuracy, prog_bar=True, batch_size=1, sync_dist=True)  # the mean of equals

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Probe the encoder as it is when training ends."""
        data = getattr(trainer, 'datamodule', None)
        folder = run_folder(trainer)  # not on rank 0 alone: the others would wait for it for ever
        if not trainer.is_global_zero:
            return
        if data is None or getattr(data, 'labels', None) is None:
            log.info('No labels given (data.labels): the encoder was not probed.')
            return
        try:
            train, test = split_labelled_chips(*self._cut(data))
            results = self._compare(pl_module, data.scenes, train, test)
        except MSSSLError as error:  # the encoder is trained and saved: that the probe fails is no failure of the run
            log.warning('The encoder was not probed: %s', error)
            return
        self._report(results, len(train.labels), len(test.labels), len(np.unique(train.labels)))
        if folder is not None:
            write_json(folder / 'knn.json', {name: asdict(result) for name, result in results.items()})

    def _accuracy(self, data: Any, task: LightningModule) -> float | None:
        try:
            if self._to_choose is None:  # looked for once a run
                self._to_choose = split_chips_to_choose(*self._cut(data))
            train, test = self._to_choose
            with _in_evaluation_mode(_encoder(task)) as encoder:
                return self._score(encoder, task, data.scenes, train, test).accuracy
        except MSSSLError as error:
            log.warning('The encoder is not probed while it learns: %s', error)
            return None

    def _cut(self, data: Any) -> tuple[Any, ...]:
        """What chips are cut from, and how."""
        return data.scenes, data.labels, self.chip_size, self.purity, self.block_size

    def _compare(
        self, task: LightningModule, scenes: Scenes, train: LabelledChips, test: LabelledChips
    ) -> dict[str, ProbeResult]:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            random = create_encoder(task.hparams['model'], task.hparams['in_channels']).to(task.device)
        with _in_evaluation_mode(_encoder(task)) as encoder:
            return {
                'pretrained': self._score(encoder, task, scenes, train, test),
                'random initialisation': self._score(random.eval(), task, scenes, train, test),
                'band statistics': self._score(band_statistics, task, scenes, train, test),
            }

    def _score(
        self,
        embed: Callable[[Tensor], Tensor],
        task: LightningModule,
        scenes: Scenes,
        train: LabelledChips,
        test: LabelledChips,
    ) -> ProbeResult:
        normalize: nn.Module = task.normalize  # type: ignore[assignment]

        def prepare(batch: dict[str, Tensor]) -> Tensor:
            return normalize(*(batch.get(key) for key in ('image', 'valid', 'scale', 'offset')))

        features = [extract_features(embed, scenes, chips, prepare, task.device) for chips in (train, test)]
        return knn_probe(features[0], train.labels, features[1], test.labels, self.k)

    def _report(self, results: dict[str, ProbeResult], train: int, test: int, classes: int) -> None:
        side = self.chip_size
        print(
            f'Frozen {self.k}-NN, {classes} classes, {train} chips of {side}×{side} pixels, {test} on other ground '
            f'(best constant answer: {results["pretrained"].chance:.3f}):'
        )
        for name, result in results.items():
            print(f'  {name:<22} accuracy {result.accuracy:.3f}   balanced {result.balanced_accuracy:.3f}')


def _encoder(task: LightningModule) -> nn.Module:
    return task.model  # type: ignore[return-value]


@contextmanager
def _in_evaluation_mode(encoder: nn.Module) -> Iterator[nn.Module]:
    """Lend an encoder that computes as it will when it is used; afterwards it is as it was, frozen parts too."""
    modes = {module: module.training for module in encoder.modules()}
    try:
        yield encoder.eval()
    finally:
        for module, mode in modes.items():
            module.training = mode
