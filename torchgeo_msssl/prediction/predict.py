"""Mapping of scenes with a trained segmentation task."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.bad_scenes import BadScenes, OnBadScene
from torchgeo_msssl.geo.grid import PixelGrid
from torchgeo_msssl.geo.ground_size import pixel_size
from torchgeo_msssl.geo.headers import own_scenes
from torchgeo_msssl.geo.radiometry import Radiometry
from torchgeo_msssl.geo.scene import Scene, check_names
from torchgeo_msssl.geo.vectorize.layers import read_tags
from torchgeo_msssl.geo.vectorize.options import VectorizeOptions
from torchgeo_msssl.geo.vectorize.run import vectorize
from torchgeo_msssl.prediction.class_map import MapOptions, Network, Numbers, PredictionResult, predict_scene
from torchgeo_msssl.prediction.pipeline import key_of
from torchgeo_msssl.prediction.plan import plan
from torchgeo_msssl.prediction.receptive_field import choose_blend
from torchgeo_msssl.prediction.scenes import open_scenes
from torchgeo_msssl.prediction.training_comparison import compare_with_training
from torchgeo_msssl.shards import Shard, ShardSettings
from torchgeo_msssl.tasks.pixel_classification import PixelClassification

#: Area of the smallest polygon by default, in pixels.
_SMALLEST_POLYGON = 10


@dataclass(frozen=True)
class MapSettings(ShardSettings):
    """Options of `predict` for class maps.

    Attributes:
        output: Folder for the maps.
        blend: How windows are combined into a map: ``crop`` is exact for convolutional networks, ``hann`` is seamless
            for any network, ``auto`` chooses and reports the choice.
        window: Side of a window in pixels; None for a suitable one.
        overlap: Pixels that neighbouring windows share with ``hann``; None for half a window.
        tta: Test-time augmentation: mean over the scene and its mirror images (``flips``), also its quarter turns
            (``d4``), or ``none``.
        probabilities: Write ``<scene>_probabilities.tif``, one band per class, as ``uint8`` or ``float32``.
        confidence: Write ``<scene>_confidence.tif``, the probability of the mapped class, as ``uint8`` or ``float32``.
        polygons: Write ``<scene>.gpkg``, polygons of all classes but the background with class, area and mean
            probability, and the confidence from which this is computed.
        min_area: Smallest area of a polygon, in m²; None for that of ten pixels.
        batch_size: Windows per forward pass.
        plan: Print the windows, memory, disk space and time that are required, and stop.
        overwrite: Map scenes again whose maps exist already.
        check_radiometry: Refuse scenes whose reflectance has another unit than that of the training.
        shard: Predict only the i-th of n parts of the scenes, given as i/n such as 1/8; None for all of them.
    """

    output: str = 'predictions'
    blend: Literal['auto', 'crop', 'hann'] = 'auto'
    window: int | None = None
    overlap: int | None = None
    tta: Literal['none', 'flips', 'd4'] = 'none'
    probabilities: Numbers = 'none'
    confidence: Numbers = 'none'
    polygons: bool = False
    min_area: float | None = None
    batch_size: int = 4
    plan: bool = False
    overwrite: bool = False
    check_radiometry: bool = True

    def __post_init__(self) -> None:
        """Check the options that are not checked elsewhere.

        Raises:
            ConfigurationError: If an option is out of range.
        """
        super().__post_init__()
        if self.min_area is not None and (self.min_area < 0 or not self.polygons):
            raise ConfigurationError(f'min_area: expected 0 m² or more, with polygons: true, got {self.min_area}.')


def refuse_map_options(settings: MapSettings, kind: str) -> None:
    """Refuse options of class maps for a task that restores scenes.

    Args:
        settings: The options.
        kind: Name of the task's class.

    Raises:
        ConfigurationError: If one is given.
    """
    default, shared = MapSettings(), ('output', 'overwrite', 'check_radiometry', 'shard')
    for field in fields(MapSettings):
        if field.name not in shared and getattr(settings, field.name) != getattr(default, field.name):
            raise ConfigurationError(f'{field.name}: applies to class maps, but {kind} restores scenes; leave it out.')


def map_scenes(
    task: PixelClassification,
    paths: str | Sequence[str],
    checkpoint: str | os.PathLike[str],
    settings: MapSettings | None = None,
    sensor: str | None = None,
    offset: float | Literal['auto'] = 'auto',
    device: torch.device | str = 'cpu',
    crs: str | None = None,
    res: float | None = None,
    on_bad_scene: OnBadScene = 'raise',
    rank: Shard | None = None,
) -> list[PredictionResult]:
    """Write the class map of every scene with a QGIS style.

    Bands are selected by the names with which the task was trained, in whatever order the scene has them.

    Args:
        task: The trained task.
        paths: Scenes: files, folders or patterns.
        checkpoint: File from which the task was loaded; maps of another checkpoint are replaced.
        settings: How scenes are mapped, and which files are written.
        sensor: Sensor of the scenes, for files that do not name it; None for that of the training.
        offset: Digital number added before scaling; ``auto`` reads it from metadata or date.
        device: Device to compute on.
        crs: CRS of the maps; None for that of each scene.
        res: Pixel size of the maps, in units of the CRS; None for that of each scene.
        on_bad_scene: Whether a scene that cannot be read is an error, or is left out and counted.
        rank: Part of the scenes of the shard that this process maps, if several processes share them.

    Returns:
        Result for each scene of the shard; empty if only a plan was requested.

    Raises:
        ConfigurationError: If two scenes would have the same map, a scene has another unit than the training, or an
            option does not suit the network.
        MSSSLError: If a scene lacks a band, is damaged, or a map cannot be written.
    """
    settings = settings or MapSettings()
    metadata = task.metadata()
    bad = BadScenes(on_bad_scene)
    scenes, known = open_scenes(paths, sensor, metadata.sensor, crs=crs, res=res, bad=bad)
    total = len(scenes) + len(bad.errors)
    check_names(scenes, '.tif', 'predict_paths')
    task = task.to(device).eval()
    bands = task.bands or scenes[0].bands
    own = own_scenes(scenes, paths, settings.own_shard, rank)
    found: list[tuple[Scene, Radiometry]] = []
    for scene in own:
        with bad.guard():
            how = compare_with_training(scene, bands, known, offset, metadata, settings.check_radiometry)
            found.append((scene, how))
    options, network = map_options(task, len(bands), settings, _hash(Path(checkpoint))), network_of(task)
    print(describe_windows(options))
    if settings.plan:
        for scene, _ in found:
            print(plan(scene, bands, options, network, device))
        return []
    if not own:
        print(f'There are fewer scenes than processes, and none for this one ({settings.shard or rank}).')
    results = []
    for scene, how in found:
        with bad.guard():
            results.append(_map_scene(scene, how, network, bands, options, settings, device))
    if bad.errors:
        print(bad.summary(total))
    return results


def _map_scene(
    scene: Scene,
    how: Radiometry,
    network: Network,
    bands: Sequence[str],
    options: MapOptions,
    settings: MapSettings,
    device: torch.device | str,
) -> PredictionResult:
    result = predict_scene(
        network,
        scene,
        bands,
        Path(settings.output) / f'{scene.name}.tif',
        options,
        scale=how.scale,
        offset=how.offset,
        device=device,
        overwrite=settings.overwrite,
    )
    print(f'{"Already exists" if result.skipped else "Wrote"}: {result.path}')
    if settings.polygons:
        _write_polygons(result, scene.grid, settings.min_area)
    return result


def map_options(
    task: PixelClassification, in_channels: int, settings: MapSettings | None = None, checkpoint: str = ''
) -> MapOptions:
    """Choose how the scenes of a task are mapped.

    Args:
        task: The task.
        in_channels: Number of bands.
        settings: Options of the command; None for its defaults.
        checkpoint: Hash of the file from which the task was loaded.

    Returns:
        The options of each scene.

    Raises:
        ConfigurationError: If an option does not suit the network.
    """
    settings = settings or MapSettings()
    stitching = choose_blend(task.model, in_channels, settings.window, settings.blend, settings.overlap)
    return MapOptions(
        task.class_names,
        stitching,
        tta=settings.tta,
        probabilities=settings.probabilities,
        confidence='uint8' if settings.polygons and settings.confidence == 'none' else settings.confidence,
        batch_size=settings.batch_size,
        checkpoint=checkpoint,
    )


def describe_windows(options: MapOptions) -> str:
    """Describe the windows of a map in one line.

    Args:
        options: From :func:`map_options`.
    """
    how = options.stitching
    return f'Windows of {how.window} pixels, blend {how.blend}: {how.reason}'


def network_of(task: PixelClassification) -> Network:
    """Return the function from pixels to logits of a task.

    Args:
        task: The task, in eval mode.
    """

    def network(image: Tensor, valid: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
        logits: Tensor = task(image, valid, scale, offset)
        return logits

    return network


def _write_polygons(result: PredictionResult, grid: PixelGrid, min_area: float | None) -> None:
    """Write the polygons of a map, unless they exist already."""
    if min_area is None:
        side = pixel_size(grid)
        min_area = 0.0 if side is None else _SMALLEST_POLYGON * side**2
    tags = {'MSSSL_MAP': key_of(result.path) or '', 'MSSSL_MIN_AREA': repr(min_area)}
    output = result.path.with_suffix('.gpkg')
    if read_tags(output) == tags:
        print(f'Already exists: {output}')
        return
    options = VectorizeOptions(min_area=min_area)
    written = vectorize(result.path, output, options, confidence=result.confidence, tags=tags, progress=False)
    small = f', {written.small:,} areas below {min_area:.3g} m² left out' if written.small else ''
    print(f'Wrote: {output} ({sum(written.polygons.values()):,} polygons{small})')


def _hash(path: Path) -> str:
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()
