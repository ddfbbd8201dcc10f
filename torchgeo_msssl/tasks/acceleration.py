"""Compiled networks and channels-last layout."""

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import nn

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.tasks.decoder_training import DecoderTraining
from torchgeo_msssl.tasks.restoration import RestorationTask
from torchgeo_msssl.tasks.vicregl import VICRegL
from torchgeo_msssl.validation import check_choice

__all__ = ('Acceleration',)


class Acceleration(Callback):
    """Compiles the networks of a task, and converts their tensors to channels last.

    Both keep names and values of the weights, so checkpoints are compatible with and without. Half precision is an
    option of the trainer: ``--trainer.precision bf16-mixed``.
    """

    def __init__(self, compile: bool = False, channels_last: bool = False, backend: str = 'inductor') -> None:
        """Set the options.

        Args:
            compile: Whether to compile each network of the task at its first step
                (`torch.compile <https://docs.pytorch.org/docs/stable/torch.compiler.html>`_), which takes about a
                minute and needs a C++ compiler on a CPU; batches of another size (the last one of an epoch in
                segmentation) compile once more.
            channels_last: Whether to store images and convolutions with channels last, which is faster on a GPU,
                especially with ``bf16-mixed``.
            backend: Backend of ``torch.compile``.

        Raises:
            ConfigurationError: If there is no such backend.
        """
        check_choice('backend', backend, torch.compiler.list_backends(exclude_tags=()))
        self.compile = compile
        self.channels_last = channels_last
        self.backend = backend

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Prepare the networks before their optimizers are created.

        Raises:
            ConfigurationError: If the task calls parts of its networks separately.
        """
        if stage != 'fit':
            return
        networks = [child for child in pl_module.children() if any(True for _ in child.parameters())]
        if self.channels_last:
            for network in networks:
                network.to(memory_format=torch.channels_last)
        if self.compile:
            _compile(pl_module, networks, self.backend)


def _compile(task: LightningModule, networks: list[nn.Module], backend: str) -> None:
    if isinstance(task, RestorationTask | DecoderTraining | VICRegL):
        raise ConfigurationError(
            f'compile: {type(task).__name__} calls parts of its encoder, which cannot be compiled; leave it out.'
        )
    for network in networks:
        network.compile(backend=backend)
