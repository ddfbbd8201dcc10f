"""Model cards: what a network was trained on, how good it is, and what it may be used for."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import torchgeo_msssl
from torchgeo_msssl.errors import ConfigurationError, MSSSLError
from torchgeo_msssl.files import atomic_path
from torchgeo_msssl.models.metadata import EncoderMetadata

__all__ = ('CARD', 'ModelCard', 'check_card', 'write_card')

#: Name of the file, next to the exported ones.
CARD = 'model_card.md'
_KEPT = '<!-- Everything below this line is yours: a further export into this folder keeps it. -->'
_OWN_PART = """
## Licence

Fill in: the licence of these weights, which that of the training images and labels may restrict.

## Intended use and limits

Fill in: for which ground, season and camera the network is meant, and where it fails.
"""


@dataclass(frozen=True)
class ModelCard:
    """What a card says.

    Attributes:
        checkpoint: Checkpoint that was exported.
        files: Exported files.
        metadata: Metadata of the network.
        class_names: Names of the classes; empty for an encoder.
        notes: Sentences about the input and output of the files.
    """

    checkpoint: Path
    files: Sequence[Path]
    metadata: EncoderMetadata
    class_names: Sequence[str] = ()
    notes: Sequence[str] = ()

    def __str__(self) -> str:
        """Format as Markdown, without the part that the user writes."""
        known = self.metadata
        classes = ', '.join(f'{index} {name}' for index, name in enumerate(self.class_names))
        rows = {
            'Files': ', '.join(f'`{path.name}`' for path in self.files),
            'Checkpoint': f'`{self.checkpoint.name}`',
            'Method': known.method,
            'Encoder': known.model,
            'Classes': classes or 'none: an encoder without a classifier',
            'Bands, in this order': ', '.join(known.bands),
            'Wavelengths': _joined(known.wavelengths, ' nm'),
            'Sensor': known.sensor,
            'Pixel size of the training': None if known.pixel_size is None else f'{known.pixel_size:g} m',
            'Chip size of the training': None if known.chip_size is None else f'{known.chip_size} pixels',
            'Written by': f'torchgeo_msssl {torchgeo_msssl.__version__}',
        }
        lines = [f'# {self.files[0].stem}', '', '| | |', '|---|---|']
        lines += [f'| {name} | {value or "not recorded"} |' for name, value in rows.items()]
        lines += ['', *self.notes] if self.notes else []
        lines += ['', '## Radiometry', '', *_radiometry(known)]
        run = self.checkpoint.parent.parent
        lines += ['', '## Training ground', '', *_training_ground(run)]
        lines += ['', '## Metrics', '', *_metrics(run)]
        return '\n'.join(lines) + '\n'


def check_card(folder: Path) -> None:
    """Check that the card of a folder may be written, before anything is.

    Args:
        folder: Folder of the exported files.

    Raises:
        ConfigurationError: If there is a file of that name that no export has written.
    """
    path = folder / CARD
    if path.exists() and _KEPT not in _read(path):
        raise ConfigurationError(
            f'{path} exists and was not written by export, which would replace it; rename it, or export into another '
            'folder.'
        )


def write_card(card: ModelCard) -> Path:
    """Write a card next to the exported files; the part that the user has written in an earlier card is kept.

    Args:
        card: Its content.

    Returns:
        The file.

    Raises:
        ConfigurationError: If there is a file of that name that no export has written.
        OutputError: If the file cannot be written.
    """
    path = card.files[0].parent / CARD
    check_card(path.parent)
    own = _read(path).partition(_KEPT)[2].lstrip('\n') if path.exists() else ''
    with atomic_path(path) as temporary:
        temporary.write_text(f'{card}\n{_KEPT}\n\n{own or _OWN_PART.lstrip()}', encoding='utf-8')
    return path


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f'{path} cannot be read ({error}); rename it or choose another folder.') from error


def _joined(values: Sequence[float | None], unit: str = '') -> str:
    return ', '.join('unknown' if value is None else f'{value:.6g}{unit}' for value in values)


def _radiometry(known: EncoderMetadata) -> list[str]:
    if not known.mean:
        return ['Not recorded.']
    columns = (known.scale, known.offset, known.mean, known.std)
    rows = zip(known.bands, *columns, strict=True)
    return [
        'Reflectance is `(digital number + offset) × scale`; the network sees `(reflectance − mean) / std`.',
        '',
        '| band | scale | offset | mean | std |',
        '|---|---|---|---|---|',
        *(f'| {name} | {" | ".join(f"{value:.6g}" for value in values)} |' for name, *values in rows),
    ]


def _training_ground(run: Path) -> list[str]:
    """Names of scenes and labels from the configuration of the run, without folders, and the size of its parts."""
    lines = []
    path = run / 'config.yaml'
    if path.is_file():
        config = yaml.safe_load(path.read_text(encoding='utf-8'))
        data = (config or {}).get('data') or {}
        options = data.get('init_args', data)
        for name in ('paths', 'labels'):
            given = options.get(name)
            names = [given] if isinstance(given, str) else given or ['the generated sample area']
            lines.append(f'* {name}: {", ".join(f"`{os.path.basename(str(one).rstrip('/'))}`" for one in names)}')
    if (run / 'split.geojson').is_file():
        lines.append('* training, validation and test ground: `split.geojson` in the folder of the run')
    return lines or ['Not recorded: the checkpoint is not in the folder of its run.']


def _metrics(run: Path) -> list[str]:
    """Scores of the test, from the folder of the run or its folder ``test``."""
    found = [path for path in (run / 'metrics_test.json', run / 'test' / 'metrics_test.json') if path.is_file()]
    if not found:
        return ['None: run `test` with this checkpoint, then export again.']
    try:
        report: Mapping[str, Any] = json.loads(found[0].read_text(encoding='utf-8'))
    except ValueError as error:
        raise MSSSLError(f'{found[0]} is not valid JSON ({error}); run `test` again.') from error
    lines = [f'* {name}: {report[name]:.4g}' for name in ('mean_iou', 'accuracy') if report.get(name) is not None]
    for name, scores in report.get('classes', {}).items():
        numbers = (f'{score} {value:.4g}' for score, value in scores.items() if value is not None)
        lines.append(f'* {name}: {", ".join(numbers)}')
    return lines
