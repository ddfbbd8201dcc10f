"""``compare``: runs, probes and studies in one table."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torchgeo_msssl.commands.options import option, positional, read_options
from torchgeo_msssl.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """Put the results of runs, probes and studies into one table.

    Attributes:
        results: Run folders, folders of probes, or folders of studies.
        output: Folder to write into.
        metric: Metrics to show; default: all.
        html: Also write report.html into the folder of each study.
    """

    results: list[str] = positional('RESULT')
    output: str = option('comparison', metavar='DIR')
    metric: str | list[str] | None = None
    html: bool = False


def run(arguments: Sequence[str]) -> int:
    """Compare results.

    Args:
        arguments: Arguments that follow the command's name.

    Returns:
        Exit status.

    Raises:
        MSSSLError: If a folder has no results, or a file cannot be written.
    """
    options = read_options(CompareOptions, 'compare', arguments)
    from torchgeo_msssl.evaluation.compare import COMPARISON, compare, comparison_table, is_study
    from torchgeo_msssl.evaluation.report import write_report

    studies = [Path(result) for result in options.results if is_study(Path(result))]
    if options.html and not studies:
        raise ConfigurationError('html: reports are of studies, and none of the results is one; leave --html out.')
    metrics = [options.metric] if isinstance(options.metric, str) else options.metric
    print(comparison_table(compare(options.results, metrics, options.output)))
    written = [Path(options.output, name) for name in COMPARISON]
    written += [write_report(folder) for folder in studies] if options.html else []
    print(f'Wrote {", ".join(map(str, written))}')
    return 0
