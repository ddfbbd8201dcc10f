"""What the command ``chip`` wrote about its chips."""

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
from torchgeo_msssl.geo.chipping.progress_log import JOURNAL, MANIFEST, SUMMARY
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.ground.parts import PARTS
from torchgeo_msssl.geo.scene import Scene

_COLUMNS = ['scene', 'row', 'col', 'height', 'width', 'split', 'image', 'mask']


@dataclass(frozen=True)
class ChipManifest:
    """The manifest of a folder of chips with its summary.

    Attributes:
        root: The folder.
        summary: What all chips have in common, see :func:`torchgeo_msssl.geo.chipping.manifest.summary`.
        chips: One row a chip: scene, row, col, height, width, split, image, mask.
    """

    root: str
    summary: Mapping[str, Any]
    chips: pd.DataFrame

    @property
    def virtual(self) -> bool:
        """Whether chips are windows of scenes, and no files of their own."""
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
        """Names of the scenes that could not be read, of which there are no chips."""
        return tuple(self.summary['failed'])

    def of_split(self, split: str) -> pd.DataFrame:
        """The rows of a split, or of ``all``."""
        return self.chips if split == ALL else self.chips[self.chips['split'] == split]

    def files(self, split: str) -> list[ChipFile]:
        """Files of the chips of a split.

        Args:
            split: Name, or ``all``.

        Returns:
            The files, in the order of the manifest.
        """
        rows = self.of_split(split)
        masks = [None if pd.isna(mask) else os.path.join(self.root, mask) for mask in rows['mask']]
        return [
            # what a scene's name does not tell, the command wrote into the tags of its chips
            ChipFile(os.path.join(self.root, image), mask, scene, f'{scene}.tif')
            for image, mask, scene in zip(rows['image'], masks, rows['scene'], strict=True)
        ]

    def windows(self, split: str, scenes: Sequence[Scene]) -> list[tuple[int, Window]]:
        """Windows of the chips of a split.

        Args:
            split: Name, or ``all``.
            scenes: The scenes.

        Returns:
            Index of the scene and window on its grid, in the order of the manifest.
        """
        index = {scene.name: i for i, scene in enumerate(scenes)}
        rows = self.of_split(split)
        places = rows[['row', 'col', 'height', 'width']].to_numpy().tolist()
        return [(index[scene], Window(*place)) for scene, place in zip(rows['scene'], places, strict=True)]

    def open_scenes(self) -> tuple[Scene, ...]:
        """Open the scenes that chips are windows of, on the grids of these windows.

        Returns:
            The scenes.

        Raises:
            SceneReadError: If a scene is gone, cannot be read, or has another grid than when the chips were planned.
        """
        names = pd.unique(self.chips['scene'])
        inputs = open_inputs(self._files(names), self._options())
        known = {scene.name: scene for scene in inputs.scenes}
        return tuple(self._checked(name, known.get(name)) for name in names)

    def scene_files(self) -> list[str]:
        """Return the files of the scenes that have chips."""
        return self._files(pd.unique(self.chips['scene']))

    def _files(self, names: Iterable[str]) -> list[str]:
        """Files of scenes; of folders that list none, what lies at the scenes' places."""
        noted = [self.summary['scenes'][name] for name in names]
        return list(dict.fromkeys(file for scene in noted for file in scene.get('files', [scene['source']])))

    def _options(self) -> ChipOptions:
        """The options of `chip`, with paths that hold wherever they are read."""
        given = {name: value for name, value in self.summary['options'].items() if name != 'scenes'}
        noted = self.summary['labels']
        own = {} if noted is None else {'labels': noted['paths'], 'extent': noted['extent']}
        return ChipOptions(**given | own)

    def _checked(self, name: str, scene: Scene | None) -> Scene:
        noted = self.summary['scenes'][name]
        if scene is None:
            raise SceneReadError(f'{noted["source"]}: scene {name} cannot be read any more; run `chip` anew.')
        own, then = (
            f'{height} × {width} pixels placed by {", ".join(f"{value:.12g}" for value in transform)}'
            for height, width, transform in (
                (scene.grid.height, scene.grid.width, [*scene.grid.transform][:6]),
                (noted['height'], noted['width'], noted['transform']),
            )
        )
        if own != then:
            msg = f'{scene.path}: has {own}, and had {then} when {self.root} was written; run `chip` anew.'
            raise SceneReadError(msg)
        return scene

    def open_labels(self, scenes: Sequence[Scene]) -> ChipLabels | None:
        """Open the labels that masks are burned from.

        Args:
            scenes: The scenes.

        Returns:
            The labels, or None where there are none.

        Raises:
            MSSSLError: If they cannot be read any more.
        """
        return None if self.summary['labels'] is None else open_chip_labels(self._options(), scenes)


def read_manifest(root: str) -> ChipManifest | None:
    """Read what ``chip`` wrote.

    Args:
        root: Folder.

    Returns:
        The manifest, or None where somebody else filled the folder.

    Raises:
        ConfigurationError: If a run was not finished, or is of another version of this package; or pyarrow is missing.
    """
    summary, manifest = os.path.join(root, SUMMARY), os.path.join(root, MANIFEST)
    if not os.path.exists(summary) or not os.path.exists(manifest):
        if os.path.exists(os.path.join(root, JOURNAL)):
            msg = f'paths: {root} was not finished by `chip`; run the same command again, it goes on where it stopped.'
            raise ConfigurationError(msg)
        return None
    with open(summary, encoding='utf-8') as file:
        content = json.load(file)
    if content.get('format') != FORMAT:
        msg = (
            f'paths: {root} was written in format {content.get("format")}, and this version reads {FORMAT}; run `chip` '
            'anew with --overwrite.'
        )
        raise ConfigurationError(msg)
    return ChipManifest(root, content, pd.read_parquet(manifest, columns=_COLUMNS))
