"""The report of a study, a single HTML page."""

import json
import math
import os
import platform
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from torchgeo_msssl import __version__
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.evaluation.compare import is_study, read_plan, study_metrics
from torchgeo_msssl.evaluation.page_figures import PageFigure, embed_figure
from torchgeo_msssl.evaluation.study.conditions import (
    CONDITION,
    baseline_metric,
    condition_label,
    main_axis,
    read_results,
    read_table,
    seed_means,
    values_of,
    varying_axes,
)
from torchgeo_msssl.evaluation.study.curves import axis_value, draw_curves
from torchgeo_msssl.evaluation.study.paired import paired_differences
from torchgeo_msssl.evaluation.study.provenance import read_provenance
from torchgeo_msssl.evaluation.study.summary import FRACTION_NOTE, shared_note
from torchgeo_msssl.files import atomic_path

REPORT = 'report.html'

#: Maximum number of cells whose pictures are shown.
_SHOWN = 12
_LIBRARIES = ('torchgeo', 'torch', 'lightning', 'timm', 'segmentation-models-pytorch', 'kornia', 'rasterio', 'numpy')
_PICTURES = {
    'sample_predictions.png': ('test', 'chips of the test ground with their labels and predictions'),
    'split.png': ('fit', 'training, validation and test ground'),
}
_DESIGN = {
    'Initialisations': 'initialisation',
    'Label fractions': 'fraction',
    'Labelled blocks': 'shots',
    'Scenes with labels': 'scenes',
    'Variants': 'variant',
    'Optimizer steps': 'steps',
    'Held-out ground': 'region',
    'Seeds': 'seed',
}


@dataclass(frozen=True)
class PageCell:
    """Cell of a table.

    Attributes:
        text: Its text.
        style: Classes of the style sheet, such as ``number``.
    """

    text: str
    style: str = ''


@dataclass(frozen=True)
class PageTable:
    """Table of the page.

    Attributes:
        caption: Description of the table.
        head: Names of the columns.
        rows: Cells; the first one of each row is its heading.
    """

    caption: str
    head: Sequence[PageCell]
    rows: Sequence[Sequence[PageCell]]


def write_report(folder: Path) -> Path:
    """Write ``report.html`` from the results in the folder of a study.

    The page is self-contained: it loads nothing and runs no script.

    Raises:
        ConfigurationError: If it is not the folder of a study, or no cell has ended.
        OutputError: If the page cannot be written.
    """
    folder = Path(folder)
    if not is_study(folder):
        raise ConfigurationError(f'{folder}: expected the folder of a study, with its results.csv; there is none.')
    table = read_results(folder)
    if table.empty:
        raise ConfigurationError(f'{folder}: no cell of the study has ended yet; run it first.')
    plan = read_plan(folder)
    metrics = study_metrics(folder, table)
    known = list(table['initialisation'].unique())
    reference = plan.get('reference') or 'random'
    reference = reference if reference in known else known[0]
    design = {title: _distinct(table, column) for title, column in _DESIGN.items()}
    environment = Environment(
        loader=PackageLoader('torchgeo_msssl.evaluation'),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    content = environment.get_template('report.html.jinja').render(
        name=str(plan.get('name') or table['study'].iloc[0] or folder.name),
        progress=_progress(table, plan.get('cells')),
        design=design | {'Metrics': ', '.join(metrics), 'Reference': reference},
        tested=table['region'].ne('').any(),
        fraction_note=FRACTION_NOTE if table[['fraction', 'shots']].ne('').any(axis=None) else '',
        results=[_result(table, metric, reference) for metric in metrics],
        shared_note=shared_note(plan.get('shared_pretrainings', [])),
        pretrainings=_pretrainings(folder),
        figures=list(_figures(folder, table)),
        commands=_commands(table),
        failures=_failures(folder),
        environment=_environment(),
    )
    with atomic_path(folder / REPORT) as temporary:
        temporary.write_text(content, encoding='utf-8')
    return folder / REPORT


def _progress(table: pd.DataFrame, planned: Sequence[str] | None) -> str:
    cells = table.drop_duplicates('cell')
    mean = cells['seconds'].map(lambda text: float(text or 'nan')).mean() if 'seconds' in cells else math.nan
    count = f'{len(cells)} of {len(planned)}' if planned else f'{len(cells)}'
    took = '' if math.isnan(mean) else f', {mean:.0f} s each on average, without pretraining'
    return f'{count} cells ended{took}.'


def _distinct(table: pd.DataFrame, column: str) -> str:
    return ', '.join(axis_value(column, text) for text in table[column].unique() if text)


# ------------------------------------------------------------------------------------------------------ numbers


def _result(table: pd.DataFrame, metric: str, reference: str) -> dict[str, Any]:
    """Curves and tables of a metric."""
    differences = paired_differences(table, metric, reference)
    return {
        'metric': metric,
        'curves': _curves(table, metric),
        'means': _means(table, metric),
        'verdict': verdict(differences) if len(differences) else '',
        'paired': _paired(differences) if len(differences) else None,
    }


def _curves(table: pd.DataFrame, metric: str) -> PageFigure:
    names = ', '.join(values_of(table, metric)['initialisation'].unique())
    with tempfile.TemporaryDirectory() as folder:
        draw_curves(Path(folder, 'curves.png'), table, [metric])
        alt = f'Curves of {metric} for {names}; the table below has the numbers.'
        return embed_figure(Path(folder, 'curves.png'), alt, 'Mean over seeds; bands are 95 % intervals of the mean.')


def _means(table: pd.DataFrame, metric: str) -> PageTable:
    """Means by initialisation (and the other axes that vary) in rows and by the main axis in columns."""
    values = values_of(table, metric)
    axis = main_axis(values)
    others = [name for name in varying_axes(values) if name != axis]
    labels = [condition_label(row, others) for row in values.to_dict('records')]
    threshold = values_of(table, baseline_metric(metric)).assign(label='threshold on an index')
    threshold = threshold.drop_duplicates(['label', *([axis] if axis else []), 'seed', 'region'], keep='last')
    values = pd.concat([values.assign(label=labels), threshold])
    values['column'] = values[axis] if axis else ''
    columns = list(values['column'].unique())
    rows = []
    for label, line in values.groupby('label', sort=False):
        cells = {name: mean_and_spread(seed_means(group)) for name, group in line.groupby('column')}
        rows.append([PageCell(str(label)), *(PageCell(cells.get(name, '–'), 'number') for name in columns)])
    head = [PageCell('initialisation'), *(PageCell(_heading(axis, name), 'number') for name in columns)]
    return PageTable(f'{metric}: mean ± standard deviation over seeds (number of seeds)', head, rows)


def _heading(axis: str | None, value: str) -> str:
    if axis is None:
        return 'value'
    return f'{axis_value(axis, value)} of the training labels' if axis == 'fraction' else f'{axis} {value}'


def mean_and_spread(values: Sequence[float]) -> str:
    """Format the mean of some seeds with their standard deviation.

    Returns:
        ``0.830 ± 0.021 (5)``; a single seed has no standard deviation.
    """
    spread = f' ± {np.std(values, ddof=1):.3f}' if len(values) > 1 else ''
    return f'{np.mean(values):.3f}{spread} ({len(values)})'


def verdict(differences: pd.DataFrame) -> str:
    """Summarize paired differences in a sentence or two.

    Returns:
        Which conditions are higher, which lower, and which cannot be told apart.
    """
    axes, reference = varying_axes(differences), differences['reference'].iloc[0]
    groups: dict[str, list[str]] = {'higher': [], 'lower': [], '': []}
    for row in differences.to_dict('records'):
        groups[sign_of(row['low'], row['high'])].append(condition_label(row, axes))
    known = [(how, '; '.join(groups[how])) for how in ('higher', 'lower') if groups[how]]
    sentences = [f'{how.capitalize()} than {reference}: {names}.' for how, names in known]
    if groups['']:
        sentences.append(f'Not told apart from {reference} by these seeds: {"; ".join(groups[""])}.')
    return ' '.join(sentences)


def sign_of(low: float, high: float) -> str:
    """Tell whether an interval lies above 0 (``higher``), below 0 (``lower``), or neither (empty)."""
    return 'higher' if low > 0 else 'lower' if high < 0 else ''


def _paired(differences: pd.DataFrame) -> PageTable:
    axes = varying_axes(differences)
    numbers = (PageCell(name, 'number') for name in ('difference', '95 % interval', 'wins / ties / losses'))
    rows = []
    for row in differences.to_dict('records'):
        interval = '–' if math.isnan(row['low']) else f'{row["low"]:+.3f} to {row["high"]:+.3f}'
        sign = sign_of(row['low'], row['high'])
        cells = [PageCell(row['initialisation']), *(PageCell(axis_value(name, row[name])) for name in axes)]
        cells += [PageCell(f'{row["difference"]:+.3f}', f'number {sign}'.strip()), PageCell(interval, 'number')]
        rows.append([*cells, PageCell(f'{row["wins"]} / {row["ties"]} / {row["losses"]}', 'number')])
    caption = (
        f'Difference to {differences["reference"].iloc[0]}, paired by seed and held-out region: mean over seeds with '
        'Student’s interval; wins, ties and losses of all pairs'
    )
    return PageTable(caption, [PageCell('initialisation'), *map(PageCell, axes), *numbers], rows)


# ------------------------------------------------------------------------------------------------------- folders


def _pretrainings(folder: Path) -> PageTable:
    rows = []
    for path in sorted(folder.glob('pretraining/*/result.json')):
        result, known = _read_json(path), read_provenance(path.parent)
        seconds = result.get('seconds')
        took = PageCell(f'{seconds:.0f}' if isinstance(seconds, int | float) else '–', 'number')
        texts = (known.sentence if known else 'unknown', str(result.get('error') or 'ended'))
        rows.append([PageCell(path.parent.name), took, *map(PageCell, texts)])
    head = [PageCell('pretraining'), PageCell('seconds', 'number'), PageCell('use of the test ground'), PageCell('end')]
    return PageTable('Runs whose weights the cells start from', head, rows)


def _figures(folder: Path, table: pd.DataFrame) -> Iterator[PageFigure]:
    """Pictures of the first cell of each condition; a picture that several cells share is shown once."""
    seen: set[bytes] = set()
    for row in table.drop_duplicates(list(CONDITION)).head(_SHOWN).to_dict('records'):
        for name, (part, what) in _PICTURES.items():
            path = _picture_path(folder, row['run'], part, name)
            if path is not None and (content := path.read_bytes()) not in seen:
                seen.add(content)
                yield embed_figure(path, f'{row["cell"]}: {what}', f'{row["cell"]}: {what}')


def _picture_path(folder: Path, run: str, part: str, name: str) -> Path | None:
    """Path of a picture of a cell; None outside the study's folder, whatever the table says."""
    found = next((path for path in (folder / run / part / name, folder / run / name) if path.is_file()), None)
    return found if found is not None and found.resolve().is_relative_to(folder.resolve()) else None


def _commands(table: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Commands of the cells by initialisation and cell, one line for each part."""
    if 'command' not in table:
        return {}
    known = table[table['command'].ne('')].drop_duplicates('cell')
    return {
        str(name): dict(zip(rows['cell'], rows['command'].str.replace(' && ', ' && \\\n', regex=False), strict=True))
        for name, rows in known.groupby('initialisation', sort=False)
    }


def _failures(folder: Path) -> PageTable:
    path = folder / 'failures.csv'
    rows = read_table(path).to_dict('records') if path.is_file() else []
    cells = [[PageCell(row['cell']), PageCell(row['error'])] for row in rows]
    return PageTable('Cells without results', [PageCell('cell'), PageCell('reason')], cells)


def _environment() -> dict[str, str]:
    known = {'torchgeo_msssl': __version__, 'Python': platform.python_version()}
    for name in _LIBRARIES:
        try:
            known[name] = version(name)
        except PackageNotFoundError:  # a library under another name, as in a conda environment
            continue
    return known | {'System': f'{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores'}


def _read_json(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError):  # not there yet, or incomplete
        return {}
    return found if isinstance(found, dict) else {}
