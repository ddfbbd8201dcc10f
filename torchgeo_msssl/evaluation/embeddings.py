"""Embeddings of every chip of scenes, in files that other programs read."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
import torch
from numpy.typing import NDArray
from pyproj import CRS
from rasterio.warp import transform as transform_points
from torch import Tensor

import torchgeo_msssl
from torchgeo_msssl.datamodules.base import SpectralDataModule
from torchgeo_msssl.datasets.batches import collate
from torchgeo_msssl.datasets.queries import ChipQuery
from torchgeo_msssl.datasets.scenes import Scenes
from torchgeo_msssl.errors import ConfigurationError, OutputError
from torchgeo_msssl.evaluation.encoders import Transfer
from torchgeo_msssl.evaluation.feature_map import FeatureColors, center_of_view, write_feature_map
from torchgeo_msssl.evaluation.frozen_encoder import embed_batch
from torchgeo_msssl.evaluation.geoparquet import geoparquet_writer
from torchgeo_msssl.evaluation.neighbours import draw_neighbours, nearest_elsewhere
from torchgeo_msssl.files import write_json
from torchgeo_msssl.losses.collapse import alpha_req, embedding_std, lidar, mean_cosine, rank_me
from torchgeo_msssl.progress import progress_bar
from torchgeo_msssl.samplers.grid import GridChipSampler
from torchgeo_msssl.transforms.views import MultiView

TABLE, METRICS, SHEET = 'embeddings.parquet', 'metrics.json', 'neighbours.png'

#: Embeddings that are kept in memory, spread evenly over all chips: for metrics, colours and neighbours.
KEPT = 10_000
#: CRS of the footprints where the scenes have several.
_COMMON_CRS = 'EPSG:4326'


@dataclass(frozen=True)
class EmbedSettings:
    """How scenes are embedded.

    Attributes:
        chip_size: Side of a chip in pixels.
        stride: Distance between chips in pixels; None for chips side by side.
        min_valid: Smallest share of valid pixels in a chip.
        batch_size: Chips at once.
        dense: Whether to draw maps of the features.
        map_step: Side of a map's cell in pixels; None for a quarter of a chip.
        lidar_chips: Chips for LiDAR, at most.
        lidar_views: Views of each of them.
        queries: Rows of the contact sheet.
        neighbours: Neighbours in a row.
        seed: Of the views and of the choice of queries.
    """

    chip_size: int = 32
    stride: int | None = None
    min_valid: float = 0.9
    batch_size: int = 64
    dense: bool = True
    map_step: int | None = None
    lidar_chips: int = 500
    lidar_views: int = 10
    queries: int = 8
    neighbours: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ConfigurationError: If an option is out of its range.
        """
        for name, least in (
            ('chip_size', 1), ('batch_size', 1), ('lidar_chips', 2), ('lidar_views', 2), ('queries', 1),
            ('neighbours', 1),
        ):  # fmt: skip
            if getattr(self, name) < least:
                raise ConfigurationError(f'{name}: expected at least {least}, got {getattr(self, name)}.')
        for name in ('stride', 'map_step'):
            if getattr(self, name) is not None and not 1 <= getattr(self, name) <= self.chip_size:
                raise ConfigurationError(
                    f'{name}: expected 1 to the chip_size {self.chip_size}, got {getattr(self, name)}; more would '
                    'leave gaps.'
                )

    @property
    def step(self) -> int:
        """Side of a map's cell in pixels."""
        return self.map_step or max(1, self.chip_size // 4)


def embed_scenes(
    encoder: Transfer,
    data: SpectralDataModule,
    output: Path,
    settings: EmbedSettings,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Embed scenes, and write table, maps, contact sheet and metrics.

    ``metrics.json`` is written last: a folder without it is that of a run that was cut short, and is done again by the
    same command.

    Args:
        encoder: Encoder.
        data: Scenes.
        output: Folder.
        settings: How.
        overwrite: Whether files of an earlier run may be replaced.

    Returns:
        What is in ``metrics.json``.

    Raises:
        ConfigurationError: If two scenes share a name.
        OutputError: If there are results already, or a file cannot be written.
        EmptyIntersectionError: If no chip has enough valid pixels.
    """
    _check_output(data.scenes, output, settings, overwrite)
    data.scene_reader.count_valid_pixels()
    overlap = settings.chip_size - (settings.stride or settings.chip_size)
    places = GridChipSampler(data.scenes, settings.chip_size, overlap, min_valid=settings.min_valid).places
    chips = [data.scenes.query(scene, window) for scene, window in places]
    kept = _evenly(len(chips), KEPT)
    features, bounds = write_embeddings(output / TABLE, encoder, data.scenes, chips, kept, settings.batch_size)
    shown = [chips[i] for i in kept]
    draw_neighbours(
        output / SHEET, data.scenes, shown, _neighbours(features, bounds, settings), data.rgb_index
    )  # fmt: skip
    metrics = measure(encoder, data.scenes, shown, features, settings) | {'chips': len(chips)}
    if settings.dense:
        colours = FeatureColors.fit(features)
        some = [shown[i] for i in _evenly(len(shown), settings.batch_size)]
        centre = center_of_view(encoder, collate(data.scenes.__getitems__(some)))
        write_maps(encoder, data.scenes, output, colours, settings, centre)
        metrics |= {'explained_variance': colours.explained.tolist(), 'centre_of_view': list(centre)}
    metrics |= {
        'weights': encoder.report.source, 'model': encoder.model, 'bands': list(data.bands),
        'statistics_of': encoder.statistics, 'scenes': [scene.name for scene in data.scenes.scenes],
        'settings': asdict(settings), 'version': torchgeo_msssl.__version__,
    }  # fmt: skip
    write_json(output / METRICS, metrics)
    return metrics


def write_embeddings(
    path: Path,
    encoder: Transfer,
    scenes: Scenes,
    chips: Sequence[ChipQuery],
    kept: NDArray[np.intp],
    batch_size: int = 64,
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Embed chips and write each with its footprint as GeoParquet, a batch at a time.

    Columns: ``geometry``, ``scene`` (name), ``row`` and ``col`` (first pixel), ``valid`` (share of valid pixels) and
    ``embedding``. Footprints are in the CRS of the scenes, or in longitude and latitude where the scenes have several.

    Args:
        path: The file; it appears complete or not at all.
        encoder: Encoder.
        scenes: Scenes.
        chips: Chips.
        kept: Rising indices of chips whose embeddings are wanted back.
        batch_size: Chips at once.

    Returns:
        Embeddings (kept, features) and bounds ``(left, bottom, right, top)`` (kept, 4) in the file's CRS.

    Raises:
        OutputError: If the file cannot be written.
    """
    polygons, crs = footprints(scenes, chips)
    columns = {'scene': 'string', 'row': 'int32', 'col': 'int32', 'valid': 'float32'}
    first, _ = _embed_chips(encoder, scenes, chips[:1])
    wanted, found = np.zeros(len(chips), dtype=bool), []
    wanted[kept] = True
    with (
        geoparquet_writer(
            path, crs, shapely.total_bounds(polygons).tolist(), columns, ('embedding', first.shape[1])
        ) as write,
        progress_bar('Embedding chips', len(chips)) as advance,
    ):
        for start in range(0, len(chips), batch_size):
            some = chips[start : start + batch_size]
            features, valid = _embed_chips(encoder, scenes, some)
            places: dict[str, Any] = {
                'scene': [scenes.scenes[chip.scene].name for chip in some],
                'row': [chip.window.row for chip in some],
                'col': [chip.window.col for chip in some],
                'valid': valid,
                'embedding': features,
            }
            write(polygons[start : start + batch_size], places)
            found.append(features[wanted[start : start + batch_size]])
            advance(start + len(some) - 1, 1.0)
    return np.concatenate(found), shapely.bounds(polygons[kept])


def footprints(scenes: Scenes, chips: Sequence[ChipQuery]) -> tuple[NDArray[np.object_], CRS]:
    """Ground that chips cover.

    Args:
        scenes: Scenes.
        chips: Chips.

    Returns:
        Polygons (n,), and their CRS: that of the scenes, or longitude and latitude where they have several.
    """
    systems = list(dict.fromkeys(scene.grid.crs for scene in scenes.scenes))
    polygons = np.empty(len(chips), dtype=object)
    for i in {chip.scene for chip in chips}:
        grid = scenes.scenes[i].grid
        own = np.array([k for k, chip in enumerate(chips) if chip.scene == i])
        boxes = shapely.box(*np.array([grid.window_bounds(chips[k].window) for k in own]).T)
        if len(systems) > 1:

            def to_degrees(points: NDArray[np.float64], crs: Any = grid.crs) -> NDArray[np.float64]:
                return np.stack(transform_points(crs, _COMMON_CRS, *points.T), axis=1)

            boxes = shapely.transform(boxes, to_degrees)
        polygons[own] = boxes
    return polygons, CRS.from_user_input(_COMMON_CRS if len(systems) > 1 else systems[0].to_wkt())


def measure(
    encoder: Transfer,
    scenes: Scenes,
    chips: Sequence[ChipQuery],
    features: NDArray[np.float32],
    settings: EmbedSettings,
) -> dict[str, Any]:
    """Measure how embeddings fill their space.

    Args:
        encoder: Encoder, for the views of LiDAR.
        scenes: Scenes.
        chips: Chips.
        features: Their embeddings (n, features).
        settings: How many chips and views LiDAR has, and their seed.

    Returns:
        ``rank_me``, ``alpha_req``, ``lidar``, ``mean_cosine``, ``embedding_std`` with its healthy value, and of how
        many chips they are.
    """
    z = torch.from_numpy(features)
    some = [chips[i] for i in _evenly(len(chips), settings.lidar_chips)]
    views = _embed_views(encoder, scenes, some, settings) if some else None
    return {
        'features': features.shape[1],
        'measured_chips': len(features),
        'rank_me': rank_me(z).item(),
        'alpha_req': alpha_req(z).item(),
        'lidar': lidar(views).item() if views is not None else float('nan'),
        'lidar_chips': len(some),
        'mean_cosine': mean_cosine(z).item(),
        'embedding_std': embedding_std(z).item() if len(z) > 1 else float('nan'),
        'healthy_embedding_std': features.shape[1] ** -0.5,
    }


def write_maps(
    encoder: Transfer,
    scenes: Scenes,
    output: Path,
    colours: FeatureColors,
    settings: EmbedSettings,
    centre: tuple[float, float],
) -> None:
    """Draw the features of every scene, ``<scene>_pca.tif``.

    Args:
        encoder: Encoder.
        scenes: Scenes.
        output: Folder.
        colours: The same for all scenes, so that colours mean the same everywhere.
        settings: Size of windows and cells.
        centre: Point of a window that comes to lie on the middle of its cell, see :func:`.center_of_view`.

    Raises:
        OutputError: If a file cannot be written.
    """
    for scene, how in zip(scenes.scenes, scenes.radiometry, strict=True):
        write_feature_map(
            output / map_name(scene.name),
            encoder,
            scene,
            how,
            scenes.bands,
            colours,
            settings.chip_size,
            settings.step,
            centre,
            settings.batch_size,
        )


def map_name(scene: str) -> str:
    """File name of a scene's map."""
    return f'{scene}_pca.tif'


def _check_output(scenes: Scenes, output: Path, settings: EmbedSettings, overwrite: bool) -> None:
    twice = [name for name, count in Counter(scene.name for scene in scenes.scenes).items() if count > 1]
    if settings.dense and twice:
        paths = ' and '.join(scene.path for scene in scenes.scenes if scene.name == twice[0])
        msg = f'paths: {paths} would have maps of one name, {map_name(twice[0])}; embed them into two folders.'
        raise ConfigurationError(msg)
    if (output / METRICS).exists():
        if not overwrite:
            raise OutputError(f'{output} has the results of an earlier run; choose another folder, or --overwrite.')
        (output / METRICS).unlink()  # the others are about to be replaced, one after the other


def _embed_chips(
    encoder: Transfer, scenes: Scenes, chips: Sequence[ChipQuery]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Embeddings (n, features) and shares of valid pixels (n,)."""
    batch = collate(scenes.__getitems__(chips))
    share: NDArray[np.float32] = batch['valid'].float().mean(dim=(1, 2, 3)).numpy()
    return embed_batch(encoder, batch).numpy(), share


@torch.no_grad()
def _embed_views(encoder: Transfer, scenes: Scenes, chips: Sequence[ChipQuery], settings: EmbedSettings) -> Tensor:
    """Embeddings (chip, view, features) of views as pretraining makes them by default."""
    normalize, found = encoder.normalize, []
    multiview = MultiView(settings.lidar_views)
    at_once = max(1, settings.batch_size // settings.lidar_views)
    with torch.random.fork_rng(), progress_bar('Views for LiDAR', len(chips)) as advance:
        torch.manual_seed(settings.seed)
        for start in range(0, len(chips), at_once):
            batch = collate(scenes.__getitems__(chips[start : start + at_once]))
            image, valid, scale, offset = (
                batch[key].to(normalize.mean.device) for key in ('image', 'valid', 'scale', 'offset')
            )
            reflectance = normalize.reflectance(image, valid, scale, offset)
            views, seen = multiview(reflectance, valid, band_std=normalize.std, band_mean=normalize.mean)
            inputs = normalize.standardize(views.flatten(0, 1), seen.flatten(0, 1))
            features = encoder.network(inputs).float().cpu()
            found.append(features.unflatten(0, (settings.lidar_views, -1)).transpose(0, 1))
            advance(start + len(found[-1]) - 1, 1.0)
    return torch.cat(found)


def _neighbours(
    features: NDArray[np.float32], bounds: NDArray[np.float64], settings: EmbedSettings
) -> list[tuple[int, list[tuple[int, float]]]]:
    """Queries drawn at random, with their neighbours."""
    count = min(settings.queries, len(features))
    queries = np.sort(np.random.default_rng(settings.seed).choice(len(features), count, replace=False))
    return [(int(i), nearest_elsewhere(features, bounds, int(i), settings.neighbours)) for i in queries]


def _evenly(count: int, most: int) -> NDArray[np.intp]:
    """Up to ``most`` indices spread evenly over ``count``."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.intp))
