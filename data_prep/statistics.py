"""Compute band statistics of scenes: ``python data_prep/statistics.py --help``."""

import sys

from _run import run

if __name__ == '__main__':
    sys.exit(run('statistics'))
