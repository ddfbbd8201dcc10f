"""Whole scenes as a restoring network was given them, and as it gave them back.

A scene is spoilt tile by tile, each tile as large as a chip of the training and with random numbers that depend on its
place alone, so that there is one spoilt scene whatever the windows. The network sees overlapping windows of whole
tiles, which fade into each other. All files have the scene's CRS, transform and size.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import torchgeo_msssl
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.radiometry import Radiometry, radiometry
from torchgeo_msssl.geo.resumable import BLOCK, ResumableGeoTIFFs
from torchgeo_msssl.geo.scene import Scene
from torchgeo_msssl.geo.user_cache import scene_key
from torchgeo_msssl.geo.write import GeoTIFFSpec
from torchgeo_msssl.prediction.background_io import WriteBehind, read_ahead
from torchgeo_msssl.prediction.class_map import KEY_TAG, key_of, read_mirrored
from torchgeo_msssl.prediction.scenes import check_bands, namesakes, open_scenes
from torchgeo_msssl.prediction.stitch import RowBandAccumulator, Stitching
from torchgeo_msssl.progress import progress_bar
from torchgeo_msssl.tasks.restoration import RestorationTask

__all__ = ('KINDS', 'reconstruct_scenes')

#: What is written of each scene, ``<scene>_<kind>.tif``; the last one stands for them all.
KINDS = ('original', 'corrupted', 'reconstruction_and_visible', 'reconstruction')
#: Chips of a task that does not know how large they were, in pixels.
_CHIP = 64
#: Pixels that the network is given at once, about.
_AT_ONCE = 512 * 512
#: Batches of windows that are read and spoilt before the network asks for them.
_BATCHES_AHEAD = 2


def reconstruct_scenes(
    task: RestorationTask,
    paths: str | Sequence[str],
    folder: str | os.PathLike[str] = 'predictions',
    sensor: str | None = None,
    offset: float | Literal['auto'] = 'auto',
    device: torch.device | str = 'cpu',
    overwrite: bool = False,
) -> list[Path]:
    """Write every scene as it was, as it was spoilt, and as it was restored.

    Each of :data:`KINDS` is a GeoTIFF of reflectance, float32, NaN where the scene has no data. The memory does not
    depend on a scene's height. A run that was killed goes on when called again; files that are there already, of the
    same scene and network, are kept.

    Args:
        task: The trained task.
        paths: Scenes: files, folders or patterns.
        folder: Where ``<scene>_<kind>.tif`` is written.
        sensor: Sensor of the scenes, where their files do not tell; None for that of the training.
        offset: Added to digital numbers before scaling; ``auto`` reads it from metadata or date.
        device: Where to compute.
        overwrite: Restore again what is there already.

    Returns:
        The files, four a scene, in the order of :data:`KINDS`.

    Raises:
        ConfigurationError: If two scenes would have the same files, or the network gives no finite values.
        MSSSLError: If a scene lacks a band, is damaged, or a file cannot be written.
    """
    metadata = task.metadata()
    scenes, known = open_scenes(paths, sensor, metadata.sensor)
    if twins := namesakes(scenes):
        raise ConfigurationError(
            f'predict_paths: several scenes would become {twins[0].name}_{KINDS[0]}.tif; restore them in two runs.'
        )
    task = task.to(device).eval()
    weights = _hash_weights(task)
    written: list[Path] = []
    for scene in scenes:
        bands = metadata.bands or scene.bands
        check_bands(scene, bands)
        outputs = [Path(folder) / f'{scene.name}_{kind}.tif' for kind in KINDS]
        how = radiometry(scene, bands, known, offset)
        run = _Run(task, scene, tuple(bands), how, metadata.chip_size or _CHIP, device)
        key = run.key(weights)
        if overwrite or any(key_of(path) != key for path in outputs):
            with ResumableGeoTIFFs(scene.grid, _layers(outputs, bands, key, task.note), key) as files:
                run.restore_into(files)
                files.publish()
            print(f'Wrote: {", ".join(map(str, outputs))}')
        else:
            print(f'Was there already: {", ".join(map(str, outputs))}')
        written += outputs
    return written


@dataclass(frozen=True)
class _Tile:
    """A square of a scene, on the CPU: reflectance, valid pixels, what the network is given, hidden pixels."""

    original: Tensor
    valid: Tensor
    corrupted: Tensor
    hidden: Tensor


class _Run:
    """One scene on its way through a network."""

    def __init__(
        self,
        task: RestorationTask,
        scene: Scene,
        bands: tuple[str, ...],
        how: Radiometry,
        chip: int,
        device: torch.device | str,
    ) -> None:
        self.task, self.scene, self.bands, self.how, self.device = task, scene, bands, how, device
        self.side, window = task.tile_and_window(chip)
        overlap = self.side if window > self.side else 0
        self.tiling = Stitching('hann', window, overlap=overlap).tiling(scene.grid.height, scene.grid.width)
        self._at_once = max(1, _AT_ONCE // self.tiling.rows.size**2)
        #: The reader puts tiles in, the writer takes them out when no further window needs them.
        self._tiles: dict[tuple[int, int], _Tile] = {}

    def key(self, weights: str) -> str:
        """Hash of all that decides the files."""
        options = {key: value for key, value in self.task.hparams.items() if key != 'weights'}
        # The number is of the meaning of the files: raise it when the same settings give others.
        text = json.dumps(
            [1, scene_key(self.scene, self.bands), weights, self.how.scale, self.how.offset, self.side,
             self.tiling.rows.size, type(self.task).__name__, options],
            default=str, sort_keys=True,
        )  # fmt: skip
        return hashlib.sha256(text.encode()).hexdigest()

    def restore_into(self, files: ResumableGeoTIFFs) -> None:
        """Restore the rows that are not safe yet."""
        if files.next_row >= self.scene.grid.height:
            return
        rows, cols = self.tiling.rows, self.tiling.cols
        accumulator = RowBandAccumulator(self.tiling, len(self.bands), self.tiling.first_row_of(files.next_row))
        places = product(range(accumulator.index, len(rows.starts)), range(len(cols.starts)))
        total = (len(rows.starts) - accumulator.index) * len(cols.starts)
        with (
            progress_bar(self.scene.name, total) as advance,
            ThreadPoolExecutor(1, 'reader') as reader,
            closing(read_ahead(reader, self._read, places, _BATCHES_AHEAD * self._at_once)) as windows,
            WriteBehind() as writer,
        ):
            done = 0
            while accumulator.index < len(rows.starts):
                done = self._restore_row(accumulator, windows, done, advance)
                finished = accumulator.finished()
                writer.call(self._write, files, finished.first, finished.probabilities.copy())
                accumulator.shift()

    def _restore_row(
        self,
        accumulator: RowBandAccumulator,
        windows: Iterator[_Tile],
        done: int,
        advance: Callable[[int, float], None],
    ) -> int:
        """Restore a row of windows, batch by batch."""
        batch: list[tuple[int, _Tile]] = []
        last = len(self.tiling.cols.starts) - 1
        for col, window in enumerate(islice(windows, last + 1)):
            if window.valid.any():
                batch.append((col, window))
            else:
                accumulator.add(col, None, window.valid[0].numpy())
            if batch and (len(batch) == self._at_once or col == last):
                for (place, one), image in zip(batch, self._restored([one for _, one in batch]), strict=True):
                    accumulator.add(place, image, one.valid[0].numpy())
                batch = []
            done += 1
            advance(done, 0.0)
        return done

    def _restored(self, windows: Sequence[_Tile]) -> NDArray[np.float32]:
        """Reflectance (window, band, height, width)."""
        original, valid, corrupted, hidden = (
            torch.stack([getattr(window, name) for window in windows]).to(self.device)
            for name in ('original', 'valid', 'corrupted', 'hidden')
        )
        with torch.inference_mode():
            image = self.task.normalize.standardise(original, valid)
            restored = self.task.to_reflectance(self.task.restore(image, valid, corrupted, hidden)).float()
        if not bool(torch.isfinite(restored).all()):
            raise ConfigurationError(
                f'{self.scene.path}: the network gives NaN or infinity; check its weights, and that valid pixels are '
                'in range.'
            )
        return restored.cpu().numpy()

    def _read(self, place: tuple[int, int]) -> _Tile:
        """Read and spoil a window, by the index of its row of windows and of its column of windows."""
        window = self.tiling.window(*place)
        for row, col in product(*self._tiles_of(window)):
            if (row, col) not in self._tiles:
                self._tiles[row, col] = self._spoil(row, col)
        return self._assemble(window)

    def _tiles_of(self, window: Window) -> tuple[range, range]:
        """Rows and columns of the tiles of a window, which begins and ends with whole tiles."""
        side = self.side
        return (
            range(window.row // side, -(-(window.row + window.height) // side)),
            range(window.col // side, -(-(window.col + window.width) // side)),
        )

    def _spoil(self, row: int, col: int) -> _Tile:
        side = self.side
        pixels, mask = read_mirrored(self.scene, Window(row * side, col * side, side, side), self.bands)
        batch = {
            'image': torch.from_numpy(pixels)[None],
            'valid': torch.from_numpy(mask)[None, None],
            'scale': torch.tensor(self.how.scale, dtype=torch.float32)[None],
            'offset': torch.tensor(self.how.offset, dtype=torch.float32)[None],
        }
        batch = {name: tensor.to(self.device) for name, tensor in batch.items()}
        image, valid = (part.cpu() for part in self.task.standardised(batch))
        original = self.task.reflectance(batch).cpu()
        # on the CPU, so that every device hides the same pixels; nothing else draws random numbers meanwhile
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int.from_bytes(hashlib.sha256(f'{row} {col}'.encode()).digest()[:7]))
            corrupted, hidden = self.task.corrupt(image, valid)
        return _Tile(original[0], valid[0], corrupted[0], hidden[0])

    def _assemble(self, window: Window) -> _Tile:
        """Put the tiles of a window together."""
        rows, cols = self._tiles_of(window)
        lines = [[self._tiles[row, col] for col in cols] for row in rows]
        return _Tile(
            *(
                torch.cat([torch.cat([getattr(tile, name) for tile in line], dim=-1) for line in lines], dim=-2)
                for name in ('original', 'valid', 'corrupted', 'hidden')
            )
        )

    def _forget(self, row: int) -> None:
        for place in [place for place in list(self._tiles) if place[0] < row]:
            del self._tiles[place]

    def _write(self, files: ResumableGeoTIFFs, first: int, restored: NDArray[np.float32]) -> None:
        """Write finished rows, a row of tiles at a time; they begin with a whole one."""
        grid, side = self.scene.grid, self.side
        for start in range(0, restored.shape[1], side):
            strip = self._assemble(Window(first + start, 0, side, grid.width))
            part = restored[:, start : start + side]
            crop = (..., slice(part.shape[1]), slice(grid.width))
            original, valid, hidden = (getattr(strip, name)[crop].numpy() for name in ('original', 'valid', 'hidden'))
            corrupted = self.task.to_reflectance(strip.corrupted[None].to(self.device))[0].cpu()[crop].numpy()
            corrupted = np.where(hidden, corrupted, original)
            filled = np.where(hidden, part, original)
            layers = (original, corrupted, filled, part)
            files.write(first + start, [np.where(valid, layer, np.float32(np.nan)) for layer in layers])
        self._forget((first + restored.shape[1]) // side)


def _layers(outputs: Sequence[Path], bands: Sequence[str], key: str, note: str) -> dict[Path, GeoTIFFSpec]:
    tags = {KEY_TAG: key, 'SOFTWARE': f'torchgeo_msssl {torchgeo_msssl.__version__}', 'UNIT': 'reflectance'}
    tags |= {'NOTE': note} if note else {}
    spec = GeoTIFFSpec(len(bands), 'float32', tuple(bands), float('nan'), tags=tags, blocksize=BLOCK, interleave='band')
    return dict.fromkeys(outputs, spec)


def _hash_weights(task: RestorationTask) -> str:
    digest = hashlib.sha256()
    for name, tensor in task.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).numpy().tobytes())
    return digest.hexdigest()
