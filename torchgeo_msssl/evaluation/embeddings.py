"""Embeddings of chips: table, feature maps, contact sheet and metrics."""

from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import torchgeo_msssl
from torchgeo_msssl.datamodules.base import SpectralDataModule
from torchgeo_msssl.errors import ConfigurationError, OutputError
from torchgeo_msssl.evaluation.embed_settings import EmbedSettings
from torchgeo_msssl.evaluation.embedding_chips import EmbeddingChips, chips_of_folder, chips_of_scenes
from torchgeo_msssl.evaluation.encoders import Transfer, check_local, choose_device
from torchgeo_msssl.evaluation.feature_map import FeatureColours, centre_of_view, write_feature_map
from torchgeo_msssl.evaluation.frozen_encoder import embed_batch, open_data, open_encoder, read_metadata
from torchgeo_msssl.evaluation.neighbours import draw_neighbours, nearest_elsewhere
from torchgeo_msssl.files import atomic_path, write_json
from torchgeo_msssl.losses.collapse import alpha_req, embedding_std, lidar, mean_cosine, rank_me
from torchgeo_msssl.progress import progress_bar
from torchgeo_msssl.transforms.views import MultiView

TABLE, METRICS, SHEET = 'embeddings.parquet', 'metrics.json', 'neighbours.png'

#: Maximum number of chips for metrics, colours and neighbours, spread evenly over all chips.
SAMPLE = 10_000
#: Settings that do not influence the results.
_NO_RESULT = ('output', 'overwrite', 'device')


def embed(settings: EmbedSettings) -> dict[str, Any]:
    """Open encoder and data, and write all results.

    Args:
        settings: The options.

    Returns:
        Content of ``metrics.json``.

    Raises:
        MSSSLError: If weights, data and options do not fit, or the folder cannot be written.
    """
    device = choose_device(settings.device)
    check_local(settings.weights, settings.model, 'weights')
    data = open_data(read_metadata(settings.weights), settings.data, settings.batch_size)
    encoder = open_encoder(settings.weights, data, settings.model, device, settings.seed, settings.features)
    print(
        f'{encoder.model} ({encoder.report.source}) on {"chips" if data.reads_chips else "scenes"} with bands '
        f'{", ".join(data.bands)}, normalized with the statistics of the {encoder.statistics}'
    )
    return write_results(encoder, data, settings)


def write_results(encoder: Transfer, data: SpectralDataModule, settings: EmbedSettings) -> dict[str, Any]:
    """Embed chips and write table, maps, contact sheet and metrics.

    ``metrics.json`` is written last: a folder without it belongs to a run that was interrupted, and is completed by the
    same command.

    Args:
        encoder: Encoder.
        data: Data module of the scenes or chips.
        settings: The options.

    Returns:
        Content of ``metrics.json``.

    Raises:
        ConfigurationError: If options do not fit the data, or two scenes have the same name.
        OutputError: If the folder has results already, or a file cannot be written.
        EmptyIntersectionError: If no chip has enough valid pixels.
    """
    # Checks map_step against the chip size, which is known now.
    settings = replace(settings, data=replace(settings.data, chip_size=data.chip_size))
    output, options = Path(settings.output), settings.data
    maps = _map_paths(data, settings)
    _check_output(output, settings.overwrite)
    chips = chips_of_folder(data) if data.reads_chips else chips_of_scenes(data, options.stride, options.min_valid)
    features, valid = embed_chips(encoder, chips, settings.batch_size)
    write_table(output / TABLE, chips, features, valid)

    kept = _evenly(len(chips), SAMPLE)
    sample, features = chips.subset(kept), features[kept]
    draw_neighbours(output / SHEET, sample, _find_neighbours(sample, features, settings))
    metrics = measure(encoder, sample, features, settings) | {'chips': len(chips)}
    if maps:
        colours = FeatureColours.fit(features)
        centre = centre_of_view(encoder, sample.batch(_evenly(len(sample), settings.batch_size)))
        _write_maps(encoder, data, maps, colours, settings, centre)
        metrics |= {'explained_variance': colours.explained.tolist(), 'centre_of_view': list(centre)}
    metrics |= {
        'files': [TABLE, SHEET, METRICS, *(path.name for path in maps)],
        'weights': encoder.report.source,
        'model': encoder.model,
        'bands': list(data.bands),
        'statistics_of': encoder.statistics,
        'scenes': list(dict.fromkeys(origin.name for origin in chips.origins)),
        'settings': {name: value for name, value in asdict(settings).items() if name not in _NO_RESULT},
        'version': torchgeo_msssl.__version__,
    }
    write_json(output / METRICS, metrics)
    return metrics


def embed_chips(
    encoder: Transfer, chips: EmbeddingChips, batch_size: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Embed chips.

    Args:
        encoder: Encoder.
        chips: Chips.
        batch_size: Chips per batch.

    Returns:
        Embeddings (chip, features), and fraction of valid pixels (chip,).
    """
    features, valid = [], []
    with progress_bar('Embedding chips', len(chips)) as advance:
        for start in range(0, len(chips), batch_size):
            batch = chips.batch(range(start, min(start + batch_size, len(chips))))
            valid.append(batch['valid'].float().mean(dim=(1, 2, 3)).numpy())
            features.append(embed_batch(encoder, batch).numpy())
            advance(start + len(valid[-1]) - 1, 1.0)
    return np.concatenate(features), np.concatenate(valid)


def write_table(path: Path, chips: EmbeddingChips, features: NDArray[np.float32], valid: NDArray[np.float32]) -> None:
    """Write chips with their footprints and embeddings as GeoParquet.

    Columns: ``scene`` (name of the scene or chip), ``row`` and ``col`` (first pixel), ``valid`` (fraction of valid
    pixels), ``embedding`` (list of float32) and ``geometry`` (see :meth:`.EmbeddingChips.footprints`).

    Args:
        path: The file.
        chips: Chips.
        features: Embeddings (chip, features).
        valid: Fraction of valid pixels (chip,).

    Raises:
        OutputError: If the file cannot be written.
    """
    polygons, crs = chips.footprints()
    columns = {
        'scene': [origin.name for origin in chips.origins],
        'row': np.array([origin.window.row for origin in chips.origins], dtype=np.int32),
        'col': np.array([origin.window.col for origin in chips.origins], dtype=np.int32),
        'valid': valid,
        'embedding': list(features),
    }
    with atomic_path(path) as temporary:
        gpd.GeoDataFrame(columns, geometry=polygons, crs=crs).to_parquet(temporary, index=False, compression='zstd')


def measure(
    encoder: Transfer, chips: EmbeddingChips, features: NDArray[np.float32], settings: EmbedSettings
) -> dict[str, Any]:
    """Measure how embeddings use their dimensions.

    Args:
        encoder: Encoder, for the views of LiDAR.
        chips: Chips.
        features: Their embeddings (chip, features).
        settings: Number of chips and views for LiDAR, and their seed.

    Returns:
        ``rank_me``, ``alpha_req``, ``lidar``, ``mean_cosine``, ``embedding_std`` with its healthy value, and the
        numbers of chips and features.
    """
    z = torch.from_numpy(features)
    some = _evenly(len(chips), settings.lidar_chips)
    views = _embed_views(encoder, chips.subset(some), settings)
    return {
        'features': features.shape[1],
        'measured_chips': len(features),
        'rank_me': rank_me(z).item(),
        'alpha_req': alpha_req(z).item(),
        'lidar': lidar(views).item(),
        'lidar_chips': len(some),
        'mean_cosine': mean_cosine(z).item(),
        'embedding_std': embedding_std(z).item() if len(z) > 1 else float('nan'),
        'healthy_embedding_std': features.shape[1] ** -0.5,
    }


def _map_paths(data: SpectralDataModule, settings: EmbedSettings) -> list[Path]:
    """Return the path of each scene's map; no paths for chips, which are no whole scenes, and images without a CRS."""
    if not settings.dense or data.reads_chips or data.scenes.plain:
        return []
    scenes = data.scenes.scenes
    twice = next((name for name, count in Counter(scene.name for scene in scenes).items() if count > 1), None)
    if twice is not None:
        paths = ' and '.join(scene.path for scene in scenes if scene.name == twice)
        raise ConfigurationError(
            f'data.paths: {paths} would have the same map, {twice}_pca.tif; embed them in two runs.'
        )
    return [Path(settings.output) / f'{scene.name}_pca.tif' for scene in scenes]


def _check_output(output: Path, overwrite: bool) -> None:
    if (output / METRICS).exists():
        if not overwrite:
            raise OutputError(f'output: {output} has results already; choose another folder, or add --overwrite.')
        (output / METRICS).unlink()  # the other files are about to be replaced


def _write_maps(
    encoder: Transfer,
    data: SpectralDataModule,
    maps: list[Path],
    colours: FeatureColours,
    settings: EmbedSettings,
    centre: tuple[float, float],
) -> None:
    size, scenes = data.chip_size, data.scenes
    step = settings.map_step or max(1, size // 4)
    for path, scene, how in zip(maps, scenes.scenes, scenes.radiometry, strict=True):
        write_feature_map(path, encoder, scene, how, data.bands, colours, size, step, centre, settings.batch_size)


@torch.no_grad()
def _embed_views(encoder: Transfer, chips: EmbeddingChips, settings: EmbedSettings) -> Tensor:
    """Embed the default views of pretraining; return (chip, view, features)."""
    normalize, found = encoder.normalize, []
    multiview = MultiView(settings.lidar_views)
    at_once = max(1, settings.batch_size // settings.lidar_views)
    with torch.random.fork_rng(), progress_bar('Views for LiDAR', len(chips)) as advance:
        torch.manual_seed(settings.seed)
        for start in range(0, len(chips), at_once):
            batch = chips.batch(range(start, min(start + at_once, len(chips))))
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


def _find_neighbours(
    chips: EmbeddingChips, features: NDArray[np.float32], settings: EmbedSettings
) -> list[tuple[int, list[tuple[int, float]]]]:
    """Return random queries with their nearest neighbours."""
    bounds = gpd.GeoSeries(chips.footprints()[0]).bounds.to_numpy()
    count = min(settings.queries, len(features))
    queries = np.sort(np.random.default_rng(settings.seed).choice(len(features), count, replace=False))
    return [(int(i), nearest_elsewhere(features, bounds, int(i), settings.neighbours)) for i in queries]


def _evenly(count: int, most: int) -> NDArray[np.intp]:
    """Return up to ``most`` indices spread evenly over ``count``."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.intp))
