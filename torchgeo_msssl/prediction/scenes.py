"""The scenes that a prediction is for."""

from collections.abc import Sequence

from torchgeo_msssl.bands import Sensor, get_sensor
from torchgeo_msssl.geo.headers import find_scenes
from torchgeo_msssl.geo.scene import Scene, missing_bands_error


def open_scenes(
    paths: str | Sequence[str], sensor: str | None, trained_on: str | None
) -> tuple[list[Scene], Sensor | None]:
    """Open the scenes of a prediction.

    Args:
        paths: Files, folders or patterns.
        sensor: Sensor of the scenes, where their files do not tell; None for that of the training.
        trained_on: Sensor of the training, or None.

    Returns:
        The scenes, and their sensor where it is known.

    Raises:
        MSSSLError: If there is no scene, or one cannot be opened.
    """
    name = sensor or trained_on
    known = get_sensor(name) if name else None
    return find_scenes(paths, known), known


def namesakes(scenes: Sequence[Scene]) -> tuple[Scene, Scene] | None:
    """Find two scenes whose files would have the same names.

    Args:
        scenes: Scenes.

    Returns:
        The first two, or None.
    """
    seen: dict[str, Scene] = {}
    for scene in scenes:
        if scene.name in seen:
            return seen[scene.name], scene
        seen[scene.name] = scene
    return None


def check_bands(scene: Scene, bands: Sequence[str]) -> None:
    """See that a scene has the bands of a network.

    Args:
        scene: The scene.
        bands: Canonical names.

    Raises:
        BandError: If it lacks one.
    """
    if missing := [band for band in bands if band not in scene.bands]:
        raise missing_bands_error(scene, missing)
