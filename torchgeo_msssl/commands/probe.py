"""``probe``: classification of frozen features."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import yaml

from torchgeo_msssl.commands.options import read_options
from torchgeo_msssl.errors import OutputError
from torchgeo_msssl.evaluation.probe_settings import ProbeSettings
from torchgeo_msssl.files import atomic_path


def run(arguments: Sequence[str]) -> int:
    """Probe encoders and print the table.

    Args:
        arguments: Arguments that follow the command's name.

    Returns:
        Exit status.

    Raises:
        MSSSLError: If data, weights or options do not fit, or the folder cannot be written.
    """
    settings = read_options(ProbeSettings, 'probe', arguments, config=True, example='probe --config probe_s2')
    from torchgeo_msssl.cli import show_log
    from torchgeo_msssl.evaluation.probe import run_probe
    from torchgeo_msssl.evaluation.probe_report import markdown, next_folder, write_report
    from torchgeo_msssl.geo.open_datasets import close_datasets

    folder = Path(settings.output) if settings.output is not None else next_folder(settings.experiment)
    _check_writable(folder)
    show_log()
    try:
        report = run_probe(settings)
    finally:
        close_datasets()  # GDAL reports errors of datasets that are closed at exit in no readable way
    write_report(report, folder)
    with atomic_path(folder / 'config.yaml') as temporary:
        temporary.write_text(yaml.safe_dump(dataclasses.asdict(settings), sort_keys=False), encoding='utf-8')
    print('\n'.join(markdown(report)))
    print(f'Probe folder: {folder}')
    return 0


def _check_writable(folder: Path) -> None:
    """Raise before the work if the results could not be written after it; create nothing."""
    parent = next(path for path in (folder, *folder.parents) if path.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(f'output: {folder} cannot be written: {parent} is not a writable folder; choose another.')
