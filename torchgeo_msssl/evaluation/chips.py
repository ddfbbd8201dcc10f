"""Labelled chips for a probe, some to learn from and others to test."""

import fnmatch
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray

from torchgeo_msssl.datamodules.pretraining import PretrainingDataModule
from torchgeo_msssl.datasets.scenes import Scenes
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.evaluation.features import LabelledChips, label_chips
from torchgeo_msssl.evaluation.probe_settings import ProbeData
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.ground.assignment import assign
from torchgeo_msssl.geo.ground.blocks import BlockGrid, Cells, chances
from torchgeo_msssl.geo.ground.split import split_ground
from torchgeo_msssl.geo.headers import find_scenes
from torchgeo_msssl.geo.labels.raster import RasterLabels
from torchgeo_msssl.geo.scene import Scene
from torchgeo_msssl.samplers.blocks import ground_of

log = logging.getLogger(__name__)

#: Share of a chip that rounding of coordinates may make of an edge that two chips have in common.
_EDGE = 1e-6
#: Values that class rasters may hold, but for that of unlabelled pixels.
_VALUES = 255


@dataclass(frozen=True)
class ProbeChips:
    """Labelled chips of a probe.

    Attributes:
        data: Data module that has opened the scenes and knows their statistics.
        class_names: Names of the classes; a label is a position in them.
        train: Chips to learn from.
        test: Chips to test on.
        split: How they were parted, for people.
        blocks: Block of ground of each chip, ``(train, test)``.
    """

    data: PretrainingDataModule
    class_names: tuple[str, ...]
    train: LabelledChips
    test: LabelledChips
    split: str
    blocks: tuple[NDArray[np.int64], NDArray[np.int64]]


def open_chips(options: ProbeData) -> ProbeChips:
    """Find labelled chips and part them.

    Args:
        options: Which ones.

    Returns:
        The chips.

    Raises:
        ConfigurationError: If a table has not the columns it should, classes do not fit the labels, or a part would
            have no chips.
        EmptyIntersectionError: If no chip has a label.
        MSSSLError: If scenes or labels cannot be read.
    """
    sources, labels = _listed(options)
    data = PretrainingDataModule(
        sources, options.bands, options.sensor, options.chip_size, labels=options.labels, offset=options.offset,
        sample_dir=options.sample_dir, min_valid=options.min_valid,
    )  # fmt: skip
    scenes = data.scenes
    data.look_for_valid_pixels()
    if labels is None:
        parts, known, split = _from_rasters(options, data)
    else:
        parts, known, split = _from_files(options, scenes, labels)
    parts = [_drawn(part, options.max_chips, options.seed) for part in parts]
    for what, part in zip(('to learn from', 'to test'), parts, strict=True):
        if len(part.labels) == 0:
            raise ConfigurationError(f'data: split by {split}, there is no chip {what}; split otherwise.')
    train, test, names = _only_used(parts[0], parts[1], known)
    if len(np.unique(train.labels)) < 2:
        raise ConfigurationError(
            f'data: the {len(train.labels)} chips to learn from, split by {split}, are all '
            f'{names[int(train.labels[0])]}; a probe needs 2 classes or more.'
        )
    if missing := [names[label] for label in np.setdiff1d(test.labels, train.labels)]:
        log.warning('No chip to learn from shows %s, so no probe can find it.', ', '.join(missing))
    data.find_statistics()
    blocks = (ground_blocks_of(scenes, train, options.block_size), ground_blocks_of(scenes, test, options.block_size))
    if split != 'the column split' and (common := np.intersect1d(*blocks).size):
        log.info('%d blocks of ground are both learnt from and tested on, in different scenes.', common)
    return ProbeChips(data, names, train, test, split, blocks)


def ground_blocks_of(scenes: Scenes, chips: LabelledChips, block_size: int) -> NDArray[np.int64]:
    """Number the block of ground in which each chip has its middle, whatever its date.

    Args:
        scenes: Scenes.
        chips: Chips of them.
        block_size: Side of a block in pixels of the scenes' resolution.

    Returns:
        A number a block, shape (n,); the blocks are those that :func:`.samplers.blocks.split_blocks` assigns.
    """
    cells = _cells(scenes, chips, block_size)
    return cells[:, 0] * 2**32 + cells[:, 1]


def _cells(scenes: Scenes, chips: LabelledChips, block_size: int) -> Cells:
    """Row and column of the block in which each chip has its middle, shape (n, 2)."""
    middles = [((x.start + x.stop) / 2, (y.start + y.stop) / 2) for x, y, _ in chips.queries]
    return BlockGrid(ground_of(scenes), block_size).cells_at(np.array(middles).reshape(-1, 2))


def _split_name(options: ProbeData) -> str:
    if options.split != 'blocks':
        return options.split
    return f'blocks of {options.block_size}×{options.block_size} pixels'


# ------------------------------------------------------------------------------------------------ label rasters


def _from_rasters(options: ProbeData, data: PretrainingDataModule) -> tuple[list[LabelledChips], dict[int, str], str]:
    assert data.labels is not None
    scenes = data.scenes
    names, recode = _classes(options.class_names, find_scenes(data.labels))
    cut = (options.chip_size, options.purity, options.min_valid)
    if options.test_scenes is not None:
        every = label_chips(scenes, data.labels, *cut, recode=recode)
        chosen = _matching(scenes, options.test_scenes)
        parts, split = _by_mask(every, np.array([query.scene in chosen for query in every.queries])), 'scenes'
    else:
        every_value = [str(value) for value in range(_VALUES)]
        classes = RasterLabels(data.labels, options.class_names or every_value)
        regions = split_ground(
            ground_of(scenes), options.split, options.fractions, options.block_size, options.seed, classes
        )
        *learnt, test = regions.values()
        learn = shapely.union_all(learnt)
        parts = [label_chips(scenes, data.labels, *cut, roi=region, recode=recode) for region in (learn, test)]
        split = _split_name(options)
    found = np.unique(np.concatenate([part.labels for part in parts])).tolist()
    if options.class_names is not None and (strange := [value for value in found if value not in names]):
        raise ConfigurationError(
            f'data.class_names: the labels hold the value(s) {", ".join(map(str, strange))} and {len(names)} names are '
            'given, from 0 on; name them all, or give values by name.'
        )
    return parts, {value: names.get(value, str(value)) for value in found} | names, split


def _classes(
    given: dict[str, list[int]] | list[str] | None, rasters: list[Scene]
) -> tuple[dict[int, str], dict[int, int] | None]:
    """Names by class, and the class of each value where they are not the same."""
    if isinstance(given, Mapping):
        recode = {value: position for position, values in enumerate(given.values()) for value in values}
        if len(recode) < sum(map(len, given.values())):
            raise ConfigurationError('data.class_names: a value stands for two classes; give each value one name.')
        return dict(enumerate(given)), recode
    if given is not None:
        return dict(enumerate(given)), None
    tag = rasters[0].files[0].tags.get('CLASS_NAMES')
    try:
        listed = json.loads(tag) if tag else []
    except json.JSONDecodeError:
        listed = []
    return {value: str(name) for value, name in enumerate(listed)} if isinstance(listed, list) else {}, None


# ------------------------------------------------------------------------------------------- files that are chips


def _listed(options: ProbeData) -> tuple[str | list[str] | None, pd.DataFrame | None]:
    """What to open, and for files that are chips a table: absolute path, label, and perhaps split."""
    if options.folder is not None:
        root = Path(options.folder).resolve()
        files = sorted(path for folder in root.glob('*/') for path in folder.rglob('*') if path.is_file())
        scenes = [path for path in files if path.suffix.lower() in ('.tif', '.tiff')]
        if not scenes:
            raise ConfigurationError(f'data.folder: {root} has no GeoTIFF in folders of classes, ROOT/<class>/*.tif.')
        classes = [path.relative_to(root).parts[0] for path in scenes]
        table = pd.DataFrame({'path': [str(path.resolve()) for path in scenes], 'label': classes})
        _check_paths(table, 'data.folder')
    elif options.csv is not None:
        table = _read_table(Path(options.csv))
    else:
        return options.paths, None
    return table['path'].tolist(), table


def _read_table(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise ConfigurationError(f'data.csv: there is no file {path}.')
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False).fillna('')  # a class may be called None or NA
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f'data.csv: {path} cannot be read as CSV in UTF-8 ({error}); write it again.'
        ) from error
    if missing := [name for name in ('path', 'label') if name not in table]:
        raise ConfigurationError(f'data.csv: {path} has the columns {", ".join(table)}; add {" and ".join(missing)}.')
    if table.empty:
        raise ConfigurationError(f'data.csv: {path} has no rows; add a row for each chip.')
    if table[['path', 'label']].eq('').any(axis=None):
        raise ConfigurationError(f'data.csv: {path} has rows without a path or a label; fill or remove them.')
    table = table.assign(path=[str((path.parent / name).resolve()) for name in table['path']])
    _check_paths(table, 'data.csv')
    return table


def _check_paths(table: pd.DataFrame, option: str) -> None:
    """Each row is a file of its own."""
    for name in table['path']:
        if not Path(name).is_file():
            raise ConfigurationError(f'{option}: {name} is no file; a row is one file, which is a chip.')
    twice = table['path'][table['path'].duplicated()]
    if len(twice):
        raise ConfigurationError(f'{option}: {twice.iloc[0]} is there twice; give each file one class.')


def _from_files(
    options: ProbeData, scenes: Scenes, table: pd.DataFrame
) -> tuple[list[LabelledChips], dict[int, str], str]:
    classes = sorted(table['label'].unique())
    for scene in scenes.scenes:
        if min(scene.grid.height, scene.grid.width) < options.chip_size:
            raise ConfigurationError(
                f'data.chip_size: expected at most the {scene.grid.height}×{scene.grid.width} pixels of {scene.path}, '
                f'got {options.chip_size}.'
            )
    rows = {path: row for row, path in enumerate(table['path'])}
    order = [rows[str(Path(scene.files[0].path).resolve())] for scene in scenes.scenes]
    labels = np.array([classes.index(label) for label in table['label'].iloc[order]], dtype=np.int64)
    queries = tuple(scenes.query(i, _middle(scene, options.chip_size)) for i, scene in enumerate(scenes.scenes))
    every, names = LabelledChips(queries, labels), dict(enumerate(classes))
    if options.test_scenes is not None:
        chosen = _matching(scenes, options.test_scenes)
        parts, how = _by_mask(every, np.array([i in chosen for i in range(len(labels))])), 'scenes'
    elif 'split' in table:
        split = table['split'].iloc[order].to_numpy()
        if others := int((~np.isin(split, ('train', 'test'))).sum()):
            log.warning('%d rows are neither train nor test and are left out.', others)
        parts, how = [_where(every, split == part) for part in ('train', 'test')], 'the column split'
    else:
        cells, number = np.unique(_cells(scenes, every, options.block_size), axis=0, return_inverse=True)
        totals = np.zeros((len(cells), len(classes)))
        np.add.at(totals, (number, labels), 1)
        shares = (sum(options.fractions[:-1]), options.fractions[-1])
        tested = assign(totals, shares, chances(cells, options.seed).tolist()) == 1
        train, test = _by_mask(every, tested[number])
        # a file is in the block of its middle, but may reach beyond it
        shared = _on_ground_of(train, test)
        if shared.any():
            log.info('%d of %d chips to learn from show ground of test chips; left out.', shared.sum(), len(shared))
        parts, how = [_where(train, ~shared), test], _split_name(options)
        return parts, names, how
    if (count := int(_on_ground_of(parts[0], parts[1]).sum())) and len(parts[0].labels):
        log.warning('%d of %d chips to learn from show ground of test chips.', count, len(parts[0].labels))
    return parts, names, how


def _on_ground_of(chips: LabelledChips, others: LabelledChips) -> NDArray[np.bool_]:
    """Which chips have more than an edge in common with any of the others."""
    boxes, theirs = (
        np.array([shapely.box(x.start, y.start, x.stop, y.stop) for x, y, _ in part.queries], dtype=np.object_)
        for part in (chips, others)
    )
    own, other = shapely.STRtree(theirs).query(boxes, predicate='intersects')
    common = shapely.area(shapely.intersection(boxes[own], theirs[other]))
    shared = np.zeros(len(boxes), dtype=np.bool_)
    shared[own[common > _EDGE * shapely.area(boxes[own])]] = True
    return shared


def _middle(scene: Scene, size: int) -> Window:
    return Window((scene.grid.height - size) // 2, (scene.grid.width - size) // 2, size, size)


# --------------------------------------------------------------------------------------------------------- parts


def _matching(scenes: Scenes, patterns: str | list[str]) -> set[int]:
    """Scenes of which some file's name, or path, fits a pattern."""
    listed = [patterns] if isinstance(patterns, str) else patterns
    chosen: set[int] = set()
    for pattern in listed:
        fits = {
            i for i, scene in enumerate(scenes.scenes) for file in scene.files
            if any(fnmatch.fnmatch(name, pattern) for name in (Path(file.path).name, Path(file.path).stem, file.path))
        }  # fmt: skip
        if not fits:
            names = ', '.join(Path(scene.path).name for scene in scenes.scenes[:5])
            raise ConfigurationError(f'data.test_scenes: {pattern!r} fits none of the scenes ({names}, …).')
        chosen |= fits
    return chosen


def _where(chips: LabelledChips, wanted: NDArray[np.bool_]) -> LabelledChips:
    queries = tuple(query for query, keep in zip(chips.queries, wanted, strict=True) if keep)
    return LabelledChips(queries, chips.labels[wanted])


def _by_mask(chips: LabelledChips, tested: NDArray[np.bool_]) -> list[LabelledChips]:
    return [_where(chips, ~tested), _where(chips, tested)]


def _drawn(chips: LabelledChips, most: int, seed: int) -> LabelledChips:
    if len(chips.labels) <= most:
        return chips
    log.info('%d of %d chips were drawn (data.max_chips).', most, len(chips.labels))
    wanted = np.zeros(len(chips.labels), dtype=np.bool_)
    wanted[np.random.default_rng(seed).choice(len(wanted), most, replace=False)] = True
    return _where(chips, wanted)


def _only_used(
    train: LabelledChips, test: LabelledChips, names: dict[int, str]
) -> tuple[LabelledChips, LabelledChips, tuple[str, ...]]:
    """Number the classes that occur from 0 on."""
    used = np.union1d(train.labels, test.labels)
    parts = [replace(part, labels=np.searchsorted(used, part.labels)) for part in (train, test)]
    return parts[0], parts[1], tuple(names[int(value)] for value in used)
