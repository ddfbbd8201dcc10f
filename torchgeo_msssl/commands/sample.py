"""``sample``: the synthetic sample area on its own."""

import argparse
from collections.abc import Sequence

from torchgeo_msssl.geo.sample import write_sample_area


def run(arguments: Sequence[str]) -> int:
    """Write the sample area.

    Args:
        arguments: What follows the command's name.

    Returns:
        Exit status.

    Raises:
        MSSSLError: If the folder cannot be written.
    """
    parser = argparse.ArgumentParser(prog='python -m torchgeo_msssl sample', description=__doc__)
    parser.add_argument('directory', metavar='DIR', help='folder to write into')
    parser.add_argument('--seed', type=int, default=0, help='same seed, same pixels (default: 0)')
    options = parser.parse_args(arguments)
    area = write_sample_area(options.directory, seed=options.seed)
    print(f'Wrote the synthetic sample area ({len(area.files)} files) to {area.directory}')
    return 0
