"""Which data modules and tasks satisfy the protocols."""

from types import SimpleNamespace
from typing import Any

import pytest
from torchgeo.datamodules import EuroSATDataModule

from torchgeo_msssl.contract import (
    LabelledData,
    PredictionData,
    PretrainingData,
    SpectralData,
    spectral_data,
)
from torchgeo_msssl.datamodules import PretrainingDataModule, SegmentationDataModule
from torchgeo_msssl.errors import ConfigurationError


def test_our_data_modules_satisfy_the_protocols() -> None:
    pretraining, segmentation = PretrainingDataModule('absent.tif'), SegmentationDataModule()
    for protocol in (SpectralData, PredictionData):  # nothing is opened to find out
        assert isinstance(pretraining, protocol)
        assert isinstance(segmentation, protocol)
    assert isinstance(pretraining, PretrainingData)
    assert not isinstance(pretraining, LabelledData)
    assert isinstance(segmentation, LabelledData)
    assert not isinstance(segmentation, PretrainingData)


def test_the_attached_data_module_is_found() -> None:
    data = PretrainingDataModule('absent.tif')
    trainer: Any = SimpleNamespace(datamodule=data)
    assert spectral_data(trainer) is data
    for foreign in (None, EuroSATDataModule()):
        trainer.datamodule = foreign
        assert spectral_data(trainer) is None
    assert spectral_data(None) is None


def test_half_a_data_module_is_refused() -> None:
    trainer: Any = SimpleNamespace(datamodule=SimpleNamespace(bands=('B02',), sensor_name=None, in_channels=1))
    with pytest.raises(ConfigurationError, match='SimpleNamespace has bands and sensor_name and lacks wavelengths, '):
        spectral_data(trainer)
