"""Scenes that a restoration task was given and returned, as GeoTIFFs.

A scene is corrupted tile by tile, each tile as large as a training chip and with random numbers that depend on its
position alone, so that the corrupted scene does not depend on the windows. The network is applied to overlapping
windows of whole tiles, which are blended.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchgeo_msssl.geo.bad_scenes import BadScenes, OnBadScene
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.headers import own_scenes
from torchgeo_msssl.geo.radiometry import Radiometry
from torchgeo_msssl.geo.scene import Scene, check_names
from torchgeo_msssl.geo.user_cache import scene_key
from torchgeo_msssl.geo.write import GeoTIFFSpec
from torchgeo_msssl.prediction.pipeline import WindowPredictor, content_key, hash_weights, run_prediction
from torchgeo_msssl.prediction.scenes import open_scenes, read_mirrored
from torchgeo_msssl.prediction.stitch import FinishedRows, Stitching
from torchgeo_msssl.prediction.training_comparison import compare_with_training
from torchgeo_msssl.shards import Shard
from torchgeo_msssl.tasks.restoration import RestorationTask

__all__ = ('KINDS', 'reconstruct_scenes')

#: Files of each scene, ``<scene>_<kind>.tif``.
KINDS = ('original', 'corrupted', 'reconstruction_and_visible', 'reconstruction')
#: Side of the training chips if the task does not know it, in pixels.
_CHIP = 64
#: Approximate number of pixels per forward pass.
_PIXELS_PER_BATCH = 512 * 512


def reconstruct_scenes(
    task: RestorationTask,
    paths: str | Sequence[str],
    folder: str | os.PathLike[str] = 'predictions',
    sensor: str | None = None,
    offset: float | Literal['auto'] = 'auto',
    device: torch.device | str = 'cpu',
    overwrite: bool = False,
    check_radiometry: bool = True,
    shard: Shard | None = None,
    on_bad_scene: OnBadScene = 'raise',
    rank: Shard | None = None,
) -> list[Path]:
    """Write every scene as it is, corrupted, and restored.

    Each of :data:`KINDS` is a GeoTIFF of reflectance, float32, NaN where the scene has no data. See
    :func:`~torchgeo_msssl.prediction.pipeline.run_prediction` for memory, resuming and files that exist already.

    Args:
        task: The trained task.
        paths: Scenes: files, folders or patterns.
        folder: Folder for ``<scene>_<kind>.tif``.
        sensor: Sensor of the scenes, for files that do not name it; None for that of the training.
        offset: Digital number added before scaling; ``auto`` reads it from metadata or date.
        device: Device to compute on.
        overwrite: Whether to restore again what exists already.
        check_radiometry: Whether to refuse scenes whose reflectance has another unit than that of the training.
        shard: Part of the scenes to restore; None for all of them.
        on_bad_scene: Whether a scene that cannot be read is an error, or is left out and counted.
        rank: Part of the scenes of the shard that this process restores, if several processes share them.

    Returns:
        Four files per scene, in the order of :data:`KINDS`.

    Raises:
        ConfigurationError: If two scenes would have the same files, a scene has another unit than the training, or the
            network's output is not finite.
        MSSSLError: If a scene lacks a band, is damaged, or a file cannot be written.
    """
    metadata = task.metadata()
    bad = BadScenes(on_bad_scene)
    scenes, known = open_scenes(paths, sensor, metadata.sensor, plain=True, bad=bad)
    total = len(scenes) + len(bad.errors)
    check_names(scenes, f'_{KINDS[0]}.tif', 'predict_paths')
    task = task.to(device).eval()
    weights = hash_weights(task)
    written: list[Path] = []
    for scene in own_scenes(scenes, paths, shard, rank):
        with bad.guard():
            bands = tuple(metadata.bands or scene.bands)
            how = compare_with_training(scene, bands, known, offset, metadata, check_radiometry)
            predictor = _Restoration(task, scene, bands, how, metadata.chip_size or _CHIP, device)
            tags = {'UNIT': 'reflectance'} | ({'NOTE': task.note} if task.note else {})
            spec = GeoTIFFSpec(len(bands), 'float32', bands, float('nan'), tags=tags)
            files = {Path(folder) / f'{scene.name}_{kind}.tif': spec for kind in KINDS}
            run = run_prediction(predictor, files, predictor.key(weights), overwrite=overwrite)
            print(f'{"Already exists" if run.skipped else "Wrote"}: {", ".join(map(str, files))}')
            written += files
    if bad.errors:
        print(bad.summary(total))
    return written


@dataclass(frozen=True)
class _Tile:
    """A part of a scene, on the CPU, (channel, height, width)."""

    original: Tensor
    valid: Tensor
    corrupted: Tensor
    hidden: Tensor

    @classmethod
    def join(cls, lines: Sequence[Sequence['_Tile']]) -> '_Tile':
        """Join rows of tiles."""

        def joined(name: str) -> Tensor:
            rows = [torch.cat([getattr(tile, name) for tile in line], dim=-1) for line in lines]
            return torch.cat(rows, dim=-2)

        return cls(*(joined(name) for name in ('original', 'valid', 'corrupted', 'hidden')))


class _Restoration(WindowPredictor[_Tile]):
    """Reflectance of one scene as restored by a task."""

    def __init__(
        self,
        task: RestorationTask,
        scene: Scene,
        bands: tuple[str, ...],
        how: Radiometry,
        chip: int,
        device: torch.device | str,
    ) -> None:
        self.side, window = task.tile_and_window(chip)
        overlap = self.side if window > self.side else 0
        tiling = Stitching('hann', window, overlap=overlap).tiling(scene.grid.height, scene.grid.width)
        batch_size = max(1, _PIXELS_PER_BATCH // tiling.rows.size**2)
        super().__init__(scene, scene.grid, tiling, len(bands), batch_size)
        self.task, self.bands, self.how, self.device = task, bands, how, device
        #: The reader thread adds tiles; :meth:`render` removes those that no further row needs.
        self._tiles: dict[tuple[int, int], _Tile] = {}

    def key(self, weights: str) -> str:
        """Hash everything that determines the files."""
        options = {key: value for key, value in self.task.hparams.items() if key != 'weights'}
        # The first number is the version of the meaning of the files: raise it when the same settings give others.
        return content_key(
            1,
            scene_key(self.scene, self.bands),
            weights,
            self.how.scale,
            self.how.offset,
            self.side,
            self.tiling.rows.size,
            type(self.task).__name__,
            options,
        )

    def read(self, window: Window) -> tuple[_Tile, NDArray[np.bool_]]:
        for row, col in product(*self._tiles_of(window)):
            if (row, col) not in self._tiles:
                self._tiles[row, col] = self._corrupt(row, col)
        tile = self._assemble(window)
        return tile, tile.valid[0].numpy()

    def apply(self, samples: Sequence[_Tile]) -> NDArray[np.float32]:
        original, valid, corrupted, hidden = (
            torch.stack([getattr(sample, name) for sample in samples]).to(self.device)
            for name in ('original', 'valid', 'corrupted', 'hidden')
        )
        with torch.inference_mode():
            image = self.task.normalize.standardize(original, valid)
            restored = self.task.normalize.to_reflectance(self.task.restore(image, valid, corrupted, hidden))
        return restored.float().cpu().numpy()

    def render(self, rows: FinishedRows) -> list[NDArray[Any]]:
        height, width, side = len(rows.valid), self.grid.width, self.side
        # Whole tiles around the rows, cropped to them.
        above = rows.first % side
        tile = self._assemble(Window(rows.first - above, 0, above + height, width))
        crop = (..., slice(above, above + height), slice(width))
        original, valid, hidden = (part[crop].numpy() for part in (tile.original, tile.valid, tile.hidden))
        corrupted = self.task.normalize.to_reflectance(tile.corrupted[None].to(self.device))[0].cpu()[crop].numpy()
        corrupted = np.where(hidden, corrupted, original)
        filled = np.where(hidden, rows.values, original)
        for place in [place for place in list(self._tiles) if place[0] < (rows.first + height) // side]:
            del self._tiles[place]
        return [np.where(valid, image, np.float32(np.nan)) for image in (original, corrupted, filled, rows.values)]

    def _tiles_of(self, window: Window) -> tuple[range, range]:
        """Rows and columns of the tiles that a window meets."""
        side = self.side
        return (
            range(window.row // side, -(-(window.row + window.height) // side)),
            range(window.col // side, -(-(window.col + window.width) // side)),
        )

    def _corrupt(self, row: int, col: int) -> _Tile:
        side = self.side
        pixels, mask = read_mirrored(self.scene, Window(row * side, col * side, side, side), self.bands)
        batch = {
            'image': torch.from_numpy(pixels)[None],
            'valid': torch.from_numpy(mask)[None, None],
            'scale': torch.tensor(self.how.scale, dtype=torch.float32)[None],
            'offset': torch.tensor(self.how.offset, dtype=torch.float32)[None],
        }
        batch = {name: tensor.to(self.device) for name, tensor in batch.items()}
        image, valid = (part.cpu() for part in self.task.standardized(batch))
        original = self.task.reflectance(batch).cpu()
        # On the CPU, so that every device hides the same pixels; nothing else draws random numbers meanwhile.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int.from_bytes(hashlib.sha256(f'{row} {col}'.encode()).digest()[:7]))
            corrupted, hidden = self.task.corrupt(image, valid)
        return _Tile(original[0], valid[0], corrupted[0], hidden[0])

    def _assemble(self, window: Window) -> _Tile:
        """Join the tiles that a window meets."""
        rows, cols = self._tiles_of(window)
        return _Tile.join([[self._tiles[row, col] for col in cols] for row in rows])
