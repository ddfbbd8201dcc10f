"""Convert a class map to polygons: ``python data_prep/vectorize.py --help``."""

import sys

from _run import run

if __name__ == '__main__':
    sys.exit(run('vectorize'))
