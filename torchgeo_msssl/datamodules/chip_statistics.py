"""Band statistics of chips, from their manifest or in a stream."""

from collections.abc import Callable

import numpy as np

from torchgeo_msssl.datasets.chips import Chips
from torchgeo_msssl.errors import ValidDataError
from torchgeo_msssl.geo.band_statistics.moments import ENOUGH_VALUES, BandStatistics, block_statistics
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.radiometry import Radiometry


def manifest_statistics(chips: Chips) -> tuple[BandStatistics, list[Radiometry]] | None:
    """Return statistics of training chips from the manifest of ``chip``, converted from digital numbers to reflectance.

    Args:
        chips: Chips.

    Returns:
        Moments in reflectance, and the radiometry of the scenes. None without a manifest, if it was measured on other
        chips, or if scenes differ in scale or offset.
    """
    manifest = chips.manifest
    if manifest is None or not manifest.summary['statistics'] or chips.split != next(iter(manifest.summary['splits'])):
        return None
    known = manifest.summary['statistics']
    if not all(band in known for band in chips.bands):
        return None
    _, firsts = np.unique(manifest.of_split(chips.split)['scene'].to_numpy(dtype=str), return_index=True)
    radiometries = [chips.source.radiometry(int(first)) for first in firsts]
    if len({(how.scale, how.offset) for how in radiometries}) > 1:
        return None
    count, mean, std = (np.array([known[band][key] for band in chips.bands]) for key in ('count', 'mean', 'std'))
    return BandStatistics(int(count[0]), mean, std**2 * count).to_reflectance(radiometries[0]), radiometries


def chip_statistics(
    chips: Chips,
    pixels: int = ENOUGH_VALUES,
    seed: int = 0,
    on_progress: Callable[[float], None] | None = None,
) -> tuple[BandStatistics, list[Radiometry]]:
    """Measure reflectance statistics of chips.

    Every chip is read if all of them have at most ``pixels`` values, else a random sample, which is extended only while
    it has no valid data.

    Args:
        chips: Chips.
        pixels: Approximate maximum of values (pixels × bands) to read.
        seed: Seed of the sample.
        on_progress: Called with the fraction done after each chip.

    Returns:
        Moments in reflectance, and the radiometry of each chip that was read.

    Raises:
        ValidDataError: If no pixel is valid in all bands.
        SceneReadError: If a chip is damaged.
    """
    height, width = chips.size
    keep = min(len(chips), max(1, pixels // (height * width * len(chips.bands))))
    order = np.random.default_rng(seed).permutation(len(chips)).tolist()
    order[:keep] = sorted(order[:keep])  # windows of scenes are adjacent in their files
    count = len(chips.bands)
    merged, seen = BandStatistics(0, np.zeros(count), np.zeros(count)), list[Radiometry]()
    for done, chip in enumerate(order, start=1):
        if done > keep and merged.count > 0:
            break
        sample = chips.source.sample(chip, Window(0, 0, height, width))
        seen.append(chips.source.radiometry(chip))
        moments = block_statistics(sample['image'].numpy(), sample['valid'][0].numpy())
        merged = merged.merge(moments.to_reflectance(seen[-1]))
        if on_progress:
            on_progress(min(1.0, done / keep))
    if merged.count == 0:
        msg = (
            f'bands: no pixel of the {len(chips)} chips in {chips.root} has data in all of {", ".join(chips.bands)}; '
            'leave out with `bands` what is empty, or correct the nodata value.'
        )
        raise ValidDataError(msg)
    return merged, seen
