"""A frozen probe after pretraining, and optionally during it."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from torchgeo_msssl.contract import ProbedData
from torchgeo_msssl.datasets.scenes import Scenes
from torchgeo_msssl.errors import ConfigurationError, MSSSLError
from torchgeo_msssl.evaluation.encoder_names import CONVOLUTIONS, RANDOM, STATISTICS, Features
from torchgeo_msssl.evaluation.encoders import random_convolutions
from torchgeo_msssl.evaluation.features import (
    LabelledChips,
    band_statistics,
    extract_features,
    split_labelled_chips,
    split_validation_chips,
)
from torchgeo_msssl.evaluation.probes import ProbeResult, knn_probe, standardized
from torchgeo_msssl.files import write_json
from torchgeo_msssl.geo.labels.raster import RasterLabels
from torchgeo_msssl.models.encoders import StageFeatures, create_encoder
from torchgeo_msssl.models.stems import stem_of
from torchgeo_msssl.runs import run_folder
from torchgeo_msssl.validation import check_choice

log = logging.getLogger(__name__)

#: Name of the accuracy in the logs, for ``ModelCheckpoint`` too.
METRIC = 'knn_accuracy'


class FrozenProbe(Callback):
    """Compare the pretrained encoder with random weights, band statistics and random convolutions by kNN.

    Training and test chips come from ground blocks that share no pixel. The scores are printed, logged and written to
    ``knn.json`` in the run folder. Data without labels are not probed.

    With ``every_n_epochs`` the encoder is also probed during training, and ``knn_accuracy`` is logged, for the curves
    and for ``ModelCheckpoint(monitor='knn_accuracy', mode='max', every_n_epochs=…)``. No random number is drawn, so the
    training is the same with and without. The accuracy is measured on other ground than the final scores: their
    training half is halved again, into training and validation. The best checkpoint is therefore chosen without the
    labels of any test chip. The pixels of the chips are part of the pretraining ground, as in any transductive probe;
    only their labels are kept apart.
    """

    def __init__(
        self,
        chip_size: int = 32,
        k: int = 5,
        purity: float = 0.7,
        block_size: int = 128,
        every_n_epochs: int | None = None,
        features: Features = 'last',
    ) -> None:
        """Initialize the callback.

        Args:
            chip_size: Side of a labelled chip in pixels.
            k: Number of neighbours.
            purity: Minimum fraction of a chip's pixels that its class covers.
            block_size: Side of a ground block in pixels.
            every_n_epochs: Number of epochs between probes during training; None probes at the end only.
            features: Pooled ``last`` map of the networks, or means of the maps of all ``stages``, standardized.

        Raises:
            ConfigurationError: If blocks are smaller than chips, the number of epochs is below 1, or there are no such
                features.
        """
        check_choice('features', features, Features)
        if block_size < chip_size:
            raise ConfigurationError(f'block_size: expected at least chip_size {chip_size}, got {block_size}.')
        if every_n_epochs is not None and every_n_epochs < 1:
            raise ConfigurationError(f'every_n_epochs: expected at least 1, or null, got {every_n_epochs}.')
        self.chip_size = chip_size
        self.k = k
        self.purity = purity
        self.block_size = block_size
        self.every_n_epochs = every_n_epochs
        self.features: Features = features
        self._validation: tuple[LabelledChips, LabelledChips] | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check before hours of training that the label files exist."""
        self._validation = None
        data = _labelled_data(trainer)
        if data is not None:
            _open_labels(data)
        else:  # Lightning would warn of a monitored metric that is never logged
            warnings.filterwarnings('ignore', f".*monitor='{METRIC}'.*could not find the monitored key")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Probe the encoder after every ``every_n_epochs`` epochs."""
        data = _labelled_data(trainer)
        if self.every_n_epochs is None or data is None:
            return
        if (trainer.current_epoch + 1) % self.every_n_epochs:
            # the value of an earlier epoch would be taken for that of this one
            trainer.callback_metrics.pop(METRIC, None)
            return
        accuracy = self._accuracy(data, pl_module) if trainer.is_global_zero else None
        accuracy = trainer.strategy.broadcast(accuracy)
        if accuracy is None:  # later probes would fail too
            self.every_n_epochs = None
        else:
            pl_module.log(METRIC, accuracy, prog_bar=True, batch_size=1, sync_dist=True)  # equal on all ranks

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Probe the trained encoder."""
        folder = run_folder(trainer)  # on every rank, because it waits for all of them
        if not trainer.is_global_zero:
            return
        data = _labelled_data(trainer)
        if data is None:
            log.info('The encoder was not probed: there are no labels (data.labels).')
            return
        try:
            train, test = split_labelled_chips(data.scenes, _open_labels(data), *self._chips)
            results = self._compare(pl_module, data.scenes, train, test)
        except MSSSLError as error:  # the encoder is saved already, so the run has not failed
            log.warning('The encoder was not probed: %s', error)
            return
        self._report(results, len(train.labels), len(test.labels), len(np.unique(train.labels)))
        if folder is not None:
            write_json(folder / 'knn.json', {name: asdict(result) for name, result in results.items()})

    def _accuracy(self, data: ProbedData, task: LightningModule) -> float | None:
        try:
            if self._validation is None:  # found once per run
                self._validation = split_validation_chips(data.scenes, _open_labels(data), *self._chips)
            with _in_evaluation_mode(_encoder(task)) as encoder:
                return self._score(self._embedding(encoder), task, data.scenes, *self._validation).accuracy
        except MSSSLError as error:
            log.warning('The encoder is not probed during training: %s', error)
            return None

    @property
    def _chips(self) -> tuple[int, float, int]:
        return self.chip_size, self.purity, self.block_size

    def _compare(
        self, task: LightningModule, scenes: Scenes, train: LabelledChips, test: LabelledChips
    ) -> dict[str, ProbeResult]:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            name, in_channels = task.hparams['model'], task.hparams['in_channels']
            random = create_encoder(name, in_channels, stem=stem_of(_encoder(task))).to(task.device)
        convolutions = random_convolutions(in_channels, seed=0).to(task.device)
        with _in_evaluation_mode(_encoder(task)) as encoder:
            return {
                'pretrained': self._score(self._embedding(encoder), task, scenes, train, test),
                RANDOM: self._score(self._embedding(random.eval()), task, scenes, train, test),
                STATISTICS: self._score(band_statistics, task, scenes, train, test),
                CONVOLUTIONS: self._score(convolutions, task, scenes, train, test),
            }

    def _embedding(self, encoder: nn.Module) -> nn.Module:
        return StageFeatures(encoder) if self.features == 'stages' else encoder

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

        first, second = (extract_features(embed, scenes, chips, prepare, task.device) for chips in (train, test))
        # maps of several stages differ in magnitude, and the largest would decide which neighbours are nearest
        if isinstance(embed, StageFeatures):
            first, second = standardized(first, second)
        return knn_probe(first, train.labels, second, test.labels, self.k)

    def _report(self, results: dict[str, ProbeResult], train: int, test: int, classes: int) -> None:
        side = self.chip_size
        print(
            f'Frozen {self.k}-NN, {classes} classes, {train} chips of {side}×{side} pixels, {test} on other ground '
            f'(best constant answer: {results["pretrained"].chance:.3f}):'
        )
        for name, result in results.items():
            print(f'  {name:<22} accuracy {result.accuracy:.3f}   balanced {result.balanced_accuracy:.3f}')


def _labelled_data(trainer: Trainer) -> ProbedData | None:
    """Data module of a trainer if it has labels for a probe."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    return data if isinstance(data, ProbedData) and data.labels is not None else None


def _open_labels(data: ProbedData) -> RasterLabels:
    assert data.labels is not None
    return RasterLabels(data.labels)


def _encoder(task: LightningModule) -> nn.Module:
    return task.model  # type: ignore[return-value]


@contextmanager
def _in_evaluation_mode(encoder: nn.Module) -> Iterator[nn.Module]:
    """Switch an encoder to evaluation mode; restore the mode of each module afterwards."""
    modes = {module: module.training for module in encoder.modules()}
    try:
        yield encoder.eval()
    finally:
        for module, mode in modes.items():
            module.training = mode
