"""Measure how long commands take to start, compared with TorchGeo's own.

Each command runs in its own process, alternating with TorchGeo's. The CPU time of the process is measured (user and
system, including its children), and the median of the ratios is printed. `first step` is a `fit` of one
training step on a small scene, the same task and configuration under both commands.

    python benchmarks/startup.py
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from torchgeo_msssl.geo.sample import write_sample_area

CONFIG = Path(__file__).parents[1] / 'configs' / 'fastsiam_s2.yaml'
STEP = ('--trainer.max_steps', '1', '--data.init_args.batch_size', '4', '--data.init_args.chips_per_epoch', '4')
OURS = (sys.executable, '-m', 'torchgeo_msssl')
STOCK = (sys.executable, '-c', 'from torchgeo.main import main; main()')


def commands(area: str) -> dict[str, tuple[Sequence[str], Sequence[str]]]:
    """Return our command and TorchGeo's by name."""
    fit = ('fit', '--config', str(CONFIG), '--data.init_args.sample_dir', area, *STEP)
    return {
        '`--help`': ((*OURS, '--help'), (*STOCK, '--help')),
        '`fit --help`': ((*OURS, 'fit', '--help'), (*STOCK, 'fit', '--help')),
        '`fit`, first step': ((*OURS, *fit), (*STOCK, *fit)),
    }


def cpu_seconds(command: Sequence[str], folder: Path, cache: str) -> float:
    """Return the CPU time of a process and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {'TORCHGEO_MSSSL_CACHE': cache, 'OMP_NUM_THREADS': '1'}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f'{" ".join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}')
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Read the options and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--repeats', type=int, default=3)
    options = parser.parse_args()
    print('| command | ours, CPU s | TorchGeo, CPU s | median ratio |\n|---|---|---|---|')
    with tempfile.TemporaryDirectory() as name:
        folder, cache = Path(name), str(Path(name) / 'cache')
        area = str(write_sample_area(folder / 'area', scale=0.5).directory)
        for what, pair in commands(area).items():
            times: list[list[float]] = []
            for repeat in range(options.repeats + 1):
                measured = [cpu_seconds(command, folder, cache) for command in pair]
                if repeat:  # the first one fills the caches of the disk
                    times.append(measured)
            ours, stock = (statistics.median(column) for column in zip(*times, strict=True))
            ratio = statistics.median(stock / own for own, stock in times)
            print(f'| {what} | {ours:.2f} | {stock:.2f} | {ratio:.2f} × |', flush=True)


if __name__ == '__main__':
    main()
