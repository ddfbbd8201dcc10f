"""Manifest of the ``chip`` command."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from torchgeo_msssl.datasets.chip_files import ChipFile
from torchgeo_msssl.errors import ConfigurationError, SceneReadError
from torchgeo_msssl.geo.chipping.inputs import open_inputs
from torchgeo_msssl.geo.chipping.labels import ChipLabels, open_chip_labels
from torchgeo_msssl.geo.chipping.manifest import FORMAT
from torchgeo_msssl.geo.chipping.options import ALL, ChipOptions
from torchgeo_msssl.geo.chipping.progress_log import JOURNAL, MANIFEST, SUMMARY, shard_journals
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.ground.parts import PARTS
from torchgeo_msssl.geo.scene import Scene

_COLUMNS = ['scene', 'row', 'col', 'height', 'width', 'split', 'image', 'mask']


@dataclass(frozen=True)
class ChipManifest:
    """Manifest and summary of a folder of chips.

    Attributes:
        root: The folder.
        summary: Properties common to all chips, see :func:`torchgeo_msssl.geo.chipping.manifest.summary`.
        chips: One row per chip: scene, row, col, height, width, split, image, mask.
    """

    root: str
    summary: Mapping[str, Any]
    chips: pd.DataFrame

    @property
    def virtual(self) -> bool:
        """Whether chips are windows of scenes instead of files."""
        return bool(self.summary['virtual'])

    @property
    def splits(self) -> tuple[str, ...]:
        """Parts that have chips."""
        known = set(self.chips['split'])
        return tuple(part for part in (*PARTS, ALL) if part in known)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; empty without labels."""
        return tuple((self.summary['labels'] or {}).get('class_names', ()))

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the scenes that could not be read and have no chips."""
        return tuple(self.summary['failed'])

    def of_split(self, split: str) -> pd.DataFrame:
        """Return the rows of a split, or of ``all``."""
        return self.chips if split == ALL else self.chips[self.chips['split'] == split]

    def files(self, split: str) -> list[ChipFile]:
        """Return the files of the chips of a split.

        Args:
            split: Name, or ``all``.

        Returns:
            The files, in the order of the manifest.
        """
        rows = self.of_split(split)
        masks = [None if pd.isna(mask) else os.path.join(self.root, mask) for mask in rows['mask']]
        return [
            # the tags of chips hold what the name of the scene does not say
            ChipFile(os.path.join(self.root, image), mask, scene, f'{scene}.tif')
            for image, mask, scene in zip(rows['image'], masks, rows['scene'], strict=True)
        ]

    def windows(self, split: str, scenes: Sequence[Scene]) -> list[tuple[int, Window]]:
        """Return the windows of the chips of a split.

        Args:
            split: Name, or ``all``.
            scenes: The scenes.

        Returns:
            Index of the scene and window on its grid for each chip, in the order of the manifest.
        """
        index = {scene.name: i for i, scene in enumerate(scenes)}
        rows = self.of_split(split)
        places = rows[['row', 'col', 'height', 'width']].to_numpy().tolist()
        return [(index[scene], Window(*place)) for scene, place in zip(rows['scene'], places, strict=True)]

    def open_scenes(self) -> tuple[Scene, ...]:
        """Open the scenes that chips are windows of, on the grids of the windows.

        Returns:
            The scenes.

        Raises:
            SceneReadError: If a scene is missing, cannot be read, or has another grid than in the manifest.
        """
        names = pd.unique(self.chips['scene'])
        inputs = open_inputs(self._files(names), self._options())
        known = {scene.name: scene for scene in inputs.scenes}
        return tuple(self._checked(name, known.get(name)) for name in names)

    def scene_files(self) -> list[str]:
        """Return the files of the scenes that have chips."""
        return self._files(pd.unique(self.chips['scene']))

    def _files(self, names: Iterable[str]) -> list[str]:
        """Return the files of scenes, or their paths in manifests without a list of files."""
        listed = [self.summary['scenes'][name] for name in names]
        return list(dict.fromkeys(file for scene in listed for file in scene.get('files', [scene['source']])))

    def _options(self) -> ChipOptions:
        """Return the options of `chip`, with absolute paths of the labels."""
        given = {name: value for name, value in self.summary['options'].items() if name != 'scenes'}
        labels = self.summary['labels']
        own = {} if labels is None else {'labels': labels['paths'], 'extent': labels['extent']}
        return ChipOptions(**given | own)

    def _checked(self, name: str, scene: Scene | None) -> Scene:
        known = self.summary['scenes'][name]
        if scene is None:
            raise SceneReadError(f'{known["source"]}: scene {name} cannot be read any more; run `chip` again.')
        own, then = (
            f'{height} × {width} pixels placed by {", ".join(f"{value:.12g}" for value in transform)}'
            for height, width, transform in (
                (scene.grid.height, scene.grid.width, [*scene.grid.transform][:6]),
                (known['height'], known['width'], known['transform']),
            )
        )
        if own != then:
            msg = f'{scene.path}: has {own}, and had {then} when {self.root} was written; run `chip` again.'
            raise SceneReadError(msg)
        return scene

    def open_labels(self, scenes: Sequence[Scene]) -> ChipLabels | None:
        """Open the labels of the masks.

        Args:
            scenes: The scenes.

        Returns:
            The labels, or None if there are none.

        Raises:
            MSSSLError: If they cannot be read.
        """
        return None if self.summary['labels'] is None else open_chip_labels(self._options(), scenes)


def read_manifest(root: str) -> ChipManifest | None:
    """Read the manifest of a folder.

    Args:
        root: Folder.

    Returns:
        The manifest, or None for a folder of another program.

    Raises:
        ConfigurationError: If a run is unfinished, or the manifest has another format.
    """
    summary, manifest = os.path.join(root, SUMMARY), os.path.join(root, MANIFEST)
    if shard_journals(root):
        msg = (
            f'paths: {root} holds shards of `chip` without a manifest; run the same command without --shard, which '
            'writes it.'
        )
        raise ConfigurationError(msg)
    if not os.path.exists(summary) or not os.path.exists(manifest):
        if os.path.exists(os.path.join(root, JOURNAL)):
            msg = f'paths: {root} is from an unfinished run of `chip`; run the same command again to resume it.'
            raise ConfigurationError(msg)
        return None
    with open(summary, encoding='utf-8') as file:
        content = json.load(file)
    if content.get('format') != FORMAT:
        msg = (
            f'paths: {root} was written in format {content.get("format")}, and this version reads {FORMAT}; run `chip` '
            'again with --overwrite.'
        )
        raise ConfigurationError(msg)
    return ChipManifest(root, content, pd.read_parquet(manifest, columns=_COLUMNS))
