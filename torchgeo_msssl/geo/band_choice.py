"""Choice of bands by name, the same for datasets and commands."""

import logging
from collections.abc import Sequence

from torchgeo_msssl.bands import canonical_band_name, is_auxiliary
from torchgeo_msssl.errors import BandError
from torchgeo_msssl.geo.foreign_files import check_no_labels
from torchgeo_msssl.geo.scene import Scene, missing_bands_error

log = logging.getLogger(__name__)


def choose_bands(scenes: Sequence[Scene], wanted: Sequence[str] | None) -> tuple[str, ...]:
    """Return the canonical names of bands that all scenes have.

    Args:
        scenes: Scenes.
        wanted: Names in any spelling; None or nothing for all bands of the first scene.

    Returns:
        The names in the order wanted.

    Raises:
        BandError: If a band is named twice, or a scene lacks one; a mask of labels among the scenes is named.
    """
    chosen = tuple(map(canonical_band_name, wanted)) if wanted else scenes[0].bands
    if len(set(chosen)) < len(chosen):
        raise BandError(f'bands: expected different bands, got {", ".join(wanted or chosen)}; name each once.')
    # a mask that comes first would make its single band that of all
    mixed = not wanted and len({len(scene.bands) for scene in scenes}) > 1
    if mixed or not all(set(chosen) <= set(scene.bands) for scene in scenes):
        check_no_labels(scenes)
    for scene in scenes:
        missing = [band for band in chosen if band not in scene.bands]
        if missing and wanted:
            raise missing_bands_error(scene, missing)
        if missing:
            common = [band for band in chosen if all(band in other.bands for other in scenes)]
            remedy = f'choose common bands with `bands: [{", ".join(common)}]`' if common else 'read them separately'
            raise BandError(
                f'bands: {scenes[0].path} has {", ".join(chosen)}, and {scene.path} has {", ".join(scene.bands)}; '
                f'{remedy}.'
            )
    return chosen


def spectral_bands(bands: Sequence[str], path: str) -> tuple[str, ...]:
    """Drop layers that are no spectral bands, and log which.

    Args:
        bands: Canonical names.
        path: File or folder, for the message.

    Returns:
        The others, in their order.

    Raises:
        BandError: If there are no others.
    """
    layers = [band for band in bands if is_auxiliary(band)]
    spectral = tuple(band for band in bands if band not in layers)
    if not spectral:
        raise BandError(f'bands: {path} has only {", ".join(layers)}, none of which is a spectral band.')
    if layers:
        log.info('Left out %s: not spectral bands (name them in `bands` to keep them).', ', '.join(layers))
    return spectral
