"""Cut scenes into chips: ``python data_prep/chip.py --help``."""

import sys

from _run import run

if __name__ == '__main__':
    sys.exit(run('chip'))
