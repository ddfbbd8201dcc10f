"""Real rasters next to the repository, where they are available."""

from itertools import groupby
from pathlib import Path

#: Folder of the real data; tests that need it are skipped if it is absent.
DATA = Path(__file__).parents[2] / 'shared' / 'data'


def some_of_each_folder() -> list[Path]:
    """Return the first and the last GeoTIFF of each folder, as those in between have the same form."""
    found = sorted(DATA.rglob('*.tif')) if DATA.is_dir() else []
    chosen: list[Path] = []
    for _, group in groupby(found, lambda path: path.parent):
        files = list(group)
        chosen += files[:1] + files[1:][-1:]
    return chosen
