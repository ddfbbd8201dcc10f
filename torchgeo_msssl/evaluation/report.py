"""A study as one page that can be sent to somebody."""

import json
import math
import os
import platform
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from torchgeo_msssl import __version__
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.evaluation.compare import is_study, read_csv, read_plan, study_metrics
from torchgeo_msssl.evaluation.html import Cell, definitions, figure, page, table
from torchgeo_msssl.evaluation.study.conditions import (
    AXES,
    Condition,
    Values,
    baseline_metric,
    by_seed,
    conditions,
    main_axis,
    varying_axes,
)
from torchgeo_msssl.evaluation.study.curves import draw_curves
from torchgeo_msssl.evaluation.study.paired import Difference, paired_differences
from torchgeo_msssl.evaluation.study.provenance import read_provenance
from torchgeo_msssl.evaluation.study.summary import FRACTION_NOTE, shared_note
from torchgeo_msssl.files import atomic_path

REPORT = 'report.html'

#: Cells whose pictures are shown.
_SHOWN = 12
_LIBRARIES = ('torchgeo', 'torch', 'lightning', 'timm', 'segmentation-models-pytorch', 'kornia', 'rasterio', 'numpy')
_PICTURES = {
    'sample_predictions.png': ('test', 'chips of the test ground with their labels and predictions'),
    'split.png': ('fit', 'where the training, validation and test ground lies'),
}

Row = dict[str, str]


def write_report(folder: Path) -> Path:
    """Write ``report.html`` from what the folder of a study holds so far.

    The page has everything in it: it loads nothing from elsewhere and runs no script.

    Args:
        folder: Folder of a study, finished or not.

    Returns:
        The page.

    Raises:
        ConfigurationError: If it is no folder of a study, or no cell has ended.
        OutputError: If the page cannot be written.
    """
    folder = Path(folder)
    if not is_study(folder):
        raise ConfigurationError(f'{folder}: expected the folder of a study, with its results.csv; there is none.')
    rows = [dict.fromkeys(AXES, '') | row for row in read_csv(folder / 'results.csv')]
    if not rows:
        raise ConfigurationError(f'{folder}: no cell of the study has ended yet; run it first.')
    plan = read_plan(folder)
    name = str(plan.get('name') or rows[0].get('study') or folder.name)
    metrics = study_metrics(folder, rows)
    reference = _reference(rows, plan.get('reference'))
    parts = [
        f'<header><h1>{escape(name)}</h1>',
        f'<p class="soft">{escape(_progress(rows, plan.get("cells")))}</p>',
        '</header><main>',
        *_overview(rows, metrics, reference),
        *_results(rows, metrics, reference, shared_note(plan.get('shared_pretrainings', []))),
        *_pretrainings(folder),
        *_pictures(folder, rows),
        *_commands(rows),
        *_failures(folder),
        *_environment(),
        '</main>',
    ]
    with atomic_path(folder / REPORT) as temporary:
        temporary.write_text(page(name, parts), encoding='utf-8')
    return folder / REPORT


def _reference(rows: Sequence[Row], wanted: str | None) -> str:
    """The initialisation to compare with; where it was not studied, the first one."""
    known = list(dict.fromkeys(row['initialisation'] for row in rows))
    wanted = wanted or 'random'
    return wanted if wanted in known else known[0]


def _progress(rows: Sequence[Row], planned: Sequence[str] | None) -> str:
    seconds = {row['cell']: float(row.get('seconds') or 'nan') for row in rows}
    mean = sum(seconds.values()) / len(seconds)
    of = f'{len(seconds)} of {len(planned)}' if planned else f'{len(seconds)}'
    took = '' if math.isnan(mean) else f', {mean:.0f} s each on average, without pretraining'
    return f'{of} cells ended{took}.'


# ------------------------------------------------------------------------------------------------------ numbers


def _overview(rows: Sequence[Row], metrics: Sequence[str], reference: str) -> Iterator[str]:
    yield '<section><h2>What was studied</h2>'
    columns = {
        'Initialisations': 'initialisation', 'Label fractions': 'fraction', 'Labelled blocks': 'shots',
        'Scenes with labels': 'scenes', 'Variants': 'variant', 'Held-out ground': 'region', 'Seeds': 'seed',
    }  # fmt: skip
    entries = {title: _values(rows, column) for title, column in columns.items()}
    yield definitions(entries | {'Metrics': ', '.join(metrics), 'Compared with': reference})
    tested = any(row['region'] for row in rows)
    what = 'one training and its test on ground whose labels it never saw' if tested else 'one training'
    yield f'<p>A cell is {what}. Numbers are means over seeds; '
    yield 'where there are several held-out regions, a seed counts with its mean over them.</p>'
    if any(row['fraction'] or row['shots'] for row in rows):
        yield f'<p>{escape(FRACTION_NOTE)}</p>'
    yield '</section>'


def _values(rows: Sequence[Row], column: str) -> str:
    found = dict.fromkeys(row[column] for row in rows if row[column])
    return ', '.join(_axis_value(column, text) for text in found)


def _axis_value(axis: str, text: str) -> str:
    return f'{100 * float(text):.3g} %' if axis == 'fraction' and text else text


def _results(rows: Sequence[Row], metrics: Sequence[str], reference: str, note: str) -> Iterator[str]:
    yield '<section><h2>Results</h2>'
    for metric in metrics:
        found = conditions(rows, metric)
        differences = paired_differences(rows, metric, reference)
        yield f'<h3>{escape(metric)}</h3>'
        yield _curves(rows, metric)
        yield _means(rows, metric, found)
        if differences:
            yield f'<p>{escape(verdict(differences))}</p>'
            yield _paired(differences)
            yield f'<p>{escape(note)}</p>' if note else ''
    yield '</section>'


def _curves(rows: Sequence[Row], metric: str) -> str:
    names = ', '.join(dict.fromkeys(row['initialisation'] for row in rows if row['metric'] == metric))
    with tempfile.TemporaryDirectory() as folder:
        draw_curves(Path(folder, 'curves.png'), rows, [metric])
        alt = f'Curves of {metric} for {names}; the table below has the numbers.'
        return figure(Path(folder, 'curves.png'), alt, 'Mean over seeds; bands are 95 % intervals of the mean.')


def _means(rows: Sequence[Row], metric: str, found: dict[Condition, Values]) -> str:
    """A row an initialisation (with the smaller axes), a column a value of the main axis."""
    axis = main_axis(found)
    varying = varying_axes(found)
    columns = list(dict.fromkeys(one.value(axis) for one in found)) if axis else ['']
    lines: dict[str, dict[str, str]] = {}
    for condition, values in found.items():
        line = lines.setdefault(condition.label(axis, varying), {})
        line[condition.value(axis) if axis else ''] = mean_and_spread(by_seed(values))
    thresholds: dict[str, Values] = {}
    for condition, values in conditions(rows, baseline_metric(metric)).items():
        thresholds.setdefault(condition.value(axis) if axis else '', {}).update(values)
    if thresholds:
        lines['threshold on an index'] = {key: mean_and_spread(by_seed(known)) for key, known in thresholds.items()}
    head: list[str | Cell] = ['initialisation', *(Cell(_heading(axis, column), 'number') for column in columns)]
    body: list[list[str | Cell]] = [
        [name, *(Cell(line.get(column, '–'), 'number') for column in columns)] for name, line in lines.items()
    ]  # fmt: skip
    return table(head, body, f'{metric}: mean ± standard deviation over seeds (number of seeds)')


def _heading(axis: str | None, value: str) -> str:
    if axis is None:
        return 'value'
    return f'{_axis_value(axis, value)} of the training labels' if axis == 'fraction' else f'{axis} {value}'


def mean_and_spread(values: Sequence[float]) -> str:
    """Write the mean of some seeds with their standard deviation.

    Args:
        values: One value a seed.

    Returns:
        ``0.830 ± 0.021 (5)``; a single seed has no spread.
    """
    spread = f' ± {np.std(values, ddof=1):.3f}' if len(values) > 1 else ''
    return f'{np.mean(values):.3f}{spread} ({len(values)})'


def verdict(differences: Sequence[Difference]) -> str:
    """Say in a sentence or two what paired differences tell.

    Args:
        differences: Differences to one reference.

    Returns:
        Which are higher, which lower, and which cannot be told apart.
    """
    varying = varying_axes(one.condition for one in differences)
    groups: dict[str, list[str]] = {'higher': [], 'lower': [], '': []}
    for one in differences:
        groups[sign_of(one)].append(one.condition.label(varying=varying))
    reference = differences[0].reference
    told = [
        f'{how.capitalize()} than {reference}: {"; ".join(groups[how])}.' for how in ('higher', 'lower') if groups[how]
    ]  # fmt: skip
    if groups['']:
        told.append(f'Not told apart from {reference} by these seeds: {"; ".join(groups[""])}.')
    return ' '.join(told)


def sign_of(difference: Difference) -> str:
    """Whether the interval of a difference is all above 0 (``higher``), all below (``lower``), or neither (empty)."""
    low, high = difference.estimate.low, difference.estimate.high
    return 'higher' if low > 0 else 'lower' if high < 0 else ''


def _paired(differences: Sequence[Difference]) -> str:
    axes = varying_axes(one.condition for one in differences)
    numbers = (Cell(name, 'number') for name in ('difference', '95 % interval', 'wins / ties / losses'))
    head: list[str | Cell] = ['initialisation', *axes, *numbers]
    body: list[list[str | Cell]] = []
    for one in differences:
        estimate = one.estimate
        interval = '–' if math.isnan(estimate.low) else f'{estimate.low:+.3f} to {estimate.high:+.3f}'
        body.append([
            one.condition.initialisation, *(_axis_value(name, one.condition.value(name)) for name in axes),
            Cell(f'{estimate.mean:+.3f}', f'number {sign_of(one)}'.strip()), Cell(interval, 'number'),
            Cell(f'{one.wins} / {one.ties} / {one.losses}', 'number'),
        ])  # fmt: skip
    caption = (
        f'Difference to {differences[0].reference}, paired by seed and held-out region: mean over seeds with Student’s '
        'interval, wins, ties and losses of all pairs'
    )
    return table(head, body, caption)


# ------------------------------------------------------------------------------------------------------- folders


def _pretrainings(folder: Path) -> Iterator[str]:
    body: list[list[str | Cell]] = []
    for path in sorted(folder.glob('pretraining/*/result.json')):
        result = _read_json(path)
        known = read_provenance(path.parent)
        told = known.sentence if known else 'not known'
        seconds = result.get('seconds')
        took = Cell(f'{seconds:.0f}' if isinstance(seconds, int | float) else '–', 'number')
        body.append([path.parent.name, took, told, str(result.get('error') or 'ended')])
    if body:
        yield '<section><h2>Pretraining</h2>'
        head: list[str | Cell] = [
            'pretraining',
            Cell('seconds', 'number'),
            'what it knew of the test ground',
            'how it ended',
        ]
        yield table(head, body, 'Runs that made the weights which cells start from')
        yield '</section>'


def _pictures(folder: Path, rows: Sequence[Row]) -> Iterator[str]:
    """Pictures of one cell of each condition; those that are the same file for several are shown once."""
    seen: set[bytes] = set()
    shown = []
    for row in _one_each(rows)[:_SHOWN]:
        for name, (part, what) in _PICTURES.items():
            path = _picture_path(folder, row, part, name)
            if path is None or path.read_bytes() in seen:
                continue
            seen.add(path.read_bytes())
            shown.append(figure(path, f'{row["cell"]}: {what}', f'{row["cell"]}: {what}'))
    if shown:
        yield '<section><h2>Maps and predictions</h2><div class="figures">'
        yield from shown
        yield '</div></section>'


def _one_each(rows: Iterable[Row]) -> list[Row]:
    """The first cell of each condition."""
    found: dict[tuple[str, ...], Row] = {}
    for row in rows:
        found.setdefault((row['initialisation'], *(row[name] for name in AXES)), row)
    return list(found.values())


def _picture_path(folder: Path, row: Row, part: str, name: str) -> Path | None:
    """Where a picture of a cell is; nothing outside the study's folder, whatever the table says."""
    run = folder / row['run']
    found = next((path for path in (run / part / name, run / name) if path.is_file()), None)
    inside = found is not None and found.resolve().is_relative_to(folder.resolve())
    return found if inside else None


def _commands(rows: Sequence[Row]) -> Iterator[str]:
    commands: dict[str, dict[str, str]] = {}
    for row in rows:
        if row.get('command'):
            commands.setdefault(row['initialisation'], {})[row['cell']] = row['command']
    if not commands:
        return
    yield '<section><h2>Commands</h2><p>Each cell by hand, in the folder in which the study ran; a click selects a '
    yield 'whole command.</p>'
    for initialisation, cells in commands.items():
        yield f'<details><summary>{escape(initialisation)}: {len(cells)} cells</summary>'
        for cell, command in cells.items():
            lines = escape(command).replace(' &amp;&amp; ', ' &amp;&amp; \\\n')
            yield f'<h3>{escape(cell)}</h3><pre tabindex="0"><code>{lines}</code></pre>'
        yield '</details>'
    yield '</section>'


def _failures(folder: Path) -> Iterator[str]:
    path = folder / 'failures.csv'
    body = [[row['cell'], row['error']] for row in read_csv(path)] if path.is_file() else []
    if body:
        yield '<section><h2>Cells that failed</h2>'
        yield table(['cell', 'why'], body, 'They are in no number above')
        yield '</section>'


def _environment() -> Iterator[str]:
    known = {'torchgeo_msssl': __version__, 'Python': platform.python_version()}
    for name in _LIBRARIES:
        try:
            known[name] = version(name)
        except PackageNotFoundError:  # a library under another name, as in a conda environment
            continue
    known['System'] = f'{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores'
    yield '<section><h2>Environment</h2><p>As it was when this page was written.</p>'
    yield definitions(known)
    yield '</section>'


def _read_json(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError):  # a part that is not there yet, or half of one
        return {}
    return found if isinstance(found, dict) else {}
