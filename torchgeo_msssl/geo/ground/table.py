"""Split of whole scenes that a table names, such as the ``split.csv`` of a published data set."""

import csv
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import shapely
from shapely.geometry.base import BaseGeometry

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.ground.area import Ground
from torchgeo_msssl.geo.ground.parts import PARTS

log = logging.getLogger(__name__)

#: Columns that may name a scene.
SCENE_COLUMNS = ('path', 'file', 'filename', 'image', 'scene', 'name', 'id')


def read_table(path: str | os.PathLike[str], ground: Ground, needed: Sequence[str]) -> dict[str, BaseGeometry]:
    """Read the part of each scene from a CSV table.

    Args:
        path: Table with a column ``split`` (train, val or test) and one of :data:`SCENE_COLUMNS`, which holds the path,
            the name or the stem of a file of the scene.
        ground: The ground of the scenes that are split.
        needed: Parts that the table must have.

    Returns:
        Regions in the CRS of the ground by the name of the part. Where scenes of two parts overlap, training yields to
        validation, and both yield to test.

    Raises:
        ConfigurationError: If the table cannot be read, lacks a column or a part, or names none of the scenes.
    """
    parts = _read_rows(Path(path))
    found = [_part_of(scene, parts) for scene in ground.paths]
    unnamed = sum(part not in PARTS for part in found)
    if unnamed == len(found):
        raise ConfigurationError(
            f'split: {path!s} names none of the scenes, such as {Path(ground.paths[0]).name}; name them by path, file '
            'name or stem.'
        )
    if unnamed:
        log.info('split: %d of %d scenes have no part in %s and are left out.', unnamed, len(found), path)
    regions: dict[str, BaseGeometry] = {}
    later: BaseGeometry = shapely.Polygon()
    for part in reversed(PARTS):
        own = [box for box, name in zip(ground.outlines, found, strict=True) if name == part]
        if not own and part in needed:
            raise ConfigurationError(f'split: {path!s} has no scene whose column split says {part}; add one.')
        if own:
            whole = shapely.union_all(own)
            regions[part] = whole.difference(later)
            _report_overlap(part, whole.area, regions[part].area)
            later = later.union(whole)
    return {part: regions[part] for part in PARTS if part in regions}


def _read_rows(path: Path) -> dict[str, str]:
    """Part by the name of a scene."""
    try:
        with path.open(newline='', encoding='utf-8-sig') as file:
            rows = csv.DictReader(file)
            columns = rows.fieldnames or []
            named = next((name for name in SCENE_COLUMNS if name in columns), None)
            if named is None or 'split' not in columns:
                raise ConfigurationError(
                    f'split: {path} has the columns {", ".join(columns)}; expected split and one of '
                    f'{", ".join(SCENE_COLUMNS)}.'
                )
            return {row[named].strip(): row['split'].strip() for row in rows if row[named] and row['split']}
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigurationError(f'split: {path} cannot be read as CSV in UTF-8 ({error}); write it again.') from error


def _part_of(scene: str, parts: dict[str, str]) -> str | None:
    path = Path(scene)
    names = (scene, *('/'.join(path.parts[-depth:]) for depth in range(1, len(path.parts))), path.stem)
    return next((parts[name] for name in names if name in parts), None)


def _report_overlap(part: str, before: float, after: float) -> None:
    if after < before * (1 - 1e-6):
        log.warning(
            'split: %.1f %% of the ground of the %s scenes lies on scenes of a later part and is left out.',
            100 * (1 - after / before),
            part,
        )
