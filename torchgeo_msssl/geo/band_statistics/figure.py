"""Figure of the histograms of bands."""

import math
import os
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from torchgeo_msssl.files import atomic_path
from torchgeo_msssl.geo.band_statistics.histograms import PERCENTILES
from torchgeo_msssl.geo.band_statistics.summary import BandSummary
from torchgeo_msssl.geo.radiometry import Radiometry

_COLUMNS = 4


def draw_histograms(
    path: str | os.PathLike[str],
    summary: BandSummary,
    bands: Sequence[str],
    unit: str,
    radiometries: Sequence[Radiometry],
) -> None:
    """Draw one histogram per band.

    Args:
        path: PNG file; it appears complete or not at all.
        summary: Distribution of the values.
        bands: Canonical names.
        unit: Unit of the values.
        radiometries: Scale and offset of each scene. If they are all equal, a second axis shows digital numbers.

    Raises:
        OutputError: If the file cannot be written.
    """
    columns = min(_COLUMNS, len(bands))
    rows = math.ceil(len(bands) / columns)
    figure = Figure(figsize=(3.6 * columns + 0.4, 2.9 * rows + 0.5), layout='constrained')
    FigureCanvasAgg(figure)
    figure.suptitle(
        f'{summary.moments.count:,} valid pixels of {len(radiometries)} scene(s)\n'
        'line: mean; grey: ± one standard deviation; dotted: 2nd and 98th percentile',
        fontsize=9,
    )
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for k, (panel, band) in enumerate(zip(panels, bands, strict=False)):
        pairs = {(radiometry.scale[k], radiometry.offset[k]) for radiometry in radiometries}
        _draw_band(panel, summary, k, band, unit, next(iter(pairs)) if len(pairs) == 1 else None)
    for panel in panels[len(bands) :]:
        panel.set_axis_off()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=100, format='png')


def _draw_band(
    panel: Axes, summary: BandSummary, k: int, band: str, unit: str, pair: tuple[float, float] | None
) -> None:
    edges, counts = summary.edges[k], summary.histogram[k]
    panel.stairs(counts / summary.moments.count * 100, edges, fill=True, color='tab:blue', alpha=0.6)
    mean, std = summary.moments.mean[k], summary.moments.std[k]
    panel.axvline(mean, color='black', linewidth=1)
    panel.axvspan(mean - std, mean + std, color='black', alpha=0.08, linewidth=0)
    for q in (2, 98):
        panel.axvline(summary.percentiles[PERCENTILES.index(q), k], color='black', linewidth=0.8, linestyle=':')
    outside = 100 * (1 - counts.sum() / summary.moments.count)
    beyond = f', {outside:.2g} % not shown' if outside >= 0.005 else ''
    panel.set_title(f'{band}: {mean:.4g} ± {std:.3g}{beyond}', fontsize=9)
    panel.set_xlim(edges[0], edges[-1])
    panel.set_xlabel(unit, fontsize=8)
    panel.set_ylabel('% of pixels', fontsize=8)
    panel.tick_params(labelsize=7)
    if pair is not None and pair != (1.0, 0.0):
        scale, offset = pair
        top = panel.secondary_xaxis(
            'top',
            functions=(lambda x: np.asarray(x) / scale - offset, lambda dn: (np.asarray(dn) + offset) * scale),
        )
        top.set_xlabel('digital number', fontsize=8)
        top.tick_params(labelsize=7)
