"""Synthetic vineyards that share no ground, for studies of the number of labelled scenes.

The two flights of the sample area are too few to draw labels from several scenes and to test on others. Like these, the
vineyards are generated, not measured.
"""

import json
import os
from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
from affine import Affine
from rasterio.crs import CRS

from torchgeo_msssl.bands import SENSORS
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.evaluation.study.design import Options, Study
from torchgeo_msssl.files import atomic_path
from torchgeo_msssl.geo.eviction import entry_lock
from torchgeo_msssl.geo.grid import PixelGrid
from torchgeo_msssl.geo.sample.vineyard import WHITE, Vineyard, make_vineyard
from torchgeo_msssl.geo.write import write_geotiff
from torchgeo_msssl.progress import progress_bar

_CRS = CRS.from_epsg(32631)
_PIXEL = 0.08  # metres, as in the sample area
_SPACING = 1000.0  # metres between the origins of two flights
_SENSOR = 'micasense_rededge'


def with_flights(study: Study) -> Study:
    """Make a study use synthetic vineyards, in its cells and in its pretrainings.

    Returns:
        The same study if it requests none, otherwise one whose options name the vineyards, which are generated if
        missing.

    Raises:
        ConfigurationError: If there are fewer than two.
        OutputError: If their folder cannot be written.
    """
    if study.flights is None:
        return study
    labelled = write_flights(study.flights_dir, study.flights, study.flights_side)
    unlabelled = {'data.paths': labelled['data.paths'], 'data.sensor': labelled['data.sensor']}
    entries = []
    for entry in study.initialisations:
        if entry.pretraining is not None:
            options = (labelled if entry.pretraining.same_split else unlabelled) | entry.pretraining.options
            entry = replace(entry, pretraining=replace(entry.pretraining, options=options))
        entries.append(entry)
    return replace(study, options=labelled | study.options, initialisations=entries)


def write_flights(directory: str | os.PathLike[str], number: int, side: int = 900, seed: int = 0) -> Options:
    """Generate orthomosaics of different vineyards unless they exist.

    Args:
        directory: Folder to create their folder in, whose name contains the following numbers.
        number: Number of orthomosaics.
        side: Side of each in pixels of 8 cm.
        seed: Seed; the same number, side and seed give the same pixels.

    Returns:
        Options of a data module for them: ``data.paths``, ``data.labels``, …

    Raises:
        ConfigurationError: If there are fewer than two, or they are too small to hold a parcel.
        OutputError: If the folder cannot be written.
    """
    if number < 2 or side < 200:
        raise ConfigurationError(f'flights: expected 2 or more of 200 pixels or more, got {number} of {side} pixels.')
    # a folder of its own, because others would be read as scenes without a vine; and commands name it
    folder = Path(directory) / f'{number}x{side}_seed-{seed}'
    manifest: dict[str, object] = {'flights': number, 'side': side, 'seed': seed, 'synthetic': True}
    if not _exists(folder, manifest):  # a complete folder need not be writable
        with entry_lock(folder):  # several processes may start at the same time
            if not _exists(folder, manifest):
                _write(folder, manifest, number, side, seed)
    return {
        'data.paths': str(folder / 'flight_*.tif'),
        'data.labels': str(folder / 'vines.gpkg'),
        'data.layer': 'rows',
        'data.class_names': ['background', 'vine'],
        'data.background': True,
        'data.sensor': _SENSOR,
    }


def _exists(folder: Path, manifest: dict[str, object]) -> bool:
    path = folder / 'flights.json'
    return path.is_file() and json.loads(path.read_text(encoding='utf-8')) == manifest


def _write(folder: Path, manifest: dict[str, object], number: int, side: int, seed: int) -> None:
    if (folder / 'flights.json').is_file():
        (folder / 'flights.json').unlink()
    rows = []
    with progress_bar('Generating synthetic vineyards', number) as advance:
        for index, stream in enumerate(np.random.SeedSequence([seed, 3]).spawn(number)):
            transform = Affine(_PIXEL, 0, 698_400 + _SPACING * index, 0, -_PIXEL, 4_858_500)
            grid = PixelGrid(_CRS, transform, side, side)
            flight = make_vineyard(np.random.default_rng(stream), grid, f'flight_{index}')
            _write_flight(folder / f'flight_{index}.tif', flight, grid)
            rows.append(flight.rows)
            advance(index, 1.0)
    with atomic_path(folder / 'vines.gpkg') as path:
        gpd.GeoDataFrame(pd.concat(rows, ignore_index=True), crs=_CRS).to_file(path, layer='rows', driver='GPKG')
    with atomic_path(folder / 'flights.json') as path:  # written last: without it the folder is incomplete
        path.write_text(json.dumps(manifest, indent=2), encoding='utf-8')


def _write_flight(path: Path, flight: Vineyard, grid: PixelGrid) -> None:
    numbers = np.rint(flight.image * WHITE).clip(1, 65535).astype(np.uint16)
    numbers = np.where(flight.flown, numbers, 0).astype(np.uint16)
    tags = {'SENSOR': _SENSOR, 'SYNTHETIC': 'yes'}
    write_geotiff(path, numbers, grid, band_names=SENSORS[_SENSOR].names, nodata=0, tags=tags)
