"""Cut scenes into chips: ``python data_prep/chip.py --help``."""

import os
import sys

if __name__ == '__main__':
    # This folder comes first on the path, and its statistics.py would be taken for the standard library's.
    sys.path = [folder for folder in sys.path if folder != os.path.dirname(os.path.realpath(__file__))]

    from torchgeo_msssl.__main__ import main

    sys.exit(main(['chip', *sys.argv[1:]]))
