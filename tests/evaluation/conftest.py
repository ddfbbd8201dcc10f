"""Close files after each test of an evaluation."""

from collections.abc import Callable, Iterator

import pytest

from torchgeo_msssl.geo.open_datasets import close_datasets

Make = Callable[..., str]


@pytest.fixture(autouse=True)
def no_handles_left() -> Iterator[None]:
    """Files that are open when the interpreter ends are closed too late to be told of properly."""
    yield
    close_datasets()
