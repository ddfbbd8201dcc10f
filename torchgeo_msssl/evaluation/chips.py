"""Labelled chips of a probe, for training and for testing."""

import fnmatch
import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray

from torchgeo_msssl.datamodules.pretraining import PretrainingDataModule
from torchgeo_msssl.datasets.chip_sources import FileSource
from torchgeo_msssl.datasets.chips import ChipPart, Chips, chip_rasters, chip_splits
from torchgeo_msssl.datasets.scenes import Scenes
from torchgeo_msssl.errors import ConfigurationError, EmptyIntersectionError
from torchgeo_msssl.evaluation.features import LabelledChips, label_chips, main_class
from torchgeo_msssl.evaluation.probe_settings import ProbeData
from torchgeo_msssl.geo.discover import is_image
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.ground.assignment import assign
from torchgeo_msssl.geo.ground.blocks import BlockGrid, Cells, chances
from torchgeo_msssl.geo.ground.parts import PARTS
from torchgeo_msssl.geo.ground.split import split_ground
from torchgeo_msssl.geo.labels.options import LabelSettings
from torchgeo_msssl.geo.labels.raster import RasterLabels
from torchgeo_msssl.geo.labels.values import tagged_names
from torchgeo_msssl.geo.plain_images import image_number, require_crs
from torchgeo_msssl.samplers.blocks import ground_of

log = logging.getLogger(__name__)

#: Fraction of a chip by which rounded coordinates of adjacent chips may overlap.
_EDGE = 1e-6


@dataclass(frozen=True)
class ProbeChips:
    """Labelled chips of a probe.

    Attributes:
        data: Data module of the scenes, with their statistics.
        class_names: Names of the classes; a label is an index into them.
        train: Training chips.
        test: Test chips.
        split: Description of the split.
        blocks: Ground block of each chip, ``(train, test)``.
        draws: Training chips whose labels are used, one array of indices for each draw.
    """

    data: PretrainingDataModule
    class_names: tuple[str, ...]
    train: LabelledChips
    test: LabelledChips
    split: str
    blocks: tuple[NDArray[np.int64], NDArray[np.int64]]
    draws: tuple[NDArray[np.int64], ...]


def open_chips(options: ProbeData) -> ProbeChips:
    """Find labelled chips and split them.

    Raises:
        ConfigurationError: If a table lacks a column, classes do not fit the labels, or a part would have no chips.
        EmptyIntersectionError: If no chip has a label.
        MSSSLError: If scenes or labels cannot be read.
    """
    sources, labels = _listed(options)
    data = PretrainingDataModule(
        sources,
        options.bands,
        sensor=options.sensor,
        chip_size=options.chip_size,
        labels=options.labels,
        offset=options.offset,
        sample_dir=options.sample_dir,
        reader='scenes',
        min_valid=options.min_valid,
    )
    scenes = data.scenes
    data.scene_reader.count_valid_pixels()
    if labels is None:
        require_crs(scenes.scenes, 'data.labels')
        parts, known, split = _from_rasters(options, data)
    else:
        parts, known, split = _from_files(options, scenes, labels)
    parts = [_sample(part, options.max_chips, options.seed) for part in parts]
    for what, part in zip(('training', 'test'), parts, strict=True):
        if len(part.labels) == 0:
            raise ConfigurationError(f'data: the split by {split} leaves no {what} chip; change the split.')
    train, test, names = _only_used(parts[0], parts[1], known)
    if len(np.unique(train.labels)) < 2:
        raise ConfigurationError(
            f'data: the {len(train.labels)} training chips of the split by {split} are all '
            f'{names[int(train.labels[0])]}; a probe needs at least 2 classes.'
        )
    if missing := [names[label] for label in np.setdiff1d(test.labels, train.labels)]:
        log.warning('No training chip shows %s, so no probe can predict it.', ', '.join(missing))
    data.find_statistics()
    blocks = (ground_blocks_of(scenes, train, options.block_size), ground_blocks_of(scenes, test, options.block_size))
    if split != 'the column split' and (common := np.intersect1d(*blocks).size):
        log.info('%d ground blocks have training and test chips, of different scenes.', common)
    draws = tuple(
        draw_labels(train.labels, options.label_fraction, options.seed + draw) for draw in range(options.label_draws)
    )
    if options.label_fraction < 1:
        log.info('Labels of %d of %d training chips are used.', len(draws[0]), len(train.labels))
    return ProbeChips(data, names, train, test, split, blocks, draws)


def draw_labels(labels: NDArray[np.integer], fraction: float, seed: int) -> NDArray[np.int64]:
    """Choose the chips whose labels are used, the same fraction of each class.

    Args:
        labels: Class of each chip, shape (n,).
        fraction: Fraction of the chips of a class; each class has at least one.
        seed: Seed of the choice; smaller fractions lie within larger ones.

    Returns:
        Indices in rising order.
    """
    rng = np.random.default_rng(seed)
    chosen = []
    for label in np.unique(labels):
        own = rng.permutation(np.flatnonzero(labels == label))
        chosen.append(own[: max(1, round(fraction * len(own)))])
    return np.sort(np.concatenate(chosen))


def ground_blocks_of(scenes: Scenes, chips: LabelledChips, block_size: int) -> NDArray[np.int64]:
    """Number the ground block that holds the centre of each chip, regardless of its date.

    Args:
        scenes: Scenes.
        chips: Chips of them.
        block_size: Side of a block in pixels of the scenes' resolution.

    Returns:
        Number of the block of each chip, shape (n,); blocks are those of :func:`.samplers.blocks.split_blocks`.
    """
    cells = _cells(scenes, chips, block_size)
    return cells[:, 0] * 2**32 + cells[:, 1]


def _cells(scenes: Scenes, chips: LabelledChips, block_size: int) -> Cells:
    """Row and column of the block that holds the centre of each chip, shape (n, 2); a plain image is one block."""
    if scenes.plain:
        number = {query.scene: image_number(scenes.scenes[query.scene].path) for query in chips.queries}
        return np.array([(0, number[query.scene]) for query in chips.queries], dtype=np.int64).reshape(-1, 2)
    middles = [((x.start + x.stop) / 2, (y.start + y.stop) / 2) for x, y, _ in chips.queries]
    return BlockGrid(ground_of(scenes), block_size).cells_at(np.array(middles).reshape(-1, 2))


def _split_name(options: ProbeData, scenes: Scenes) -> str:
    if options.split != 'blocks':
        return options.split
    if scenes.plain:
        return 'images'
    return f'blocks of {options.block_size}×{options.block_size} pixels'


# ------------------------------------------------------------------------------------------------ label rasters


def _from_rasters(options: ProbeData, data: PretrainingDataModule) -> tuple[list[LabelledChips], dict[int, str], str]:
    assert data.labels is not None
    scenes = data.scenes
    labels = RasterLabels(data.labels, LabelSettings(class_names=options.class_names))
    names = dict(enumerate(labels.class_names))
    if options.class_names is None:
        names |= dict(enumerate(tagged_names(labels.rasters[0])))
    cut = (options.chip_size, options.purity, options.min_valid)
    if options.test_scenes is not None:
        every = label_chips(scenes, labels, *cut)
        chosen = _matching(scenes, options.test_scenes)
        return _by_mask(every, np.array([query.scene in chosen for query in every.queries])), names, 'scenes'
    ground = ground_of(scenes)
    regions = split_ground(ground, options.split, options.fractions, options.block_size, options.seed, labels)
    *others, test = regions.values()
    parts = [label_chips(scenes, labels, *cut, roi=region) for region in (shapely.union_all(others), test)]
    return parts, names, _split_name(options, scenes)


# ------------------------------------------------------------------------------------------- files that are chips


def _listed(options: ProbeData) -> tuple[str | list[str] | None, pd.DataFrame | None]:
    """Paths to open, and for files that are chips a table of absolute path, label and optionally split."""
    if options.folder is not None:
        table = _folder_table(Path(options.folder).resolve())
    elif options.csv is not None:
        table = _read_table(Path(options.csv))
    elif options.is_chip_folder and options.labels is None:
        table = _chip_table(options)
    else:
        return options.paths, None
    return table['path'].tolist(), table


def _folder_table(root: Path) -> pd.DataFrame:
    """Path and class of the files in ``ROOT/CLASS``, or with the split in ``ROOT/train/CLASS``, …."""
    files = sorted(path for folder in root.glob('*/') for path in folder.rglob('*') if path.is_file())
    scenes = [path for path in files if path.suffix.lower() in ('.tif', '.tiff')]
    # next to rasters, images are previews
    scenes = scenes or [path for path in files if is_image(path.name)]
    parts = [path.relative_to(root).parts for path in scenes]
    if not scenes:
        raise ConfigurationError(
            f'data.folder: {root} has neither GeoTIFFs nor images (JPEG, PNG) in folders of classes, ROOT/CLASS/*.'
        )
    divided = all(len(own) > 2 and own[0] in PARTS for own in parts)
    table = pd.DataFrame({'path': [str(path.resolve()) for path in scenes], 'label': [own[divided] for own in parts]})
    _check_paths(table, 'data.folder')
    return table.assign(split=[own[0] for own in parts]) if divided else table


def _chip_table(options: ProbeData) -> pd.DataFrame:
    """Path and dominant class of the chips of a folder, with their split if the folder is divided."""
    root, names, rows = str(options.paths), options.class_names, []
    chip_rasters(root)  # raises for arrays
    splits = chip_splits(root)
    for split in splits:
        chips = Chips(root, split, options.bands, options.sensor, class_names=names, offset=options.offset)
        if not isinstance(chips.source, FileSource) or not chips.labelled:
            raise ConfigurationError(
                f'data.paths: {root} has no files of chips with masks; cut them with `chip --labels` and without '
                '--virtual, or give scenes and labels.'
            )
        window = _centre(*chips.size, options.chip_size)
        for i, file in enumerate(chips.source.chips):
            value = main_class(chips[ChipPart(i, window)]['mask'].numpy(), chips.ignore_index, options.purity)
            if value is not None:
                rows.append((file.image, chips.class_names[value] if chips.class_names else str(value), split))
    if not rows:
        raise EmptyIntersectionError(
            f'data.paths: no chip in {root} has one class on {options.purity:.0%} of its {options.chip_size} central '
            'pixels; use a smaller purity or chip_size.'
        )
    table = pd.DataFrame(rows, columns=['path', 'label', 'split'])
    table['path'] = [str(Path(path).resolve()) for path in table['path']]
    return table if len(splits) > 1 else table.drop(columns='split')


def _read_table(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise ConfigurationError(f'data.csv: there is no file {path}.')
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False).fillna('')  # a class may be named None or NA
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f'data.csv: {path} cannot be read as CSV in UTF-8 ({error}); write it again.'
        ) from error
    if missing := [name for name in ('path', 'label') if name not in table]:
        raise ConfigurationError(f'data.csv: {path} has the columns {", ".join(table)}; add {" and ".join(missing)}.')
    if table.empty:
        raise ConfigurationError(f'data.csv: {path} has no rows; add one row per chip.')
    if table[['path', 'label']].eq('').any(axis=None):
        raise ConfigurationError(f'data.csv: {path} has rows without a path or a label; fill or remove them.')
    table = table.assign(path=[str((path.parent / name).resolve()) for name in table['path']])
    _check_paths(table, 'data.csv')
    return table


def _check_paths(table: pd.DataFrame, option: str) -> None:
    """Raise unless each row is a different file."""
    for name in table['path']:
        if not Path(name).is_file():
            raise ConfigurationError(f'{option}: {name} is not a file; each row names the file of one chip.')
    twice = table['path'][table['path'].duplicated()]
    if len(twice):
        raise ConfigurationError(f'{option}: {twice.iloc[0]} appears twice; give each file one class.')


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
    windows = [_centre(scene.grid.height, scene.grid.width, options.chip_size) for scene in scenes.scenes]
    queries = tuple(scenes.query(i, window) for i, window in enumerate(windows))
    every, names = LabelledChips(queries, labels), dict(enumerate(classes))
    if options.test_scenes is not None:
        chosen = _matching(scenes, options.test_scenes)
        parts, how = _by_mask(every, np.array([i in chosen for i in range(len(labels))])), 'scenes'
    elif 'split' in table:
        split = table['split'].iloc[order].to_numpy()
        if others := int((~np.isin(split, ('train', 'test'))).sum()):
            log.warning('%d rows are neither train nor test and are ignored.', others)
        parts, how = [_where(every, split == part) for part in ('train', 'test')], 'the column split'
    else:
        cells, number = np.unique(_cells(scenes, every, options.block_size), axis=0, return_inverse=True)
        totals = np.zeros((len(cells), len(classes)))
        np.add.at(totals, (number, labels), 1)
        shares = (sum(options.fractions[:-1]), options.fractions[-1])
        tested = assign(totals, shares, chances(cells, options.seed).tolist()) == 1
        train, test = _by_mask(every, tested[number])
        # the block of a file is that of its centre, but the file may reach beyond it
        shared = _on_ground_of(train, test)
        if shared.any():
            log.info('%d of %d training chips show ground of test chips and are dropped.', shared.sum(), len(shared))
        parts, how = [_where(train, ~shared), test], _split_name(options, scenes)
        return parts, names, how
    if (count := int(_on_ground_of(parts[0], parts[1]).sum())) and len(parts[0].labels):
        log.warning('%d of %d training chips show ground of test chips.', count, len(parts[0].labels))
    return parts, names, how


def _on_ground_of(chips: LabelledChips, others: LabelledChips) -> NDArray[np.bool_]:
    """Tell which chips share more than an edge with any of the others."""
    boxes, theirs = (
        np.array([shapely.box(x.start, y.start, x.stop, y.stop) for x, y, _ in part.queries], dtype=np.object_)
        for part in (chips, others)
    )
    own, other = shapely.STRtree(theirs).query(boxes, predicate='intersects')
    common = shapely.area(shapely.intersection(boxes[own], theirs[other]))
    shared = np.zeros(len(boxes), dtype=np.bool_)
    shared[own[common > _EDGE * shapely.area(boxes[own])]] = True
    return shared


def _centre(height: int, width: int, size: int) -> Window:
    return Window((height - size) // 2, (width - size) // 2, size, size)


# --------------------------------------------------------------------------------------------------------- parts


def _matching(scenes: Scenes, patterns: str | list[str]) -> set[int]:
    """Scenes with a file whose name or path matches a pattern."""
    listed = [patterns] if isinstance(patterns, str) else patterns
    chosen: set[int] = set()
    for pattern in listed:
        fits = {i for i, scene in enumerate(scenes.scenes) if any(_fits(file.path, pattern) for file in scene.files)}
        if not fits:
            names = ', '.join(Path(scene.path).name for scene in scenes.scenes[:5])
            raise ConfigurationError(f'data.test_scenes: {pattern!r} matches none of the scenes ({names}, …).')
        chosen |= fits
    return chosen


def _fits(path: str, pattern: str) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for name in (Path(path).name, Path(path).stem, path))


def _where(chips: LabelledChips, wanted: NDArray[np.bool_]) -> LabelledChips:
    queries = tuple(query for query, keep in zip(chips.queries, wanted, strict=True) if keep)
    return LabelledChips(queries, chips.labels[wanted])


def _by_mask(chips: LabelledChips, tested: NDArray[np.bool_]) -> list[LabelledChips]:
    return [_where(chips, ~tested), _where(chips, tested)]


def _sample(chips: LabelledChips, most: int, seed: int) -> LabelledChips:
    if len(chips.labels) <= most:
        return chips
    log.info('%d of %d chips are used (data.max_chips).', most, len(chips.labels))
    wanted = np.zeros(len(chips.labels), dtype=np.bool_)
    wanted[np.random.default_rng(seed).choice(len(wanted), most, replace=False)] = True
    return _where(chips, wanted)


def _only_used(
    train: LabelledChips, test: LabelledChips, names: dict[int, str]
) -> tuple[LabelledChips, LabelledChips, tuple[str, ...]]:
    """Renumber the classes that occur from 0."""
    used = np.union1d(train.labels, test.labels)
    parts = [replace(part, labels=np.searchsorted(used, part.labels)) for part in (train, test)]
    return parts[0], parts[1], tuple(names[int(value)] for value in used)
