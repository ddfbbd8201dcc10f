"""Compare the pretraining methods by frozen probes on the sample area.

Every `configs/*_s2.yaml` is run for a number of optimizer steps, with several seeds; its encoder is frozen and probed
by kNN and logistic regression on labelled chips of ground that the probe was not trained on. Random weights and plain
band statistics are always in the table. Rows are appended to a CSV as soon as they are complete and not computed again,
so that a stopped comparison can be resumed.

    python benchmarks/pretext_tasks.py                      # about an hour on two CPU cores
    python benchmarks/pretext_tasks.py --steps 20 --seeds 0 --methods simclr byol
"""

import argparse
import csv
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from torchgeo_msssl.cli import run_trainer
from torchgeo_msssl.evaluation.features import band_statistics, extract_features, split_labelled_chips
from torchgeo_msssl.evaluation.probes import knn_probe, linear_probe
from torchgeo_msssl.geo.labels.raster import RasterLabels
from torchgeo_msssl.models.encoders import create_encoder

CONFIGS = Path(__file__).parents[1] / 'configs'
COLUMNS = ('method', 'seed', 'steps', 'seconds', 'knn', 'linear')
_CHIP = 32


def pretrain(method: str, seed: int, steps: int, sample_dir: str, runs: str) -> Any:
    """Run a config like `fit`, and return the command line object with task and data module."""
    options = {
        'seed_everything': seed,
        'trainer.max_steps': steps,
        'trainer.max_epochs': 100_000,
        'trainer.logger.save_dir': runs,
        'trainer.callbacks': '[]',
        'trainer.enable_checkpointing': 'false',
        'trainer.enable_progress_bar': 'false',
        'trainer.enable_model_summary': 'false',
        'data.sample_dir': sample_dir,
    }
    words = [word for key, value in options.items() for word in (f'--{key}', str(value))]
    return run_trainer(['fit', '--config', str(CONFIGS / f'{method}_s2.yaml'), *words])


class Probe:
    """Frozen probes on the labelled chips of a data module."""

    def __init__(self, data: Any, normalize: nn.Module) -> None:
        self.scenes = data.scenes
        self.normalize = normalize
        self.train, self.test = split_labelled_chips(data.scenes, RasterLabels(data.labels), _CHIP)

    def scores(self, embed: Callable[[Tensor], Tensor]) -> tuple[float, float]:
        """Return the accuracy of kNN and of logistic regression."""
        train, test = (extract_features(embed, self.scenes, part, self._prepare) for part in (self.train, self.test))
        arguments = (train, self.train.labels, test, self.test.labels)
        return knn_probe(*arguments).accuracy, linear_probe(*arguments).accuracy

    def _prepare(self, batch: dict[str, Tensor]) -> Tensor:
        return self.normalize(*(batch.get(key) for key in ('image', 'valid', 'scale', 'offset')))


def random_encoder(name: str, seed: int, channels: int) -> nn.Module:
    """Build an untrained encoder."""
    torch.manual_seed(seed)
    return create_encoder(name, channels).eval()


def compare(methods: Iterable[str], seeds: Iterable[int], steps: int, sample_dir: str, output: Path) -> None:
    """Compute the missing rows."""
    done = {(row['method'], row['seed'], row['steps']) for row in read(output)}
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open('a', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, COLUMNS)
        if file.tell() == 0:
            writer.writeheader()

        def keep(method: str, seed: int, seconds: float, scores: tuple[float, float]) -> None:
            writer.writerow(dict(zip(COLUMNS, (method, seed, steps, round(seconds, 1), *scores), strict=True)))
            file.flush()
            done.add((method, str(seed), str(steps)))
            print(
                f'{method:<30} seed {seed}  {seconds:6.1f} s  kNN {scores[0]:.3f}  linear {scores[1]:.3f}', flush=True
            )

        for seed in seeds:
            for method in methods:
                if (method, str(seed), str(steps)) in done:
                    continue
                with tempfile.TemporaryDirectory() as runs:
                    start = time.perf_counter()
                    cli = pretrain(method, seed, steps, sample_dir, runs)
                    seconds = time.perf_counter() - start
                task = cli.model.eval()
                probe = Probe(cli.datamodule, task.normalize)
                keep(method, seed, seconds, probe.scores(task.model))
                name = f'random {task.hparams["model"]}'
                if (name, str(seed), str(steps)) not in done:
                    channels = task.hparams['in_channels']
                    keep(name, seed, 0.0, probe.scores(random_encoder(task.hparams['model'], seed, channels)))
                if ('band statistics', '0', str(steps)) not in done:
                    keep('band statistics', 0, 0.0, probe.scores(band_statistics))


def read(path: Path) -> list[dict[str, str]]:
    """Read the rows of a CSV, none if there is no file."""
    if not path.is_file():
        return []
    with path.open(newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))


def spread(values: list[float]) -> str:
    """Format the mean, and the standard deviation of several values."""
    return f'{np.mean(values):.3f}' + (f' ± {np.std(values, ddof=1):.3f}' if len(values) > 1 else '')


def table(rows: list[dict[str, str]], steps: int) -> str:
    """Format mean ± standard deviation over seeds as Markdown, best linear probe first."""
    rows = [row for row in rows if row['steps'] == str(steps)]
    lines = []
    for method in {row['method']: None for row in rows}:
        mine = [row for row in rows if row['method'] == method]
        knn, linear = ([float(row[key]) for row in mine] for key in ('knn', 'linear'))
        lines.append((np.mean(linear), f'| {method} | {spread(knn)} | {spread(linear)} | {len(mine)} |'))
    head = '| method | kNN | linear | seeds |\n|---|---|---|---|'
    return '\n'.join([head, *(line for _, line in sorted(lines, reverse=True))])


def main() -> None:
    """Read the options, compute the rows, print the table."""
    known = sorted(path.stem.removesuffix('_s2') for path in CONFIGS.glob('*_s2.yaml'))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--methods', nargs='+', default=known, choices=known, metavar='METHOD')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument('--steps', type=int, default=200)
    parser.add_argument('--sample_dir', default='data/sample')
    parser.add_argument('--output', type=Path, default=Path('runs/pretext_tasks.csv'))
    options = parser.parse_args()
    compare(options.methods, options.seeds, options.steps, options.sample_dir, options.output)
    print(table(read(options.output), options.steps))
    print(f'Wrote {options.output}')


if __name__ == '__main__':
    main()
