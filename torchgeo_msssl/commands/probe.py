"""``probe``: what frozen features of encoders tell about classes."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

from torchgeo_msssl.cli import show_log
from torchgeo_msssl.errors import OutputError
from torchgeo_msssl.evaluation.probe import run_probe
from torchgeo_msssl.evaluation.probe_report import markdown, next_folder, write_report
from torchgeo_msssl.evaluation.probe_settings import ProbeSettings
from torchgeo_msssl.files import atomic_path
from torchgeo_msssl.geo.open_datasets import close_datasets


def run(arguments: Sequence[str]) -> int:
    """Probe encoders and print the table.

    Args:
        arguments: What follows the command's name.

    Returns:
        Exit status.

    Raises:
        MSSSLError: If data, weights or options do not suit, or the folder cannot be written.
    """
    parser = ArgumentParser(prog='python -m torchgeo_msssl probe', description=__doc__)
    parser.add_argument('--config', action='config', help='YAML file with any of these options')
    parser.add_class_arguments(ProbeSettings, as_group=False)
    config = parser.parse_args(arguments)
    values = parser.instantiate(config)
    settings = ProbeSettings(**{field.name: values[field.name] for field in dataclasses.fields(ProbeSettings)})
    folder = Path(settings.output) if settings.output is not None else next_folder(settings.experiment)
    _check_writable(folder)
    show_log()
    try:
        report = run_probe(settings)
    finally:
        close_datasets()  # what is closed while the interpreter ends cannot be told properly
    write_report(report, folder)
    with atomic_path(folder / 'config.yaml') as temporary:
        temporary.write_text(parser.dump(config), encoding='utf-8')
    print('\n'.join(markdown(report)))
    print(f'Probe folder: {folder}')
    return 0


def _check_writable(folder: Path) -> None:
    """See before the work that the results can be written after it, and leave nothing behind."""
    above = next(path for path in (folder, *folder.parents) if path.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise OutputError(f'output: {folder} cannot be written, {above} is no folder of yours; choose another one.')
