"""Burn polygons and lines into a mask: ``python data_prep/rasterize.py --help``."""

import sys

from _run import run

if __name__ == '__main__':
    sys.exit(run('rasterize'))
