"""Results of a study put in order for tables and figures."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

Row = Mapping[str, str]

#: Axes of a study that a figure can have below it, the first one that varies is taken.
AXES = ('fraction', 'shots', 'scenes', 'variant')

#: Values by seed and region.
Values = dict[tuple[str, str], float]


@dataclass(frozen=True)
class Condition:
    """What the cells of one point have in common.

    Attributes:
        initialisation: What they start from.
        axis: Values of :data:`AXES`, empty where a study has none.
    """

    initialisation: str
    axis: tuple[str, ...]

    def value(self, name: str) -> str:
        """Value on one of :data:`AXES`."""
        return self.axis[AXES.index(name)]

    def label(self, left_out: str | None = None, varying: Sequence[str] = AXES) -> str:
        """Name for people: the initialisation, and the values on the axes that vary but for ``left_out``."""
        parts = [f'{name} {self.value(name)}' for name in varying if name != left_out and self.value(name)]
        return ', '.join([self.initialisation, *parts])


def conditions(rows: Iterable[Row], metric: str) -> dict[Condition, Values]:
    """Collect the values of a metric.

    Args:
        rows: Rows of ``results.csv``.
        metric: Name of the metric.

    Returns:
        Values by seed and region, by condition, in the order of the rows.
    """
    found: dict[Condition, Values] = defaultdict(dict)
    for row in rows:
        if row['metric'] == metric:
            condition = Condition(row['initialisation'], tuple(row[name] for name in AXES))
            found[condition][row['seed'], row['region']] = float(row['value'])
    return dict(found)


def by_seed(values: Values) -> list[float]:
    """Mean over the regions for each seed that has all of them.

    Args:
        values: Values by seed and region.

    Returns:
        One value a seed.
    """
    seeds: dict[str, list[float]] = defaultdict(list)
    for (seed, _), value in values.items():
        seeds[seed].append(value)
    regions = max(len(found) for found in seeds.values())
    return [sum(found) / regions for found in seeds.values() if len(found) == regions]


def varying_axes(found: Iterable[Condition]) -> list[str]:
    """Axes on which conditions have more than one value.

    Args:
        found: Conditions.

    Returns:
        Names in the order of :data:`AXES`.
    """
    known = list(found)
    return [name for name in AXES if len({condition.value(name) for condition in known}) > 1]


def main_axis(found: Iterable[Condition]) -> str | None:
    """Axis to draw below a figure.

    Args:
        found: Conditions.

    Returns:
        The first that varies, else the first that has a value; None where there is none.
    """
    known = list(found)
    given = [name for name in AXES if any(condition.value(name) for condition in known)]
    return next(iter([*varying_axes(known), *given]), None)


def baseline_metric(metric: str) -> str:
    """Name of the same score of the threshold that a test compares with: ``test_iou_vine`` → ``baseline_iou_vine``."""
    return f'baseline_{metric.removeprefix("test_")}'
