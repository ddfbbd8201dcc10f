"""Held-out ground of a study: whole scenes, and labels drawn from some of the others."""

from pathlib import Path
from typing import Any

import numpy as np
import shapely
from jsonargparse import ArgumentError, ArgumentParser
from shapely.geometry.base import BaseGeometry

from torchgeo_msssl.datamodules.base import SpectralDataModule
from torchgeo_msssl.datamodules.pretraining import PretrainingDataModule
from torchgeo_msssl.datamodules.segmentation import SegmentationDataModule
from torchgeo_msssl.datasets.chips import chip_rasters
from torchgeo_msssl.datasets.labels import Labels
from torchgeo_msssl.datasets.scenes import Scenes
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.evaluation.study.cell_commands import as_arguments, config_path, split_file
from torchgeo_msssl.evaluation.study.design import Cell, Initialisation, Options, Study
from torchgeo_msssl.evaluation.study.provenance import Provenance
from torchgeo_msssl.geo.ground.area import Ground
from torchgeo_msssl.geo.ground.file import write_split
from torchgeo_msssl.geo.ground.split import split_ground
from torchgeo_msssl.samplers.blocks import ground_blocks, ground_of, split_blocks

#: Minimum fraction of a block with labels and data for it to count as a labelled block.
_WHOLE = 0.95


def find_regions(study: Study) -> list[str | None]:
    """List the held-out regions of a study.

    Returns:
        ``blocks``, ``scene``, files of polygons, and for ``scenes`` the name of each group of scenes that share ground;
        None alone without a test.

    Raises:
        ConfigurationError: If there are too few scenes to hold one out.
    """
    if not study.test:
        return [None]
    regions: list[str | None] = []
    for region in study.regions:
        groups = _groups_to_hold_out(study) if region in ('scene', 'scenes') else {}
        regions += list(groups) if region == 'scenes' else [region]
    return regions


def open_data(config: str | Path, options: Options) -> SpectralDataModule:
    """Instantiate the data module of a configuration without its trainer.

    Args:
        config: Configuration of a run.
        options: Options of the command line by dotted name, of which those of the data are used.

    Raises:
        ConfigurationError: If it is not one of this package.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument('--config', action='config')
    for section in ('model', 'trainer', 'seed_everything', 'optimizer', 'lr_scheduler', 'ckpt_path'):
        parser.add_argument(f'--{section}', type=Any)
    parser.add_subclass_arguments(SpectralDataModule, 'data')
    mine = {name: value for name, value in options.items() if name.startswith('data.')}
    try:
        found = parser.parse_args(['--config', str(config), *as_arguments(mine)])
    except ArgumentError as error:  # its message names the option
        raise ConfigurationError(f'{config}: {error}') from error
    data: SpectralDataModule = parser.instantiate(found).data
    return data


def scene_groups(scenes: Scenes) -> dict[str, BaseGeometry]:
    """Group scenes that share ground.

    Returns:
        Ground of each group, by the name of its first file.
    """
    ground = ground_of(scenes)
    found = {}
    for group in ground.groups:
        touching = shapely.intersects(ground.outlines, group)
        found[min(Path(path).stem for path, touches in zip(ground.paths, touching, strict=True) if touches)] = group
    return dict(sorted(found.items()))


def prepare_split(study: Study, cell: Cell) -> None:
    """Write the file of a cell's split unless it exists.

    Raises:
        ConfigurationError: If the scenes have too little ground.
    """
    path = split_file(study, cell)
    if path is None or path.is_file():
        return
    data = _open_fit(study)
    ground = ground_of(data.scenes)
    if cell.region == 'blocks':
        labels = data.open_labels().source
        regions = split_ground(ground, 'blocks', data.fractions, data.block_size, cell.seed, labels, data.gap)
        write_split(path, regions, ground.crs)
        return
    groups = scene_groups(data.scenes)
    held_out = list(groups)[cell.seed % len(groups)] if cell.region == 'scene' else str(cell.region)
    test = groups.pop(held_out)
    if cell.scenes is None:
        parts = _split_rest(data, groups, cell.seed)
    else:
        assert cell.shots is not None
        parts = _draw_from_scenes(data, groups, cell.scenes, cell.shots, cell.seed)
    write_split(path, {**parts, 'test': test}, ground.crs)


def provenance_of(study: Study, initialisation: Initialisation) -> Provenance:
    """Describe what a pretraining uses of the ground that its cells are tested on.

    Returns:
        Whether its data share ground with those of the cells, and how it uses labels.
    """
    pretraining = initialisation.pretraining
    assert pretraining is not None
    data = open_data(pretraining.config, pretraining.options)
    learns = isinstance(data, SegmentationDataModule)
    reads = _share_ground(data, _open_fit(study))  # which also sets the labels of the sample area
    labels = data.labels if isinstance(data, PretrainingDataModule) else None
    chosen = labels is not None and 'best' in Path(pretraining.weights).stem
    return Provenance(reads, learns, pretraining.same_split, chosen)


def check_pretrainings(study: Study) -> None:
    """Check that no pretraining learns from labels of the ground that its cells are tested on.

    Raises:
        ConfigurationError: If one with labels of the same ground has another split.
    """
    for entry in study.initialisations if study.test else []:
        pretraining = entry.pretraining
        if pretraining is None or pretraining.same_split:
            continue
        data = open_data(pretraining.config, pretraining.options)
        if isinstance(data, SegmentationDataModule) and provenance_of(study, entry).reads_test_ground:
            raise ConfigurationError(
                f'same_split: the pretraining of {entry.name} learns from labels of ground that cells are tested on; '
                'set same_split and each_seed, or use other ground.'
            )


def _share_ground(one: SpectralDataModule, other: SpectralDataModule) -> bool:
    """Return whether data have more than a pixel of ground in common, in any file and at any date.

    Chips in arrays and images without a CRS have no known ground and are taken to share it.
    """
    try:
        scenes, tested = _ground_scenes(one), ground_of(_ground_scenes(other))
    except ConfigurationError:
        return True
    if scenes.plain:
        return True
    common = Ground.of(scenes.scenes, tested.crs).union.intersection(tested.union)
    return bool(common.area > tested.pixel[0] * tested.pixel[1])


def _ground_scenes(data: SpectralDataModule) -> Scenes:
    if not data.reads_chips:
        return data.scenes
    assert data.paths is not None
    (root,) = [data.paths] if isinstance(data.paths, str) else data.paths
    return Scenes(chip_rasters(root), sensor=data.sensor)


def _open_fit(study: Study) -> SegmentationDataModule:
    data = open_data(study.fit, study.options)
    if not isinstance(data, SegmentationDataModule):
        raise ConfigurationError(
            f'{config_path(study.fit)}: regions need a SegmentationDataModule, got {type(data).__name__}.'
        )
    return data


def _groups_to_hold_out(study: Study) -> dict[str, BaseGeometry]:
    groups = scene_groups(_open_fit(study).scenes)
    needed = 1 + max([*study.scenes, 1])
    if len(groups) < needed:
        msg = (
            f'regions: the scenes form {len(groups)} group(s) without common ground, and {needed} are needed, one of '
            'them for the test; add scenes, or hold out blocks.'
        )
        raise ConfigurationError(msg)
    return groups


def _split_rest(data: SegmentationDataModule, groups: dict[str, BaseGeometry], seed: int) -> dict[str, BaseGeometry]:
    """Split the other scenes by blocks, in the proportion of the data module's fractions."""
    training, validation, _ = data.fractions
    fractions = (training / (training + validation), validation / (training + validation))
    rest = shapely.union_all(list(groups.values()))
    regions = split_blocks(data.scenes, fractions, data.block_size, seed, data.open_labels().source, within=rest)
    return dict(zip(('train', 'val'), regions, strict=True))


def _draw_from_scenes(
    data: SegmentationDataModule, groups: dict[str, BaseGeometry], number: int, shots: int, seed: int
) -> dict[str, BaseGeometry]:
    """Draw the same number of labelled blocks from any number of scenes for training, and as many for validation."""
    generator = np.random.default_rng(seed)
    names = list(groups)
    chosen = [names[i] for i in generator.permutation(len(names))[:number]]
    labels = data.open_labels()
    parts: dict[str, list[BaseGeometry]] = {'train': [], 'val': []}
    for i, name in enumerate(chosen):
        each = shots // number + (i < shots % number)
        found = _labelled_blocks(data, labels, groups[name], 2 * each, seed)
        if len(found) < 2 * each:
            msg = f'shots: {name} has {len(found)} labelled blocks; {2 * each} are needed, half of them for validation.'
            raise ConfigurationError(msg)
        parts['train'] += found[:each]
        parts['val'] += found[each:]
    return {part: shapely.union_all(blocks) for part, blocks in parts.items()}


def _labelled_blocks(
    data: SegmentationDataModule, labels: Labels, ground: BaseGeometry, count: int, seed: int
) -> list[BaseGeometry]:
    """Up to ``count`` blocks that are labelled almost everywhere, so that all blocks have as many labels."""
    least = _WHOLE * data.block_size**2
    found: list[BaseGeometry] = []
    for block in ground_blocks(data.scenes, data.block_size, ground, seed):
        if len(found) == count:
            break
        if labels.class_counts(data.scenes, block, progress=False).sum() >= least:
            found.append(block)
    return found
