"""Scenes and chips of the generated sample area, for runs without ``paths``."""

import json
from pathlib import Path
from typing import Literal

from torchgeo_msssl.geo.chipping.manifest import FORMAT
from torchgeo_msssl.geo.chipping.options import ChipOptions
from torchgeo_msssl.geo.chipping.progress_log import SUMMARY
from torchgeo_msssl.geo.chipping.run import chip_scenes
from torchgeo_msssl.geo.headers import describe_file
from torchgeo_msssl.geo.sample import MANIFEST, SampleArea, sample_area, write_sample_area

_SENTINEL2_SIZE = 64
#: Approximate number of chips along the shorter side of a flight; fewer leave nothing between the parts of a split.
_ALONG = 9


def find_sample_area(directory: str) -> SampleArea:
    """Find the synthetic sample area, or generate it, and print which.

    Args:
        directory: Its folder.

    Returns:
        Its files.

    Raises:
        OutputError: If it cannot be written.
    """
    area = sample_area(directory)
    if area is not None:
        print(f'No paths given: using the synthetic sample area in {directory}.')
        return area
    print(f'No paths given: generating the synthetic sample area in {directory} …')
    return write_sample_area(directory)


def sample_chips(area: SampleArea, scenes: Literal['s2', 'drone']) -> str:
    """Cut chips from the sample area, unless they exist.

    Args:
        area: Its files.
        scenes: ``s2``: all Sentinel-2 scenes, without labels; ``drone``: the flights with their vine rows, divided into
            parts for training, validation and test.

    Returns:
        The folder of the chips.

    Raises:
        ConfigurationError: If the manifest cannot be written.
        OutputError: If the disk is full.
    """
    folder = Path(area.directory) / 'chips' / scenes
    if not _is_current(folder, area):
        print(f'Cutting chips from it into {folder} …')
        paths = area.sentinel2 if scenes == 's2' else area.drone
        options = ChipOptions(chip_size=_SENTINEL2_SIZE) if scenes == 's2' else _flight_options(area)
        chip_scenes([str(path) for path in paths], folder, options, overwrite=True)
    return str(folder)


def _is_current(folder: Path, area: SampleArea) -> bool:
    """Return whether chips are complete, of this version's format, and from the present area."""
    summary = folder / SUMMARY
    try:
        current = json.loads(summary.read_text(encoding='utf-8'))['format'] == FORMAT
    except (OSError, ValueError, KeyError):
        return False
    return current and summary.stat().st_mtime_ns >= (area.directory / MANIFEST).stat().st_mtime_ns


def _flight_options(area: SampleArea) -> ChipOptions:
    grids = [describe_file(str(path)).grid for path in area.drone]
    size = max(32, min(min(grid.height, grid.width) for grid in grids) // _ALONG // 32 * 32)
    return ChipOptions(
        chip_size=size,
        sensor='micasense_rededge',
        labels=(str(area.vines),),
        class_names=('background', 'vine'),
        layer='rows',
        split='blocks',
        fractions=(0.6, 0.2, 0.2),
        block_size=3 * size,
    )
