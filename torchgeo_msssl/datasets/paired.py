"""Labelled chips with an unlabelled one each."""

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor
from torch.utils.data import Dataset
from torchgeo.datasets.utils import Sample

from torchgeo_msssl.contract import UNLABELLED
from torchgeo_msssl.datasets.batches import collate

#: Query of a labelled and of an unlabelled chip.
PairedQuery = tuple[Any, Any]


class BatchDataset(Protocol):
    """Dataset that reads several chips at once."""

    def __getitems__(self, indices: Sequence[Any]) -> list[Sample]:
        """Read a batch; samples are in the order of the queries."""


class PairedChips(Dataset[tuple[Sample, Sample]]):
    """Reads a labelled and an unlabelled chip for each pair of queries.

    Samples are pairs; :func:`collate_pairs` makes batches of them. Unlabelled chips never have a mask, even if their
    dataset has one.
    """

    def __init__(self, labelled: BatchDataset, unlabelled: BatchDataset) -> None:
        """Combine two datasets, which may be the same.

        Args:
            labelled: Dataset of the first query of a pair.
            unlabelled: Dataset of the second one.
        """
        self.labelled = labelled
        self.unlabelled = unlabelled

    def __getitem__(self, index: PairedQuery) -> tuple[Sample, Sample]:
        """Read the chips of a pair of queries."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[PairedQuery]) -> list[tuple[Sample, Sample]]:
        """Read a batch; pairs are in the order of the queries."""
        first, second = zip(*indices, strict=True)
        unlabelled = self.unlabelled.__getitems__(second)
        for sample in unlabelled:
            sample.pop('mask', None)
        return list(zip(self.labelled.__getitems__(first), unlabelled, strict=True))


def collate_pairs(samples: Sequence[tuple[Sample, Sample]]) -> dict[str, Tensor | dict[str, Tensor]]:
    """Make a batch of labelled chips, with a batch of unlabelled ones under ``unlabelled``.

    Args:
        samples: Samples of :class:`PairedChips`.

    Returns:
        The batch.
    """
    labelled, unlabelled = zip(*samples, strict=True)
    return {**collate(labelled), UNLABELLED: collate(unlabelled)}
