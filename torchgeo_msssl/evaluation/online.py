"""A frozen probe at the end of pretraining."""

import logging
from collections.abc import Callable
from dataclasses import asdict

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
    split_labelled_chips,
)
from torchgeo_msssl.evaluation.probes import ProbeResult, knn_probe
from torchgeo_msssl.files import write_json
from torchgeo_msssl.geo.headers import find_scenes
from torchgeo_msssl.models.encoders import create_encoder
from torchgeo_msssl.tasks.run_folder import run_folder

log = logging.getLogger(__name__)


class FrozenProbe(Callback):
    """Compares the pretrained encoder with random weights and band statistics, by kNN on labelled chips.

    Training and test chips come from blocks of ground that have no pixel in common. The scores are printed, logged
    and written to ``knn.json`` in the run folder. Data without labels are not probed.
    """

    def __init__(self, chip_size: int = 32, k: int = 5, purity: float = 0.7, block_size: int = 128) -> None:
        """Choose chips and probe.

        Args:
            chip_size: Side of a labelled chip in pixels.
            k: Neighbours.
            purity: Smallest share of a chip's pixels that its class has.
            block_size: Side of a block of ground in pixels.

        Raises:
            ConfigurationError: If blocks are smaller than chips.
        """
        if block_size < chip_size:
            raise ConfigurationError(f'block_size: expected at least chip_size {chip_size}, got {block_size}.')
        self.chip_size = chip_size
        self.k = k
        self.purity = purity
        self.block_size = block_size

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See that the labels are there, before hours of training."""
        labels = getattr(getattr(trainer, 'datamodule', None), 'labels', None)
        if labels is not None:
            find_scenes(labels)

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
            train, test = split_labelled_chips(data.scenes, data.labels, self.chip_size, self.purity, self.block_size)
            results = self._probe(pl_module, data.scenes, train, test)
        except MSSSLError as error:  # the encoder is trained and saved: that the probe fails is no failure of the run
            log.warning('The encoder was not probed: %s', error)
            return
        self._report(results, len(train.labels), len(test.labels), len(np.unique(train.labels)))
        if folder is not None:
            write_json(folder / 'knn.json', {name: asdict(result) for name, result in results.items()})

    def _probe(
        self, task: LightningModule, scenes: Scenes, train: LabelledChips, test: LabelledChips
    ) -> dict[str, ProbeResult]:
        encoder: nn.Module = task.model  # type: ignore[assignment]
        normalize: nn.Module = task.normalize  # type: ignore[assignment]
        with torch.random.fork_rng():
            torch.manual_seed(0)
            random = create_encoder(task.hparams['model'], task.hparams['in_channels']).to(task.device)
        modes = {module: module.training for module in encoder.modules()}  # parts may be frozen

        def prepare(batch: dict[str, Tensor]) -> Tensor:
            return normalize(*(batch.get(key) for key in ('image', 'valid', 'scale', 'offset')))

        def score(embed: Callable[[Tensor], Tensor]) -> ProbeResult:
            features = [extract_features(embed, scenes, chips, prepare, task.device) for chips in (train, test)]
            return knn_probe(features[0], train.labels, features[1], test.labels, self.k)

        try:
            return {
                'pretrained': score(encoder.eval()),
                'random initialisation': score(random.eval()),
                'band statistics': score(band_statistics),
            }
        finally:
            for module, mode in modes.items():
                module.training = mode

    def _report(self, results: dict[str, ProbeResult], train: int, test: int, classes: int) -> None:
        side = self.chip_size
        print(
            f'Frozen {self.k}-NN, {classes} classes, {train} chips of {side}×{side} pixels, {test} on other ground '
            f'(best constant answer: {results["pretrained"].chance:.3f}):'
        )
        for name, result in results.items():
            print(f'  {name:<22} accuracy {result.accuracy:.3f}   balanced {result.balanced_accuracy:.3f}')
