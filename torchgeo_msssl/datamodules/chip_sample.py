"""Chips of the generated sample area, for those who have none yet."""

from pathlib import Path
from typing import Literal

from torchgeo_msssl.datamodules.base import find_sample_area
from torchgeo_msssl.geo.chipping.options import ChipOptions, LabelOptions
from torchgeo_msssl.geo.chipping.progress_log import SUMMARY
from torchgeo_msssl.geo.chipping.run import chip_scenes
from torchgeo_msssl.geo.headers import describe_file
from torchgeo_msssl.geo.sample import MANIFEST, SampleArea

type SampleScenes = Literal['s2', 'drone']

_SENTINEL2_SIZE = 64
#: Chips along the shorter side of a flight, about; fewer would leave nothing between the parts of a split.
_ALONG = 9


def sample_chips(directory: str, scenes: SampleScenes) -> str:
    """Cut chips out of the sample area, unless they are there.

    Args:
        directory: Where the area is, or is made.
        scenes: ``s2``: of all Sentinel-2 scenes, without labels; ``drone``: of the flights, with their vine rows, in
            parts for training, validation and test.

    Returns:
        The folder of the chips.

    Raises:
        ConfigurationError: If the manifest cannot be written.
        OutputError: If the disk is full.
    """
    area = find_sample_area(directory)
    folder = Path(directory) / 'chips' / scenes
    if not _is_current(folder, area):
        print(f'No root given: cutting chips out of it into {folder} …')
        paths = area.sentinel2 if scenes == 's2' else area.drone
        options = ChipOptions(_SENTINEL2_SIZE, _SENTINEL2_SIZE) if scenes == 's2' else _of_flights(area)
        chip_scenes([str(path) for path in paths], folder, options, overwrite=True)
    return str(folder)


def _is_current(folder: Path, area: SampleArea) -> bool:
    """Whether chips are complete, and of the area that is there now."""
    summary = folder / SUMMARY
    return summary.is_file() and summary.stat().st_mtime_ns >= (area.directory / MANIFEST).stat().st_mtime_ns


def _of_flights(area: SampleArea) -> ChipOptions:
    grids = [describe_file(str(path)).grid for path in area.drone]
    size = max(32, min(min(grid.height, grid.width) for grid in grids) // _ALONG // 32 * 32)
    vines = LabelOptions((str(area.vines),), class_names=('background', 'vine'), layer='rows')
    return ChipOptions(
        size, size, sensor='micasense_rededge', labels=vines, split='blocks',
            fractions=(0.6, 0.2, 0.2), block_size=3 * size,
    )  # fmt: skip
