"""Base of all pretraining tasks: encoder, optimizer, schedule, momentum encoders, checkpoints."""

import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, cast

from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from torchgeo_msssl.contract import SpectralData
from torchgeo_msssl.errors import WeightsError
from torchgeo_msssl.models.encoders import create_encoder
from torchgeo_msssl.models.metadata import EncoderMetadata
from torchgeo_msssl.models.momentum import MomentumEncoder
from torchgeo_msssl.models.stems import Stem, set_stem, small_map_warning
from torchgeo_msssl.models.weights import CHECKPOINT_KEY, load_encoder
from torchgeo_msssl.tasks.collapse import CollapseMonitor
from torchgeo_msssl.tasks.encoder_training import EncoderTraining
from torchgeo_msssl.tasks.optimizers import ParameterGroup, create_optimizer, parameter_groups
from torchgeo_msssl.tasks.run_folder import RunFolder
from torchgeo_msssl.transforms.normalize import Normalize

log = logging.getLogger(__name__)


class PretrainingTask(EncoderTraining):
    """A task that trains an encoder without labels.

    The encoder is ``self.model`` and ``hparams['model']`` its timm name, so that the checkpoint itself loads in
    TorchGeo's own tasks; no other attribute's name contains ``model.``. Any :class:`MomentumEncoder` that is an
    attribute of the task is updated after each optimizer step.

    Attributes:
        method: Name of the method, for the encoder's metadata.
        betas: Coefficients of Adam and AdamW.
    """

    method: str
    betas: tuple[float, float] = (0.9, 0.999)
    #: Titles of the pictures of :meth:`shown_views`; empty for view 1, view 2 and so on.
    view_titles: Sequence[str] = ()

    def __init__(
        self,
        model: str = 'resnet18',
        in_channels: int = 12,
        weights: str | None = None,
        collapse_patience: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Build the networks.

        Args:
            model: timm name of the encoder.
            in_channels: Number of bands (this package's command line takes it from the data).
            weights: Starting weights of the encoder: a checkpoint, a safetensors file, the name of a TorchGeo weight,
                ``imagenet``, or None for random weights.
            collapse_patience: Stop after this many consecutive epochs of collapse; None only warns.
            **kwargs: The options of :class:`~torchgeo_msssl.tasks.EncoderTraining`.

        Raises:
            ConfigurationError: If an option is out of its range.
        """
        # set before BaseTask.__init__, which calls configure_models; under a CLI, hparams hold the file's values,
        # before links were applied
        self._encoder_arguments = (model, in_channels)
        self.weights = weights
        self.collapse_patience = collapse_patience
        super().__init__(**kwargs)
        self.hparams.update({'model': model, 'in_channels': in_channels})

    def configure_models(self) -> None:
        """Build encoder and normalization, then the method's own networks."""
        name, in_channels = self._encoder_arguments
        self.model = create_encoder(name, in_channels)
        self.normalize = Normalize(in_channels)
        self.configure_heads()

    @abstractmethod
    def configure_heads(self) -> None:
        """Build the method's networks besides the encoder."""

    @abstractmethod
    def compute_loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the loss of a batch.

        Args:
            batch: ``image`` (batch, band, height, width) in digital numbers, ``valid``, ``scale``, ``offset``.

        Returns:
            ``(loss, features, embedding)``: a scalar, pooled features (n, features), and the embedding that is
            monitored for collapse (n, dimension).
        """

    def shown_views(self, batch: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Return the views of a batch that ``views.png`` shows.

        Args:
            batch: A batch of chips.

        Returns:
            Reflectance (batch, band, height, width) and valid pixels (batch, 1, height, width) of each view.
        """
        return []

    @property
    def trained_modules(self) -> Sequence[nn.Module]:
        """Modules whose parameters follow the schedule."""
        return [module for name, module in self.named_children() if name != 'normalize']

    @property
    def momentum_encoders(self) -> list[MomentumEncoder]:
        """Momentum encoders of the task."""
        return [module for module in self.children() if isinstance(module, MomentumEncoder)]

    @property
    def encoder(self) -> nn.Module:
        """The encoder, a timm network."""
        return cast(nn.Module, self.model)

    def apply_stem(self, stem: Stem) -> None:
        """Change the stem of the encoder and of its moving averages."""
        for encoder in (self.encoder, *(average.encoder for average in self.momentum_encoders)):
            set_stem(encoder, stem)

    def input_size(self, data: SpectralData) -> int:
        """Side of the encoder's input in training, in pixels."""
        return data.chip_size

    def parameter_groups(self) -> list[ParameterGroup]:
        """Parameter groups of the optimizer."""
        return parameter_groups(self.trained_modules, self.weight_decay)

    def setup(self, stage: str) -> None:
        """Take over bands and statistics from the data module, and load the starting weights.

        Raises:
            BandError: If the data module has another number of bands than the encoder.
            ConfigurationError: If data and method do not fit.
        """
        data = self.attached_data()
        if data is None or stage != 'fit':  # the checkpoint has everything else
            return
        self.take_data(data)
        size = self.input_size(data)
        self.resolve_stem(self.weights, size)
        if warning := small_map_warning(self.encoder, self.hparams['model'], size):
            # who names a stem has weighed its cost against the size of the map
            log.log(logging.WARNING if self.stem in (None, 'auto') else logging.INFO, '%s', warning)
        if self.weights is not None:
            report = load_encoder(self.model, self.weights, bands=data.bands, sensor=data.sensor_name)
            log.info('%s', report)
            self.weights = None  # only once: a second fit continues from the first
            for average in self.momentum_encoders:
                average.restart()

    def metadata(self) -> EncoderMetadata:
        """Return the metadata of the encoder."""
        return self.metadata_of(self.method, self.hparams['model'])

    def forward(self, x: Tensor) -> Tensor:
        """Embed images.

        Args:
            x: Digital numbers (batch, band, height, width); :attr:`normalize` is applied.

        Returns:
            Pooled embedding (batch, features).
        """
        return cast(Tensor, self.model(self.normalize(x)))

    # Training.

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Compute and log the loss of a batch.

        Returns:
            ``loss``, and the ``features`` and ``embedding`` that :class:`CollapseMonitor` monitors.

        Raises:
            NonFiniteLossError: If the loss is NaN or infinite.
        """
        self.seed_step(self.trainer.fit_loop.total_batch_idx)
        loss, features, embedding = self.compute_loss(batch)
        self.check_finite(loss, batch)
        size = len(batch['image'])
        self.log('train_loss', loss, on_step=True, on_epoch=True, prog_bar=True, sync_dist=True, batch_size=size)
        return {'loss': loss, 'features': features.detach(), 'embedding': embedding.detach()}

    def after_step(self) -> None:
        """Update the momentum encoders."""
        for average in self.momentum_encoders:
            average.update(self.global_step, cast(int, self._total_steps))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build the optimizer and a cosine schedule with warm-up, both stepped once per batch."""
        optimizer = create_optimizer(self.optimizer, self.parameter_groups(), self.lr, self.momentum, self.betas)
        return self.with_cosine_schedule(optimizer)

    def configure_callbacks(self) -> list[Callback]:
        """Monitor collapse and fill the run folder, under any command line."""
        return [CollapseMonitor(self.collapse_patience), RunFolder()]

    # Checkpoints.

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the encoder's metadata."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[CHECKPOINT_KEY] = self.metadata().to_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the provenance of the data.

        Raises:
            WeightsError: If method, encoder, stem, tensors or bands of the checkpoint differ from those of the task.
        """
        saved = checkpoint.get(CHECKPOINT_KEY, {})
        model = checkpoint.get('hyper_parameters', {}).get('model')
        self._check_same(saved.get('method'), model, saved.get('bands') or [])
        self._check_shapes(checkpoint.get('state_dict', {}))
        super().on_load_checkpoint(checkpoint)
        self.restore_provenance(saved)

    def _check_same(self, method: str | None, model: str | None, bands: Sequence[str]) -> None:
        if method is not None and method != self.method:
            raise WeightsError(
                f'ckpt_path: the checkpoint is of {method}, not {self.method}; set model.class_path to its method, or '
                'start a new run with its encoder as model.weights.'
            )
        own_model, own_bands = self.hparams['model'], self._data_bands
        if model is not None and model != own_model:
            raise WeightsError(
                f'ckpt_path: the checkpoint is of a {model}, not a {own_model}; set model.model to {model}.'
            )
        if own_bands and bands and list(own_bands) != list(bands):
            raise WeightsError(
                f'ckpt_path: the checkpoint is of the bands {", ".join(bands)}, the data have {", ".join(own_bands)}; '
                f'set data.bands to [{", ".join(bands)}], or start a new run with its encoder as model.weights.'
            )

    def _check_shapes(self, tensors: Mapping[str, Tensor]) -> None:
        own = {name: tuple(tensor.shape) for name, tensor in self.state_dict().items()}
        given = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        different = [name for name in sorted({*own, *given}) if own.get(name) != given.get(name)]
        if different:
            name = different[0]
            raise WeightsError(
                f'ckpt_path: {len(different)} tensors of the checkpoint are not those of the task; the first, {name}, '
                f'is {given.get(name, "missing")} there and {own.get(name, "missing")} here. Set the options of the '
                'run that wrote it (its config.yaml).'
            )
