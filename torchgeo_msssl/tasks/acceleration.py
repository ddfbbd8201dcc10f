"""Ways to compute the same faster."""

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import nn

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.tasks.restoration import RestorationTask

__all__ = ('Acceleration',)


class Acceleration(Callback):
    """Compiles the networks of a task, and lays their tensors out with channels last.

    Both leave names and values of the weights as they are, so checkpoints go either way. Half precision is the
    trainer's: ``--trainer.precision bf16-mixed``.
    """

    def __init__(self, compile: bool = False, channels_last: bool = False, backend: str = 'inductor') -> None:
        """Choose.

        Args:
            compile: Compile each network of the task at its first step
                (`torch.compile <https://docs.pytorch.org/docs/stable/torch.compiler.html>`_), which takes a minute or
                so and needs a C++ compiler on a CPU; batches of another size (the last one of an epoch in
                segmentation) compile once more.
            channels_last: Lay images and convolutions out with channels last, which suits convolutions on a GPU, most
                of all with ``bf16-mixed``.
            backend: Of ``torch.compile``.

        Raises:
            ConfigurationError: If there is no such backend.
        """
        if backend not in (known := torch.compiler.list_backends(exclude_tags=())):
            raise ConfigurationError(f'backend: expected one of {", ".join(map(str, known))}, got {backend!r}.')
        self.compile = compile
        self.channels_last = channels_last
        self.backend = backend

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Prepare the networks, before their optimizers are made.

        Args:
            trainer: Trainer.
            pl_module: Task.
            stage: ``fit``, or what is left as it is.

        Raises:
            ConfigurationError: If the task has networks of which it calls the parts alone.
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
    if isinstance(task, RestorationTask):
        raise ConfigurationError(
            f'compile: {type(task).__name__} calls parts of its encoder, which this does not compile; leave it out.'
        )
    for network in networks:
        network.compile(backend=backend)
