"""Map scenes with a trained segmentation task."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from torchgeo_msssl.bands import get_sensor
from torchgeo_msssl.geo.headers import find_scenes
from torchgeo_msssl.geo.radiometry import radiometry
from torchgeo_msssl.prediction.receptive import choose_blend
from torchgeo_msssl.prediction.style import class_colors, write_qml
from torchgeo_msssl.prediction.writer import MapOptions, PredictionResult, predict_scene
from torchgeo_msssl.tasks.segmentation import Segmentation


def map_scenes(
    task: Segmentation,
    paths: str | Sequence[str],
    checkpoint: str | os.PathLike[str],
    folder: str | os.PathLike[str] = 'predictions',
    sensor: str | None = None,
    device: torch.device | str = 'cpu',
) -> list[PredictionResult]:
    """Write the class map of every scene, with a QGIS style beside it.

    Bands are taken by the names that the task was trained with, whatever their order in the scene.

    Args:
        task: The trained task.
        paths: Scenes: files, folders or patterns.
        checkpoint: The file the task was loaded from; a map of another one is made anew.
        folder: Where ``<scene>.tif`` is written.
        sensor: Sensor of the scenes, where their files do not tell; None for that of the training.
        device: Where to compute.

    Returns:
        What became of each scene.

    Raises:
        MSSSLError: If a scene lacks a band, is damaged, or a map cannot be written.
    """
    name = sensor or task.metadata().sensor
    known = get_sensor(name) if name else None
    scenes = find_scenes(paths, known)
    task = task.to(device).eval()
    bands = task.bands or scenes[0].bands
    stitching = choose_blend(task.model, len(bands))
    print(f'Windows of {stitching.window} pixels, blend {stitching.blend}: {stitching.reason}')
    options = MapOptions(task.class_names, stitching, checkpoint=_hash(Path(checkpoint)))

    def network(image: Tensor, valid: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
        logits: Tensor = task(image, valid, scale, offset)
        return logits

    results = []
    for scene in scenes:
        how = radiometry(scene, bands, known)
        output = Path(folder) / f'{scene.name}.tif'
        result = predict_scene(
            network, scene, bands, output, options, scale=how.scale, offset=how.offset, device=device
        )
        write_qml(output, task.class_names, class_colors(task.class_names))
        print(f'{"Was there already" if result.skipped else "Wrote"}: {result.path}')
        results.append(result)
    return results


def _hash(path: Path) -> str:
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()
