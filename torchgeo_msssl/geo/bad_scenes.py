"""Scenes that cannot be read, among others that can."""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from torchgeo_msssl.errors import SceneReadError

log = logging.getLogger(__name__)

OnBadScene = Literal['raise', 'skip']


@dataclass(frozen=True, kw_only=True)
class BadSceneSettings:
    """Scenes that cannot be read.

    Attributes:
        on_bad_scene: Whether a scene that cannot be read is an error (raise), or is left out with a warning that names
            the file and, if known, the window (skip). With skip the command prints how many were left out, and its exit
            status is 0.
    """

    on_bad_scene: OnBadScene = 'raise'


class BadScenes:
    """Record of the scenes that cannot be read, one for a whole command.

    Args:
        on_bad_scene: Whether to raise the error of a scene, or to log it and leave the scene out.
    """

    def __init__(self, on_bad_scene: OnBadScene = 'raise') -> None:
        """Record no scene yet."""
        self.skip = on_bad_scene == 'skip'
        self.errors: list[SceneReadError] = []

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        """Leave the block at a scene that cannot be read, if such scenes are skipped.

        Raises:
            SceneReadError: If they are not.
        """
        try:
            yield
        except SceneReadError as error:
            if not self.skip:
                raise
            self.add(error)

    def add(self, error: SceneReadError) -> None:
        """Record a scene, with a warning.

        Args:
            error: Reason why it cannot be read.
        """
        log.warning('Skipped: %s', error)
        self.errors.append(error)

    def summary(self, total: int) -> str:
        """Say how many scenes were left out.

        Args:
            total: Number of all scenes.

        Returns:
            A sentence, or an empty text if none was.
        """
        return skipped_sentence(len(self.errors), total) if self.errors else ''


def skipped_sentence(skipped: int, total: int) -> str:
    """Return the last line of a command that left scenes out."""
    return f'Skipped {skipped} of {total} scene(s) that cannot be read (on_bad_scene: skip).'
