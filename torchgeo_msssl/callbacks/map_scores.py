"""Test of the map that ``predict`` would write, instead of single chips."""

from typing import cast

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from torchgeo_msssl.contract import MappedData
from torchgeo_msssl.prediction.ground_map import ClassTiles, GroundMaps, map_ground
from torchgeo_msssl.prediction.predict import describe_windows, map_options, network_of
from torchgeo_msssl.tasks.pixel_classification import PixelClassification


class MapScores(Callback):
    """Let a test score the map of the test ground.

    Users get the map, in which pixels have more context than in a chip. The map is that of ``predict`` with its
    default options, restricted to windows that touch the test ground, and is kept in memory. Chips of a folder have no
    surroundings and are scored one by one.

    ``python -m torchgeo_msssl test`` adds this callback.
    """

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Map the test ground; every rank maps its share of the scenes. A trial with `fast_dev_run` maps nothing."""
        if not isinstance(pl_module, PixelClassification):
            return
        pl_module.maps = None
        data = trainer.datamodule  # type: ignore[attr-defined]
        ground = data.mapped_ground if isinstance(data, MappedData) else None
        if ground is None or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        pl_module.check_trained()
        scenes, region = ground
        options, shown = map_options(pl_module, len(scenes.bands)), trainer.is_global_zero
        if shown:
            print(f'Scoring the map of the test ground.\n{describe_windows(options)}')
        own = range(trainer.global_rank, len(scenes.scenes), trainer.world_size)
        maps = map_ground(network_of(pl_module), scenes, region, options, pl_module.device, own, progress=shown)
        pl_module.maps = GroundMaps(_shared(trainer, maps))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the map."""
        cast(PixelClassification, pl_module).maps = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Forget the map of a test that was stopped."""
        cast(PixelClassification, pl_module).maps = None


def _shared(trainer: Trainer, own: dict[int, ClassTiles]) -> dict[int, ClassTiles]:
    """Collect the maps of all ranks."""
    maps: dict[int, ClassTiles] = {}
    for rank in range(trainer.world_size):
        maps |= trainer.strategy.broadcast(own if rank == trainer.global_rank else {}, src=rank)
    return maps
