"""Results of a study, grouped by condition.

A condition is an initialisation with its values on the axes of the study. Tables are frames of text as ``results.csv``
holds it, empty where a study lacks an axis.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.evaluation.baseline_names import baseline_of
from torchgeo_msssl.evaluation.study.statistics import mean_interval

#: Axes of a study that a figure can have below it; the first one that varies is used.
AXES = ('fraction', 'shots', 'scenes', 'variant', 'steps')

#: Columns that tell conditions apart.
CONDITION = ('initialisation', *AXES)


def read_table(path: Path) -> pd.DataFrame:
    """Read a CSV file as text.

    Returns:
        Frame of text, empty where there is no value.

    Raises:
        ConfigurationError: If it is not a CSV file in UTF-8.
    """
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False, encoding='utf-8')
    except pd.errors.EmptyDataError:
        return pd.DataFrame()
    except (UnicodeDecodeError, pd.errors.ParserError) as error:
        raise ConfigurationError(f'{path}: cannot be read as CSV ({error}); write it again.') from error


def read_results(folder: Path) -> pd.DataFrame:
    """Read ``results.csv`` of a study.

    Returns:
        One row per metric of each cell; no rows if no cell has ended. Classifiers of pixels are initialisations.

    Raises:
        ConfigurationError: If the file cannot be read.
    """
    path = folder / 'results.csv'
    table = read_table(path) if path.is_file() else pd.DataFrame()
    missing = [name for name in (*CONDITION, 'metric', 'cell') if name not in table]
    return _with_baselines(table.assign(**dict.fromkeys(missing, '')).fillna(''))


def _with_baselines(table: pd.DataFrame) -> pd.DataFrame:
    """Move the scores of classifiers of pixels, which each cell has, to initialisations of their own, at the end.

    They depend on labels and ground alone. Cells that differ in the initialisation repeat them, and
    :func:`values_of` keeps one of these.
    """
    split = {metric: baseline_of(metric) for metric in table['metric'].unique()}
    found = {metric: names for metric, names in split.items() if names is not None}
    if not found:
        return table
    theirs = table['metric'].isin(list(found))
    moved = table[theirs]
    moved = moved.assign(
        initialisation=[found[metric][0] for metric in moved['metric']],
        metric=[found[metric][1] for metric in moved['metric']],
    )
    return pd.concat([table[~theirs], moved], ignore_index=True)


def estimates(table: pd.DataFrame, metric: str, by: Sequence[str] = CONDITION) -> pd.DataFrame:
    """Estimate the mean of a metric over seeds for each condition.

    Args:
        table: Rows of ``results.csv``.
        metric: Name of the metric.
        by: Columns to group by.

    Returns:
        One row per group with the columns ``by`` and ``estimate`` (:class:`.statistics.Estimate`), in the order of the
        table.
    """
    rows = values_of(table, metric).drop_duplicates([*by, 'seed', 'region'], keep='last')
    if not by:
        return pd.DataFrame({'estimate': [mean_interval(seed_means(rows))] if len(rows) else []})
    groups = rows.groupby(list(by), sort=False)
    found = [(*key, mean_interval(seed_means(group))) for key, group in groups]
    return pd.DataFrame(found, columns=[*by, 'estimate'])


def values_of(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Select the rows of a metric, with their values as numbers.

    Returns:
        Rows; of several with the same condition, seed and region the last one.
    """
    rows = table[table['metric'] == metric]
    rows = rows.drop_duplicates([*CONDITION, 'seed', 'region'], keep='last')
    return rows.assign(value=rows['value'].map(float)) if len(rows) else rows


def seed_means(rows: pd.DataFrame) -> list[float]:
    """Average over regions for each seed.

    Args:
        rows: Rows of one condition, with the columns ``seed``, ``region`` and ``value``.

    Returns:
        One mean per seed; seeds that lack a region which another seed has are left out.
    """
    seeds = rows.groupby('seed', sort=False)['value'].agg(['mean', 'count'])
    return seeds.loc[seeds['count'] == seeds['count'].max(), 'mean'].tolist()


def varying_axes(table: pd.DataFrame) -> list[str]:
    """List the axes with more than one value.

    Args:
        table: Table with the columns :data:`AXES`.

    Returns:
        Names in the order of :data:`AXES`.
    """
    return [name for name in AXES if table[name].nunique() > 1]


def main_axis(table: pd.DataFrame) -> str | None:
    """Choose the axis of a figure.

    Args:
        table: Table with the columns :data:`AXES`.

    Returns:
        The first axis that varies, otherwise the first that has a value; None without any.
    """
    given = [name for name in AXES if table[name].ne('').any()]
    return next(iter([*varying_axes(table), *given]), None)


def condition_label(row: Mapping[str, str], axes: Sequence[str]) -> str:
    """Name a condition in a figure or a table.

    Args:
        row: Row with the columns :data:`CONDITION`.
        axes: Axes to name.

    Returns:
        Such as ``random, fraction 0.1``.
    """
    return ', '.join([row['initialisation'], *(f'{name} {row[name]}' for name in axes if row[name])])


def baseline_metric(metric: str) -> str:
    """Name the same score of the threshold that a test compares with: ``test_iou_vine`` → ``baseline_iou_vine``."""
    return f'baseline_{metric.removeprefix("test_")}'
