"""Base of the methods that learn to restore hidden or corrupted pixels."""

from abc import abstractmethod
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from torchgeo_msssl.losses.reconstruction import RANGE_IN_STD, error_sums, psnr_and_ssim
from torchgeo_msssl.tasks.base import PretrainingTask
from torchgeo_msssl.tasks.collapse import CollapseMonitor
from torchgeo_msssl.tasks.restoration_folder import RestorationFolder
from torchgeo_msssl.transforms.normalize import valid_pixels
from torchgeo_msssl.transforms.symmetries import move_at_random


class RestorationTask(PretrainingTask):
    """A task that corrupts images and learns to restore them.

    With a validation loader it logs ``val_psnr`` and ``val_ssim`` of the hidden pixels, for each band and their mean,
    in reflectance, with a data range of four standard deviations of the band (see
    :mod:`torchgeo_msssl.losses.reconstruction`). Every epoch hides the same pixels of a validation chip.
    ``val_psnr_given`` and ``val_ssim_given`` are the scores of the network's input, the baseline of doing nothing.

    Attributes:
        errors: Sums of the current or last validation, (2, 3, band): of the restored and of the given image.
    """

    errors: Tensor
    view_titles = ('target', 'input')

    def __init__(self, flips: bool = True, quarter_turns: bool = True, **kwargs: Any) -> None:
        """Build the networks.

        Args:
            flips: Whether to flip chips at random.
            quarter_turns: Whether to rotate chips by quarter turns at random.
            **kwargs: The options of :class:`~torchgeo_msssl.tasks.PretrainingTask`.

        Raises:
            ConfigurationError: If an option is out of its range.
        """
        self.flips = flips
        self.quarter_turns = quarter_turns
        super().__init__(**kwargs)

    def configure_metrics(self) -> None:
        """Allocate the sums of validation."""
        self.register_buffer('errors', torch.zeros(2, 3, self.normalize.in_channels), persistent=False)

    # Defined by each method.

    @abstractmethod
    def corrupt(self, image: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Hide or corrupt pixels at random.

        Args:
            image: Standardized values (batch, band, height, width).
            valid: Mask of valid pixels (batch, 1, height, width), bool.

        Returns:
            The network's input, and the mask of its hidden or changed pixels (batch, 1, height, width), bool.
        """

    @abstractmethod
    def predict_hidden(self, corrupted: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Run the network on the results of :meth:`corrupt`.

        Returns:
            The method's prediction, and pooled features of the encoder (batch, features).
        """

    @abstractmethod
    def loss_of(self, prediction: Tensor, image: Tensor, valid: Tensor, hidden: Tensor) -> Tensor:
        """Compare a prediction with the original.

        Args:
            prediction: From :meth:`predict_hidden`.
            image: The original, standardized (batch, band, height, width).
            valid: Its valid pixels (batch, 1, height, width), bool.
            hidden: From :meth:`corrupt`.

        Returns:
            Loss, a scalar.
        """

    @abstractmethod
    def image_of(self, prediction: Tensor, image: Tensor, valid: Tensor) -> Tensor:
        """Convert a prediction to an image.

        Args:
            prediction: From :meth:`predict_hidden`.
            image: The original, standardized (batch, band, height, width).
            valid: Its valid pixels (batch, 1, height, width), bool.

        Returns:
            Standardized values (batch, band, height, width).
        """

    @abstractmethod
    def tile_and_window(self, chip_size: int) -> tuple[int, int]:
        """Sizes with which a whole scene is corrupted and restored.

        Args:
            chip_size: Side of the training chips in pixels.

        Returns:
            ``(tile, window)``: sides in pixels of the squares that are corrupted, and of the windows that are restored;
            a window is one tile or several.
        """

    @property
    def note(self) -> str:
        """Remark about restored images for figures, or an empty string."""
        return ''

    # Data.

    def standardized(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Standardize the chips of a batch.

        Args:
            batch: ``image`` with ``valid``, ``scale`` and ``offset`` where known.

        Returns:
            Standardized values (batch, band, height, width), and the mask of valid pixels (batch, 1, height, width).
        """
        valid = valid_pixels(batch['image'], batch.get('valid'))
        return self.normalize.standardize(self.reflectance(batch), valid), valid

    @torch.no_grad()
    def augmented(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Standardize the chips of a batch, flipped and rotated at random; returns as :meth:`standardized`."""
        image, valid = self.standardized(batch)
        image, valid = move_at_random(image, valid, flips=self.flips, quarter_turns=self.quarter_turns)
        return image, valid

    def shown_views(self, batch: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Return the target of the network and its input."""
        image, valid = self.augmented(batch)
        corrupted, _ = self.corrupt(image, valid)
        return [(self.normalize.to_reflectance(part), valid) for part in (image, corrupted)]

    # Steps.

    def compute_loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the loss; features of the encoder (batch, features) are also the embedding."""
        image, valid = self.augmented(batch)
        corrupted, hidden = self.corrupt(image, valid)
        prediction, features = self.predict_hidden(corrupted, hidden)
        return self.loss_of(prediction, image, valid, hidden), features, features

    def restore(self, image: Tensor, valid: Tensor, corrupted: Tensor, hidden: Tensor) -> Tensor:
        """Restore images.

        Args:
            image: The original, standardized (batch, band, height, width); MAE with normalized targets takes each
                patch's mean and standard deviation from it.
            valid: Its valid pixels (batch, 1, height, width), bool.
            corrupted: From :meth:`corrupt`.
            hidden: From :meth:`corrupt`.

        Returns:
            Standardized values (batch, band, height, width).
        """
        return self.image_of(self.predict_hidden(corrupted, hidden)[0], image, valid)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Restore a batch and sum up its errors; ``batch_idx`` decides what is hidden.

        Returns:
            Reflectance (batch, band, height, width): ``original``, ``corrupted``, ``restored``, and ``filled``, the
            original with its hidden pixels restored; ``valid`` (batch, 1, height, width), bool.
        """
        self.seed_step(batch_idx)
        image, valid = self.standardized(batch)
        corrupted, hidden = self.corrupt(image, valid)
        prediction, _ = self.predict_hidden(corrupted, hidden)
        loss = self.loss_of(prediction, image, valid, hidden)
        self.log('val_loss', loss, batch_size=len(image), sync_dist=True)
        restored = self.image_of(prediction, image, valid).float()
        images = {
            'original': image,
            'corrupted': corrupted,
            'restored': restored,
            'filled': torch.where(hidden & valid, restored, image),
        }
        found = {name: self.normalize.to_reflectance(values) for name, values in images.items()}
        data_range = RANGE_IN_STD * self.normalize.std
        for sums, name in zip(self.errors, ('restored', 'corrupted'), strict=True):
            sums += error_sums(found[name], found['original'], hidden & valid, data_range)
        return found | {'valid': valid}

    def on_validation_start(self) -> None:
        """Check that the task is trained.

        Raises:
            ConfigurationError: If it is neither trained nor loaded.
        """
        self.check_trained()

    def on_validation_epoch_start(self) -> None:
        """Reset the sums."""
        self.errors.zero_()

    def on_validation_epoch_end(self) -> None:
        """Log PSNR and SSIM."""
        sums = self.errors
        if self.trainer.world_size > 1:
            sums = self.trainer.strategy.reduce(sums, reduce_op='sum')
        restored, given = (psnr_and_ssim(part) for part in sums)
        for score, values, baseline in zip(('psnr', 'ssim'), restored, given, strict=True):
            for name, value in zip(self.band_names, values.tolist(), strict=True):
                self.log(f'val_{score}_{name}', value)
            self.log(f'val_{score}_given', baseline.mean())
            self.log(f'val_{score}', values.mean(), prog_bar=True)

    def configure_callbacks(self) -> list[Callback]:
        """Monitor collapse and fill the run folder, under any command line."""
        return [CollapseMonitor(self.collapse_patience), RestorationFolder()]
