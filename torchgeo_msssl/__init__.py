"""Self-supervised pretraining on multispectral scenes for TorchGeo."""

__version__ = '0.1.0'
