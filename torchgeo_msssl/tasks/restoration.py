"""What the tasks share that learn to restore what was hidden or spoilt."""

from abc import abstractmethod

import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from torchgeo_msssl.losses.reconstruction import RANGE_IN_STD, error_sums, psnr_and_ssim
from torchgeo_msssl.tasks.base import PretrainingTask
from torchgeo_msssl.tasks.collapse import CollapseMonitor
from torchgeo_msssl.tasks.optimizers import OptimizerName
from torchgeo_msssl.tasks.reconstruction_figures import RestorationFolder
from torchgeo_msssl.transforms.normalize import valid_pixels
from torchgeo_msssl.transforms.symmetries import apply_symmetries, random_symmetries


class RestorationTask(PretrainingTask):
    """A task that spoils images and learns to restore them.

    With a validation loader it logs ``val_psnr`` and ``val_ssim`` of the hidden pixels, for each band and their mean,
    in reflectance, with a data range of four standard deviations of the band (see
    :mod:`torchgeo_msssl.losses.reconstruction`). Every epoch hides the same pixels of a validation chip.
    ``val_psnr_given`` and ``val_ssim_given`` are those of what the network was given: what doing nothing reaches.

    Attributes:
        errors: Sums of the validation that is going on, or was the last, (2, 3, band): of what was restored and of
            what was given.
    """

    errors: Tensor

    def __init__(
        self,
        model: str,
        in_channels: int,
        weights: str | None,
        flips: bool,
        quarter_turns: bool,
        optimizer: OptimizerName,
        lr: float,
        weight_decay: float,
        momentum: float,
        warmup_epochs: float,
        collapse_patience: int | None,
    ) -> None:
        """Build the networks; see :class:`~torchgeo_msssl.tasks.PretrainingTask` for what is not named here.

        Args:
            model: timm name of the encoder.
            in_channels: Number of bands.
            weights: What the encoder starts from.
            flips: Whether chips are mirrored at random.
            quarter_turns: Whether chips are turned at random.
            optimizer: Optimizer.
            lr: Largest learning rate.
            weight_decay: Weight decay; norms and biases are exempt.
            momentum: Momentum of SGD and LARS.
            warmup_epochs: Epochs in which the learning rate rises linearly; it then falls as half a cosine.
            collapse_patience: Stop after so many epochs of collapse in a row; None only warns.

        Raises:
            ConfigurationError: If a number is out of range.
        """
        self.flips = flips
        self.quarter_turns = quarter_turns
        super().__init__(
            model, in_channels, weights, optimizer, lr, weight_decay, momentum, warmup_epochs, collapse_patience
        )

    def configure_metrics(self) -> None:
        """Make room for the sums of validation."""
        self.register_buffer('errors', torch.zeros(2, 3, self.normalize.in_channels), persistent=False)

    # What a method is.

    @abstractmethod
    def corrupt(self, image: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Hide or spoil pixels, at random.

        Args:
            image: Standardised values (batch, band, height, width).
            valid: Mask of valid pixels (batch, 1, height, width), bool.

        Returns:
            The image for the network, and the mask of its hidden or changed pixels (batch, 1, height, width), bool.
        """

    @abstractmethod
    def predict_hidden(self, corrupted: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Pass the network.

        Args:
            corrupted: From :meth:`corrupt`.
            hidden: From :meth:`corrupt`.

        Returns:
            The method's prediction, and pooled features of the encoder (batch, features).
        """

    @abstractmethod
    def loss_of(self, prediction: Tensor, image: Tensor, valid: Tensor, hidden: Tensor) -> Tensor:
        """Compare a prediction with the original.

        Args:
            prediction: From :meth:`predict_hidden`.
            image: The original, standardised (batch, band, height, width).
            valid: Its valid pixels (batch, 1, height, width), bool.
            hidden: From :meth:`corrupt`.

        Returns:
            Loss, a scalar.
        """

    @abstractmethod
    def image_of(self, prediction: Tensor, image: Tensor, valid: Tensor) -> Tensor:
        """Turn a prediction into an image.

        Args:
            prediction: From :meth:`predict_hidden`.
            image: The original, standardised (batch, band, height, width).
            valid: Its valid pixels (batch, 1, height, width), bool.

        Returns:
            Standardised values (batch, band, height, width).
        """

    @abstractmethod
    def tile_and_window(self, chip_size: int) -> tuple[int, int]:
        """Sides of the squares in which a whole scene is spoilt, and of the windows in which it is restored.

        Args:
            chip_size: Side of the training chips in pixels.

        Returns:
            ``(tile, window)`` in pixels; a window is one tile, or several.
        """

    @property
    def note(self) -> str:
        """What has to be known about restored images, or nothing."""
        return ''

    # Data.

    def standardised(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Standardise the chips of a batch.

        Args:
            batch: ``image`` with ``valid``, ``scale`` and ``offset`` where they are known.

        Returns:
            Standardised values (batch, band, height, width), and the mask of valid pixels (batch, 1, height, width).
        """
        valid = valid_pixels(batch['image'], batch.get('valid'))
        return self.normalize.standardise(self.reflectance(batch), valid), valid

    @torch.no_grad()
    def augmented(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Standardise the chips of a batch, mirrored and turned at random.

        Args:
            batch: A batch of chips.

        Returns:
            Standardised values (batch, band, height, width), and the mask of valid pixels (batch, 1, height, width).
        """
        image, valid = self.standardised(batch)
        square = image.shape[-1] == image.shape[-2]
        symmetries = random_symmetries(len(image), square, self.flips, self.quarter_turns, image.device)
        return apply_symmetries(image, symmetries), apply_symmetries(valid, symmetries)

    def to_reflectance(self, image: Tensor) -> Tensor:
        """Undo the standardisation.

        Args:
            image: Standardised values (batch, band, height, width).

        Returns:
            Reflectance (batch, band, height, width).
        """
        return image * self.normalize.std[:, None, None] + self.normalize.mean[:, None, None]

    def make_views(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """What the network is to restore, and what it is given, for the run folder.

        Args:
            batch: A batch of chips.

        Returns:
            Reflectance (2, batch, band, height, width) and valid pixels (2, batch, 1, height, width).
        """
        image, valid = self.augmented(batch)
        corrupted, _ = self.corrupt(image, valid)
        return torch.stack([self.to_reflectance(part) for part in (image, corrupted)]), torch.stack([valid, valid])

    # Steps.

    def compute_loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the loss of a batch.

        Args:
            batch: A batch of chips.

        Returns:
            Loss; features of the encoder (batch, features), twice.
        """
        image, valid = self.augmented(batch)
        corrupted, hidden = self.corrupt(image, valid)
        prediction, features = self.predict_hidden(corrupted, hidden)
        return self.loss_of(prediction, image, valid, hidden), features, features

    def restore(self, image: Tensor, valid: Tensor, corrupted: Tensor, hidden: Tensor) -> Tensor:
        """Restore images.

        Args:
            image: The original, standardised (batch, band, height, width); MAE with normalised targets takes each
                patch's mean and spread from it.
            valid: Its valid pixels (batch, 1, height, width), bool.
            corrupted: From :meth:`corrupt`.
            hidden: From :meth:`corrupt`.

        Returns:
            Standardised values (batch, band, height, width).
        """
        return self.image_of(self.predict_hidden(corrupted, hidden)[0], image, valid)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Restore a batch and add up how far it is from the original.

        Args:
            batch: A batch of chips.
            batch_idx: Index in the epoch, which decides what is hidden.
            dataloader_idx: Ignored.

        Returns:
            Reflectance (batch, band, height, width): ``original``, ``corrupted``, ``restored``, and ``filled``, the
            original with its hidden pixels restored; ``valid`` (batch, 1, height, width), bool.
        """
        self.seed_step(batch_idx)
        image, valid = self.standardised(batch)
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
        found = {name: self.to_reflectance(values) for name, values in images.items()}
        data_range = RANGE_IN_STD * self.normalize.std
        for sums, name in zip(self.errors, ('restored', 'corrupted'), strict=True):
            sums += error_sums(found[name], found['original'], hidden & valid, data_range)
        return found | {'valid': valid}

    def on_validation_start(self) -> None:
        """See that there is something to validate.

        Raises:
            ConfigurationError: If the task is neither trained nor loaded.
        """
        self.check_trained()

    def on_validation_epoch_start(self) -> None:
        """Start adding up."""
        self.errors.zero_()

    def on_validation_epoch_end(self) -> None:
        """Log PSNR and SSIM."""
        sums = self.errors
        if self.trainer.world_size > 1:
            sums = self.trainer.strategy.reduce(sums, reduce_op='sum')
        names = self._provenance.get('bands') or [f'band_{n}' for n in range(1, sums.shape[-1] + 1)]
        restored, given = (psnr_and_ssim(part) for part in sums)
        for score, values, reached in zip(('psnr', 'ssim'), restored, given, strict=True):
            for name, value in zip(names, values.tolist(), strict=True):
                self.log(f'val_{score}_{name}', value)
            self.log(f'val_{score}_given', reached.mean())
            self.log(f'val_{score}', values.mean(), prog_bar=True)

    def configure_callbacks(self) -> list[Callback]:
        """Collapse is watched, and the run folder filled, whatever command line starts the task."""
        return [CollapseMonitor(self.collapse_patience), RestorationFolder()]
