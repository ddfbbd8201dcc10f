"""``sample``: write the synthetic sample area."""

from collections.abc import Sequence
from dataclasses import dataclass

from torchgeo_msssl.commands.options import positional, read_options
from torchgeo_msssl.geo.sample import write_sample_area


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """Write the synthetic sample area.

    Attributes:
        directory: Folder to write into.
        seed: Seed of the pixels.
    """

    directory: str = positional('DIR')
    seed: int = 0


def run(arguments: Sequence[str]) -> int:
    """Write the sample area.

    Args:
        arguments: Arguments that follow the command's name.

    Returns:
        Exit status.

    Raises:
        MSSSLError: If the folder cannot be written.
    """
    options = read_options(SampleOptions, 'sample', arguments)
    area = write_sample_area(options.directory, seed=options.seed)
    print(f'Wrote the synthetic sample area ({len(area.files)} files) to {area.directory}')
    return 0
