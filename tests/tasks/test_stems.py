"""The stem of a task: chosen from the data, saved, resumed, handed over."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tasks.conftest import TinyData, make_trainer
from torchgeo_msssl.errors import ConfigurationError, WeightsError
from torchgeo_msssl.evaluation.encoders import baselines, given_encoders
from torchgeo_msssl.models.stems import stem_of
from torchgeo_msssl.models.weights import export_encoder, load_network, read_source
from torchgeo_msssl.tasks import BYOL, Reconstruction, Segmentation, SimCLR, SubimageOverlap

SMALL = {'model': 'test_resnet', 'in_channels': 4, 'hidden_dim': 16, 'output_dim': 8}


def fit(task: Any, folder: Path, steps: int = 1, checkpoint: Path | None = None) -> Path:
    trainer = make_trainer(folder, steps)
    trainer.fit(task, datamodule=TinyData(), ckpt_path=checkpoint, weights_only=False if checkpoint else None)
    trainer.save_checkpoint(folder / 'last.ckpt')
    return folder / 'last.ckpt'


def test_auto_follows_the_views_and_resumes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    task = BYOL(stem='auto', **SMALL)
    assert stem_of(task.model) == 'standard'
    with caplog.at_level(logging.WARNING):
        checkpoint = fit(task, tmp_path)  # chips of 32 px
    assert 'last feature map' not in caplog.text
    assert stem_of(task.model) == stem_of(task.momentum_encoder.encoder) == 'small'
    resumed = BYOL(stem='auto', augmentation={'size': 64}, **SMALL)  # would choose medium
    fit(resumed, tmp_path / 'resumed', 2, checkpoint)
    assert stem_of(resumed.model) == 'small'
    with pytest.raises(WeightsError, match=r"checkpoint has stem 'small', not 'standard'; set model.stem to small"):
        fit(BYOL(stem='standard', **SMALL), tmp_path / 'other', 2, checkpoint)
    loaded = BYOL.load_from_checkpoint(checkpoint).eval()
    image = torch.rand(1, 4, 32, 32)
    assert torch.equal(loaded(image), task.eval()(image))


def test_the_stem_travels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Checkpoint → safetensors → further pretraining, segmentation, probe and its random partner."""
    checkpoint = fit(SimCLR(stem='medium', **SMALL), tmp_path)
    weights = tmp_path / 'encoder.safetensors'
    export_encoder(checkpoint, weights)
    metadata = read_source(weights).metadata
    assert metadata is not None
    assert metadata.stem == 'medium'

    further = SimCLR(weights=str(weights), **SMALL)
    fit(further, tmp_path / 'further')
    assert stem_of(further.model) == 'medium'
    fit(further, tmp_path / 'again', 2)  # continues, without weights
    assert stem_of(further.model) == 'medium'
    with pytest.raises(WeightsError, match="trained with stem 'medium' and the network has 'small'"):
        fit(SimCLR(weights=str(weights), stem='small', **SMALL), tmp_path / 'wrong')

    data: Any = TinyData()
    (given,) = given_encoders({'ours': str(weights)}, data, 'resnet18', 'cpu')
    assert given.details['stem'] == 'medium'
    others = baselines(data, [given], 'resnet18', 1, 'cpu')
    assert given.partner in [one.name for one in others]
    assert 'medium stem' in str(given.partner)


def test_segmentation_takes_the_stem_of_the_weights(tmp_path: Path) -> None:
    weights = tmp_path / 'encoder.safetensors'
    export_encoder(fit(SimCLR(stem='small', **SMALL), tmp_path), weights)
    options: dict[str, Any] = {'backbone': 'test_resnet', 'in_channels': 4, 'num_classes': 2}
    task = Segmentation(weights=str(weights), **options)
    task.resolve_stem(task.weights, 32)
    assert (stem_of(task.encoder), task.stride) == ('small', 8)
    by_size = Segmentation(stem='auto', **options)
    by_size.resolve_stem(None, 64)
    assert (stem_of(by_size.encoder), by_size.stride) == ('medium', 16)
    fixed = Segmentation(stem='auto', model='unetplusplus', **options)
    fixed.resolve_stem(None, 32)
    assert stem_of(fixed.encoder) == 'standard'
    with pytest.raises(ConfigurationError, match='unetplusplus assumes the standard strides'):
        Segmentation(stem='small', model='unetplusplus', **options)
    with pytest.raises(ConfigurationError, match='stem: expected one of auto, standard, medium, small'):
        Segmentation(stem='tiny', **options)


def test_whole_network_of_a_reconstruction(tmp_path: Path) -> None:
    task = Reconstruction(model='test_resnet', in_channels=4, architecture='fpn', stem='auto')
    checkpoint = fit(task, tmp_path)
    assert task.stride == 8
    image = torch.rand(1, 4, 24, 40)
    restored, _ = task.eval().predict_hidden(image, image)
    assert restored.shape == image.shape
    start = Segmentation('fpn', 'test_resnet', str(checkpoint), 4, 2, transfer='network')
    start.resolve_stem(start.weights, 32)
    assert stem_of(start.encoder) == 'small'
    load_network(start.model, checkpoint)
    features = start.eval().model.encoder(image)[-1]
    torch.testing.assert_close(features.mean((2, 3)), task.predict_hidden(image, image)[1], rtol=1e-5, atol=1e-5)


def test_small_maps_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        fit(SimCLR(**SMALL), tmp_path)
    assert 'images of 32 px is 1×1 (stride 32, stem standard)' in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        fit(SimCLR(augmentation={'size': 128}, **SMALL), tmp_path)  # views of four times the chip's side
    assert 'last feature map' not in caplog.text


def test_overlap_of_subimages_with_another_stem() -> None:
    task = SubimageOverlap(model='test_resnet', in_channels=4, architecture='fpn', stem='medium')
    assert task.stride == 16
    image, valid = torch.rand(2, 4, 32, 32), torch.ones(2, 1, 16, 16, dtype=torch.bool)
    logits, _ = task.predict_overlap(image, image[..., :16, :16], valid)
    assert logits.shape == (2, 2, 32, 32)
