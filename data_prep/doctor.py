"""Check scenes for errors and slow formats: ``python data_prep/doctor.py --help``."""

import sys

from _run import run

if __name__ == '__main__':
    sys.exit(run('doctor'))
