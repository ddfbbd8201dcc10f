"""Chips in folders without a manifest, found by the names of files."""

import os
import re
from pathlib import Path

from torchgeo_msssl.datasets.chip_files import SUFFIXES, ChipFile
from torchgeo_msssl.errors import ConfigurationError, ScenesNotFoundError
from torchgeo_msssl.geo.chipping.options import ALL
from torchgeo_msssl.geo.chipping.progress_log import JOURNAL, MANIFEST, shard_journals
from torchgeo_msssl.geo.discover import ARRAY_SUFFIX, is_image
from torchgeo_msssl.geo.ground.parts import PARTS

IMAGES, MASKS = 'images', 'masks'

#: Suffix ``_<row>_<col>`` of the name of a chip after that of its scene. The digits could be read as a date
#: (``field_2048_1024``), and the scene be taken for one with an offset.
_PLACE = re.compile(r'_-?\d+_-?\d+$')


def folder_splits(root: str) -> tuple[str, ...]:
    """Return the splits of a folder of chips.

    Args:
        root: Folder.

    Returns:
        Those of ``train``, ``val`` and ``test`` that are folders in it, else ``all``.
    """
    return tuple(part for part in PARTS if os.path.isdir(os.path.join(root, part))) or (ALL,)


def is_chip_folder(path: str) -> bool:
    """Recognize a folder of chips by its content, without opening a file.

    Args:
        path: File, folder or pattern.

    Returns:
        Whether it is a folder that the ``chip`` command wrote or began, or has ``images`` (in ``train``, ``val`` or
        ``test`` or by itself), or ``.npy`` files. A flat folder of GeoTIFFs counts as scenes.
    """
    path = os.path.expanduser(path)
    if not os.path.isdir(path):
        return False
    if any(os.path.exists(os.path.join(path, name)) for name in (MANIFEST, JOURNAL)) or shard_journals(path):
        return True
    folders = [path, *(os.path.join(path, part) for part in PARTS)]
    if any(os.path.isdir(os.path.join(folder, IMAGES)) for folder in folders):
        return True
    return any(
        entry.name.lower().endswith(ARRAY_SUFFIX)
        for folder in folders
        if os.path.isdir(folder)
        for entry in os.scandir(folder)
    )


def list_chips(root: str, split: str, masks: bool) -> list[ChipFile]:
    """List the chips of a split without opening a file.

    Args:
        root: Folder with ``split/images`` and ``split/masks``, with ``images`` and ``masks``, or with chips in it.
        split: One of :func:`folder_splits`, or ``all``.
        masks: Whether to list masks.

    Returns:
        Chips in the order of their names, split by split.

    Raises:
        ScenesNotFoundError: If there are no chips.
        ConfigurationError: If some images have masks and others not, or GeoTIFFs and arrays are mixed.
    """
    parts = folder_splits(root) if split == ALL else (split,)
    folders = [root if part == ALL else os.path.join(root, part) for part in parts]
    chips = [chip for folder in folders for chip in _chips_in(folder, masks)]
    if not chips:
        msg = (
            f'paths: no chips ({", ".join(SUFFIXES)}) in {folders[0]} or its folder {IMAGES}; give a folder '
            'of the chip command, or one with images and masks.'
        )
        raise ScenesNotFoundError(msg)
    labelled = {chip.mask is not None: chip.image for chip in chips}
    if len(labelled) > 1:
        msg = (
            f'paths: {labelled[True]} has a mask and {labelled[False]} has none; add the masks, choose a split that '
            'has them, or read none (masks false).'
        )
        raise ConfigurationError(msg)
    kinds = {chip.image.lower().endswith(ARRAY_SUFFIX): chip.image for chip in chips}
    if len(kinds) > 1:
        msg = f'paths: {kinds[True]} is an array and {kinds[False]} a raster; keep the kinds apart.'
        raise ConfigurationError(msg)
    return chips


def _chips_in(folder: str, with_masks: bool) -> list[ChipFile]:
    inner = os.path.join(folder, IMAGES)
    images = _files_in(inner if os.path.isdir(inner) else folder)
    outer = os.path.join(folder, MASKS)
    masks = _files_in(outer) if with_masks and os.path.isdir(inner) and os.path.isdir(outer) else None
    if masks is not None:
        missing = sorted(images.keys() - masks.keys())
        if missing:
            msg = (
                f'paths: {len(missing)} of {len(images)} images in {inner} have no mask of their name in {outer} (the '
                f'first is {images[missing[0]]}); add the masks, or move {MASKS} away.'
            )
            raise ConfigurationError(msg)
    return [ChipFile(path, masks[stem] if masks else None, *_scene_of(folder, stem)) for stem, path in images.items()]


def _scene_of(folder: str, stem: str) -> tuple[str, str]:
    scene = _PLACE.sub('', stem) or stem
    return scene, os.path.join(folder, f'{scene}.tif')


def _files_in(folder: str) -> dict[str, str]:
    """Return the paths of the chips in a folder by stem, in the order of their names."""
    if not os.path.isdir(folder):
        return {}
    names = sorted(name for name in os.listdir(folder) if name.lower().endswith(SUFFIXES) and not name.startswith('.'))
    # next to rasters and arrays, images are previews
    names = [name for name in names if not is_image(name)] or names
    found: dict[str, str] = {}
    for name in names:
        stem = Path(name).stem
        if stem in found:
            msg = f'paths: {found[stem]} and {name} in one folder have one name; remove or rename one.'
            raise ConfigurationError(msg)
        found[stem] = os.path.join(folder, name)
    return found
