"""``compare``: runs, probes and studies side by side."""

import argparse
from collections.abc import Sequence
from pathlib import Path


def run(arguments: Sequence[str]) -> int:
    """Compare results.

    Args:
        arguments: What follows the command's name.

    Returns:
        Exit status.

    Raises:
        MSSSLError: If a folder has no results, or a file cannot be written.
    """
    parser = argparse.ArgumentParser(prog='python -m torchgeo_msssl compare', description=__doc__)
    add = parser.add_argument
    add('results', nargs='+', metavar='RESULT', help='run folder, folder of a probe, or folder of a study')
    add('--output', default='comparison', metavar='DIR', help='folder to write into (default: %(default)s)')
    add('--metric', nargs='+', metavar='NAME', help='metrics to show (default: all)')
    add('--html', action='store_true', help='also write report.html into the folder of each study')
    options = parser.parse_args(arguments)
    # what `--help` does not need, it does not wait for
    from torchgeo_msssl.errors import ConfigurationError
    from torchgeo_msssl.evaluation.compare import COMPARISON, compare, comparison_table, is_study
    from torchgeo_msssl.evaluation.report import write_report

    studies = [Path(result) for result in options.results if is_study(Path(result))]
    if options.html and not studies:
        raise ConfigurationError('html: reports are of studies, and none of the results is one; leave --html out.')
    print(comparison_table(compare(options.results, options.metric, options.output)))
    written = [Path(options.output, name) for name in COMPARISON]
    written += [write_report(folder) for folder in studies] if options.html else []
    print(f'Wrote {", ".join(map(str, written))}')
    return 0
