"""Scenes spread over the processes of a trainer."""

from collections.abc import Callable

from lightning.fabric.utilities.distributed import _set_num_threads_if_needed
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.processes import WorkerError
from torchgeo_msssl.shards import Shard

__all__ = ('run_on_ranks',)


def run_on_ranks(trainer: Trainer, function: Callable[[Shard], object]) -> None:
    """Call a function in every process of a trainer, and wait for those that this process has started.

    The processes do not communicate: each does its part of the work, and writes its own files. On one machine Lightning
    starts the others with the same command; on a cluster ``srun`` or ``torchrun`` has started them.

    Args:
        trainer: The trainer, with its devices, nodes and strategy.
        function: Called with the part of this process, whose index is its rank + 1.

    Raises:
        ConfigurationError: If the strategy starts processes in another way.
        WorkerError: If another process on this machine has failed.
    """
    strategy = trainer.strategy
    if isinstance(strategy, SingleDeviceStrategy):
        function(Shard())
        return
    launcher = strategy.launcher
    if not isinstance(strategy, DDPStrategy) or not isinstance(launcher, _SubprocessScriptLauncher):
        raise ConfigurationError(
            f'trainer.strategy: predict spreads scenes over processes with ddp, got {type(strategy).__name__}'
            f'{"" if launcher is None else f" with {type(launcher).__name__}"}; set trainer.strategy to ddp, or '
            'trainer.devices to 1.'
        )

    def run() -> None:
        strategy.set_world_ranks()
        function(Shard(strategy.global_rank + 1, strategy.world_size))

    environment = launcher.cluster_environment
    environment.validate_settings(num_devices=launcher.num_processes, num_nodes=launcher.num_nodes)
    try:
        # launch() would also kill this process as soon as another one fails, in the middle of its own scenes
        if not environment.creates_processes_externally:
            launcher._call_children_scripts()
        _set_num_threads_if_needed(num_processes=launcher.num_processes)
        run()
    except BaseException:
        for process in launcher.procs:
            process.terminate()
        raise
    if any([process.wait() for process in launcher.procs]):
        raise WorkerError('predict: another process has failed, see its error above; run the same command to resume.')
