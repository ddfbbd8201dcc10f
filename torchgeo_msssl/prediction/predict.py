"""Map scenes with a trained segmentation task."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import rasterio
import torch
from torch import Tensor

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.radiometry import radiometry
from torchgeo_msssl.geo.vectorize.polygons import polygonize, read_tags
from torchgeo_msssl.prediction.class_map import KEY_TAG, MapOptions, Numbers, PredictionResult, plan, predict_scene
from torchgeo_msssl.prediction.receptive_field import choose_blend
from torchgeo_msssl.prediction.scenes import namesakes, open_scenes
from torchgeo_msssl.tasks.segmentation import Segmentation


@dataclass(frozen=True)
class MapSettings:
    """How scenes are mapped, as `predict` takes it.

    Attributes:
        output: Folder for the maps.
        blend: How windows become a map: ``crop`` is exact for convolutional networks, ``hann`` seamless for any,
            ``auto`` chooses and says so.
        window: Side of a window in pixels; None chooses.
        overlap: Pixels that windows share with ``hann``; None for half a window.
        tta: Mean over the scene and its mirror images (``flips``), its quarter turns too (``d4``), or ``none``.
        probabilities: Write ``<scene>_probabilities.tif``, a band a class, as ``uint8`` or ``float32``.
        confidence: Write ``<scene>_confidence.tif``, the probability of the mapped class, as ``uint8`` or ``float32``.
        polygons: Write ``<scene>.gpkg``, polygons with class, area and mean probability (and the confidence, from
            which this comes).
        sieve: Polygons smaller than this are left out, in m².
        batch_size: Windows that the network is given at once.
        plan: Print windows, memory, disk and time, and stop.
        overwrite: Map again what is there already.
    """

    output: str = 'predictions'
    blend: Literal['auto', 'crop', 'hann'] = 'auto'
    window: int | None = None
    overlap: int | None = None
    tta: Literal['none', 'flips', 'd4'] = 'none'
    probabilities: Numbers = 'none'
    confidence: Numbers = 'none'
    polygons: bool = False
    sieve: float = 0.0
    batch_size: int = 4
    plan: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Check what nothing else checks.

        Raises:
            ConfigurationError: If an option is out of its range.
        """
        if self.sieve < 0 or (self.sieve > 0 and not self.polygons):
            raise ConfigurationError(f'sieve: expected 0 m² or more, with polygons: true, got {self.sieve}.')


def map_scenes(
    task: Segmentation,
    paths: str | Sequence[str],
    checkpoint: str | os.PathLike[str],
    settings: MapSettings | None = None,
    sensor: str | None = None,
    offset: float | Literal['auto'] = 'auto',
    device: torch.device | str = 'cpu',
) -> list[PredictionResult]:
    """Write the class map of every scene, with a QGIS style beside it.

    Bands are taken by the names that the task was trained with, whatever their order in the scene.

    Args:
        task: The trained task.
        paths: Scenes: files, folders or patterns.
        checkpoint: The file the task was loaded from; a map of another one is made anew.
        settings: How, and what else is written.
        sensor: Sensor of the scenes, where their files do not tell; None for that of the training.
        offset: Added to digital numbers before scaling; ``auto`` reads it from metadata or date.
        device: Where to compute.

    Returns:
        What became of each scene; nothing where only a plan was asked for.

    Raises:
        ConfigurationError: If two scenes would have one map, or an option does not suit the network.
        MSSSLError: If a scene lacks a band, is damaged, or a map cannot be written.
    """
    settings = settings or MapSettings()
    scenes, known = open_scenes(paths, sensor, task.metadata().sensor)
    if twins := namesakes(scenes):
        raise ConfigurationError(
            f'predict_paths: {twins[0].path} and {twins[1].path} would both become {twins[0].name}.tif; map them in '
            'two runs with two folders (output).'
        )
    task = task.to(device).eval()
    bands = task.bands or scenes[0].bands
    stitching = choose_blend(task.model, len(bands), settings.window, settings.blend, settings.overlap)
    print(f'Windows of {stitching.window} pixels, blend {stitching.blend}: {stitching.reason}')
    confidence = 'uint8' if settings.polygons and settings.confidence == 'none' else settings.confidence
    options = MapOptions(
        task.class_names, stitching, tta=settings.tta, probabilities=settings.probabilities, confidence=confidence,
        batch_size=settings.batch_size, checkpoint=_hash(Path(checkpoint)),
    )  # fmt: skip

    def network(image: Tensor, valid: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
        logits: Tensor = task(image, valid, scale, offset)
        return logits

    if settings.plan:
        for scene in scenes:
            print(plan(scene, bands, options, network, device))
        return []
    results = []
    for scene in scenes:
        how = radiometry(scene, bands, known, offset)
        output = Path(settings.output) / f'{scene.name}.tif'
        result = predict_scene(
            network, scene, bands, output, options, scale=how.scale, offset=how.offset, device=device,
            overwrite=settings.overwrite,
        )  # fmt: skip
        print(f'{"Was there already" if result.skipped else "Wrote"}: {result.path}')
        if settings.polygons:
            _write_polygons(result, task.class_names, settings.sieve)
        results.append(result)
    return results


def _write_polygons(result: PredictionResult, class_names: Sequence[str], sieve: float) -> None:
    """Write the polygons of a map, unless they are there already."""
    with rasterio.open(result.path) as dataset:
        tags = {'MSSSL_MAP': dataset.tags()[KEY_TAG], 'MSSSL_SIEVE': repr(sieve)}
    output = result.path.with_suffix('.gpkg')
    if read_tags(output) == tags:
        print(f'Was there already: {output}')
        return
    count = polygonize(result.path, output, class_names, confidence=result.confidence, sieve=sieve, tags=tags)
    print(f'Wrote: {output} ({count:,} polygons)')


def _hash(path: Path) -> str:
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()
