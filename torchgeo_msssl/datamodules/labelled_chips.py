"""Chips with masks that were cut beforehand, for segmentation."""

from typing import Literal

from torchgeo_msssl.datamodules.chips import TRAIN, VAL, ChipsDataModule
from torchgeo_msssl.datamodules.loader import ChipLoader
from torchgeo_msssl.datasets.chip_files import Channels
from torchgeo_msssl.datasets.chips import Chips
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.chipping.options import PARTS

*_, TEST = PARTS


class LabelledChipsDataModule(ChipsDataModule):
    """Chips with masks for segmentation, in the parts into which they were divided."""

    reads_masks = True

    def __init__(
        self,
        root: str | None = None,
        class_names: list[str] | None = None,
        ignore_index: int = 255,
        bands: list[str] | None = None,
        sensor: str | None = None,
        chip_size: int | None = None,
        chips_per_epoch: int | None = None,
        batch_size: int = 8,
        num_workers: int = 0,
        channels: Channels | None = None,
        band_names: list[str] | None = None,
        offset: float | Literal['auto'] = 'auto',
        statistics: str | None = None,
        predict_paths: str | list[str] | None = None,
        sample_dir: str = 'data/sample',
    ) -> None:
        """Note what to read; files are opened when bands or chips are first asked for.

        Args:
            root: Folder that the command ``chip`` wrote with labels and a split, or another one with
                ``train``, ``val`` and ``test``, in each of them ``images`` and ``masks``; None cuts chips out of the
                drone scenes of the sample area.
            class_names: Names of the classes; the index is the value (default: those of the manifest).
            ignore_index: Value of unlabelled pixels in the masks.
            bands: Bands by name; None for all that the chips have.
            sensor: Sensor name, where the files do not tell.
            chip_size: Side of the windows that are cut from the chips, in pixels: at random for training, side by side
                for validation and test; None for whole chips.
            chips_per_epoch: Training chips of an epoch over all ranks; None for each chip once.
            batch_size: Chips of a batch on each rank.
            num_workers: Processes that read chips; 0 reads in the main process.
            channels: ``.npy`` files: which axis holds the bands, ``first`` or ``last``.
            band_names: Names of the bands in order, where the files do not tell.
            offset: Added to digital numbers before scaling; ``auto`` reads it from metadata or date.
            statistics: YAML of the command ``statistics``; None for what the manifest says, else they are measured.
            predict_paths: Scenes to map with ``predict``.
            sample_dir: Where the sample area is, or is made.

        Raises:
            ConfigurationError: If a number is out of range.
        """
        super().__init__(
            root, bands, sensor, None, chip_size, chips_per_epoch, batch_size, num_workers, channels, band_names,
            offset, statistics, True, predict_paths, sample_dir, 'drone',
        )  # fmt: skip
        self.options |= {'class_names': class_names, 'ignore_index': ignore_index}

    def check(self, chips: Chips) -> None:
        """See that chips have masks whose values have names.

        Args:
            chips: Chips of a part.

        Raises:
            ConfigurationError: If they have not.
        """
        if not chips.labelled:
            msg = f'root: the chips in {chips.root} have no masks; cut them with `chip --labels`, or add masks.'
            raise ConfigurationError(msg)
        if not chips.class_names:
            msg = f'class_names: the masks in {chips.root} do not tell what their values mean; give the names.'
            raise ConfigurationError(msg)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; the index is the value."""
        return self.chips(TRAIN).class_names

    @property
    def ignore_index(self) -> int:
        """Value of unlabelled pixels in a mask."""
        return int(self.options['ignore_index'])

    def parts_of(self, stage: str) -> tuple[str, ...]:
        """Parts of the split that a stage needs besides training chips."""
        return {'fit': (VAL,), 'validate': (VAL,), 'test': (TEST,)}.get(stage, ())

    def test_dataloader(self) -> ChipLoader:
        """Test chips in their order.

        Returns:
            The loader.
        """
        return self.covering_loader(TEST)

    def region_loader(self, part: str) -> ChipLoader:
        """All chips of a part in their order, whatever the stage, on every rank.

        Args:
            part: ``train``, ``val`` or ``test``.

        Returns:
            The loader.
        """
        return self.covering_loader(part, all_ranks=True)
