"""The split of a run as a file of regions with a picture of them."""

from collections.abc import Mapping
from pathlib import Path

import shapely
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from shapely.geometry.base import BaseGeometry
from shapely.plotting import patch_from_polygon

from torchgeo_msssl.datasets.scenes import Scenes
from torchgeo_msssl.files import atomic_path
from torchgeo_msssl.geo.ground.file import write_split
from torchgeo_msssl.geo.ground.parts import SPLIT_FILE
from torchgeo_msssl.samplers.blocks import ground_of

#: Training ground whose labels are not used.
UNUSED = 'train, label not used'

_COLOURS = {'train': 'tab:green', UNUSED: 'lightgrey', 'val': 'tab:orange', 'test': 'tab:blue'}


def save_split(folder: Path, regions: Mapping[str, BaseGeometry], scenes: Scenes) -> None:
    """Write ``split.geojson``, which the option ``split`` accepts, and ``split.png``.

    Args:
        folder: Run folder.
        regions: Regions in the scenes' CRS by the name of the part; empty ones are left out.
        scenes: Scenes, whose outlines are drawn.

    Raises:
        OutputError: If a file cannot be written.
    """
    regions = {name: region for name, region in regions.items() if not region.is_empty}
    ground = ground_of(scenes)
    write_split(folder / SPLIT_FILE, regions, ground.crs)
    figure = Figure(figsize=(6, 6), layout='constrained')
    axes = figure.subplots()
    for name, region in regions.items():
        for polygon in shapely.get_parts(region):
            axes.add_patch(patch_from_polygon(polygon, facecolor=_COLOURS[name], edgecolor='white', linewidth=0.5))
    for outline in ground.outlines:
        axes.plot(*outline.exterior.xy, color='black', linewidth=1)
    handles = [Patch(color=_COLOURS[name], label=name) for name in regions]
    figure.legend(handles=handles, loc='outside lower center', ncols=len(handles))
    axes.autoscale_view()
    axes.set_aspect('equal')
    axes.set_title('split of the ground')
    with atomic_path(folder / 'split.png') as temporary:
        figure.savefig(temporary, dpi=100)
