"""Close files after each test of an evaluation."""

from collections.abc import Callable, Iterator

import pytest

from torchgeo_msssl.geo.open_datasets import close_datasets

Make = Callable[..., str]


@pytest.fixture(autouse=True)
def no_handles_left() -> Iterator[None]:
    """Close files before the interpreter ends, when GDAL could not report errors any more."""
    yield
    close_datasets()
