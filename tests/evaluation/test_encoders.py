"""Sources of encoders: exactly those weights, with the normalisation that came with them."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torchgeo.models import ResNet18_Weights

from torchgeo_msssl.datamodules import PretrainingDataModule
from torchgeo_msssl.errors import ConfigurationError, WeightsError
from torchgeo_msssl.evaluation import encoders
from torchgeo_msssl.evaluation.encoder_names import encoder_name
from torchgeo_msssl.evaluation.encoders import (
    baselines,
    check_local,
    given_encoders,
    random_encoder,
    transfer,
)
from torchgeo_msssl.models.encoders import create_encoder
from torchgeo_msssl.models.metadata import EncoderMetadata
from torchgeo_msssl.models.weights import save_encoder

Make = Callable[..., str]
BANDS = ('B02', 'B03')


@pytest.fixture
def data(make_scene: Make) -> PretrainingDataModule:
    image = np.random.default_rng(0).integers(100, 3000, (2, 64, 64)).astype(np.uint16)
    module = PretrainingDataModule(make_scene('T31TFJ_20210601.tif', image, names=BANDS), chip_size=32)
    module.find_statistics()
    return module


def saved(path: Path, bands: tuple[str, ...] = BANDS, **options: Any) -> tuple[str, torch.nn.Module]:
    torch.manual_seed(7)
    network = create_encoder('test_resnet', len(bands))
    constants = {'mean': (0.5,) * len(bands), 'std': (0.25,) * len(bands)} | options
    save_encoder(network, path, EncoderMetadata('fastsiam', 'test_resnet', bands, sensor='sentinel2_l2a', **constants))
    return str(path), network


def batch_of(values: torch.Tensor) -> dict[str, torch.Tensor]:
    constants = {'scale': torch.full((len(values), 2), 1e-4), 'offset': torch.zeros(len(values), 2)}
    return {'image': values, 'valid': torch.ones(len(values), 1, 32, 32, dtype=torch.bool)} | constants


def test_an_encoder_embeds_as_it_was_trained(tmp_path: Path, data: PretrainingDataModule) -> None:
    source, network = saved(tmp_path / 'e.safetensors')
    loaded = transfer(source, data)
    assert (loaded.model, loaded.statistics, len(loaded.report.missing)) == ('test_resnet', 'weights', 0)
    image = torch.randint(0, 4000, (3, 2, 32, 32)).to(torch.uint16)
    with torch.no_grad():
        expected = network.eval()((image.float() * 1e-4 - 0.5) / 0.25)
        torch.testing.assert_close(loaded.embed(batch_of(image)), expected, rtol=1e-4, atol=1e-5)


def test_statistics_of_other_bands_are_those_of_the_data(tmp_path: Path, data: PretrainingDataModule) -> None:
    loaded = transfer(saved(tmp_path / 'e.safetensors', ('B02', 'B8A'))[0], data)
    assert loaded.statistics == 'data'
    assert loaded.normalize.mean.tolist() == pytest.approx(data.mean)
    assert loaded.report.dropped_bands == ('B8A',)


def test_what_does_not_tell_its_network_needs_a_name(tmp_path: Path, data: PretrainingDataModule) -> None:
    with pytest.raises(ConfigurationError, match='timm name'):
        transfer(None, data)
    assert transfer(None, data, 'test_resnet').report.source == 'random initialisation'
    with pytest.raises(WeightsError, match='neither a file'):
        given_encoders({'x': str(tmp_path / 'nothing.ckpt')}, data, 'test_resnet', 'cpu')


def test_baselines_are_the_same_every_time(data: PretrainingDataModule) -> None:
    image = torch.randint(0, 4000, (3, 2, 32, 32), generator=torch.Generator().manual_seed(0)).to(torch.uint16)
    state = torch.get_rng_state()
    twice = [baselines(data, [], 'test_resnet', 2, 'cpu') for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), state)
    random = [*['random convolutions'] * 2, *['random initialisation (test_resnet)'] * 2]
    names = ['band statistics', 'texture statistics', *random]
    assert [encoder.name for encoder in twice[0]] == names
    assert [encoder.seed for encoder in twice[0]] == [None, None, 0, 1, 0, 1]
    with torch.no_grad():
        found = [[encoder.embed(batch_of(image)) for encoder in some] for some in twice]
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    assert not torch.equal(found[0][2], found[0][3])
    assert not torch.equal(found[0][4], found[0][5])
    # two bands of one group: 2 bands, 1 index, 16 textures, of which mean and standard deviation
    assert [value.shape[1] for value in found[0]] == [4, 38, 512, 512, 96, 96]


def test_texture_statistics_begin_with_those_of_the_bands(data: PretrainingDataModule) -> None:
    """Invalid pixels count in neither."""
    image = torch.randint(0, 4000, (3, 2, 32, 32), generator=torch.Generator().manual_seed(0))
    valid = torch.zeros(3, 1, 32, 32, dtype=torch.bool)
    valid[..., 5:20, 8:] = True
    batch = batch_of(image.to(torch.uint16)) | {'valid': valid}
    (found,) = (one for one in baselines(data, [], 'test_resnet', 1, 'cpu') if one.name == 'texture statistics')
    mean, std = (torch.tensor(values).float()[:, None, None] for values in (data.mean, data.std))
    part = ((image.float() * 1e-4 - mean) / std)[..., 5:20, 8:].flatten(2)
    embedded = found.embed(batch)
    torch.testing.assert_close(embedded[:, :2], part.mean(dim=2), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(embedded[:, 19:21], part.std(dim=2, correction=0), rtol=1e-4, atol=1e-4)


def test_random_convolutions_are_rectified_means(data: PretrainingDataModule) -> None:
    """Transcribed: filters of the standard normal distribution, bias −1, means of both signs."""
    image = torch.randint(0, 4000, (2, 2, 32, 32)).to(torch.uint16)
    filters = torch.randn(256, 2, 3, 3, generator=torch.Generator().manual_seed(1))
    mean, std = (torch.tensor(values).float()[:, None, None] for values in (data.mean, data.std))
    answer = torch.nn.functional.conv2d((image.float() * 1e-4 - mean) / std, filters) - 1
    expected = torch.cat([answer.clamp_min(0).mean((2, 3)), (-answer).clamp_min(0).mean((2, 3))], dim=1)
    (found,) = (one for one in baselines(data, [], 'test_resnet', 1, 'cpu') if one.name == 'random convolutions')
    torch.testing.assert_close(found.embed(batch_of(image)), expected, rtol=1e-4, atol=1e-5)


def test_a_given_encoder_has_a_partner_with_its_normalisation(tmp_path: Path, data: PretrainingDataModule) -> None:
    sources = {
        'ours': saved(tmp_path / 'a.safetensors')[0],
        'again': saved(tmp_path / 'b.safetensors')[0],
        'plain': saved(tmp_path / 'c.safetensors', mean=tuple(data.mean), std=tuple(data.std))[0],
    }
    given = given_encoders(sources, data, 'test_resnet', 'cpu')
    own = 'random initialisation (test_resnet)'
    assert [one.partner for one in given] == [f'{own} normalised as ours', f'{own} normalised as ours', own]
    found = {one.name: one for one in baselines(data, given, 'test_resnet', 1, 'cpu')}
    untrained = ['band statistics', 'texture statistics', 'random convolutions']
    assert list(found) == [*untrained, own, f'{own} normalised as ours']
    assert [one.details['statistics'] for one in found.values()] == ['data'] * 4 + ['weights']
    image = torch.randint(0, 4000, (3, 2, 32, 32)).to(torch.uint16)
    network = random_encoder('test_resnet', data, 0)
    with torch.no_grad():
        expected = network((image.float() * 1e-4 - 0.5) / 0.25)
        torch.testing.assert_close(found[f'{own} normalised as ours'].embed(batch_of(image)), expected)


def test_random_weights_are_those_of_the_seed(data: PretrainingDataModule) -> None:
    torch.manual_seed(5)
    expected = create_encoder('test_resnet', 2).state_dict()
    found = random_encoder('test_resnet', data, 5).state_dict()
    assert all(torch.equal(found[key], value) for key, value in expected.items())


@pytest.mark.parametrize(
    ('source', 'name'),
    [
        ('runs/fastsiam_s2/version_3/checkpoints/last.ckpt', 'fastsiam_s2/version_3'),
        ('runs/fastsiam_s2/version_3/checkpoints/best.ckpt', 'fastsiam_s2/version_3/best'),
        ('/data/runs/a/version_0/encoder.safetensors', 'a/version_0'),
        ('weights/ours.safetensors', 'ours'),
        ('imagenet', 'imagenet'),
        ('ResNet18_Weights.SENTINEL2_ALL_MOCO', 'ResNet18_Weights.SENTINEL2_ALL_MOCO'),
    ],
)
def test_names(source: str, name: str) -> None:
    assert encoder_name(source) == name


def test_nothing_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    name = 'ResNet18_Weights.SENTINEL2_ALL_MOCO'
    with pytest.raises(WeightsError, match='not on this machine'):
        check_local(name, 'test_resnet')
    (tmp_path / 'checkpoints').mkdir()
    url = ResNet18_Weights.SENTINEL2_ALL_MOCO.url
    (tmp_path / 'checkpoints' / url.rsplit('/', 1)[1]).write_bytes(b'')
    check_local(name, 'test_resnet')
    monkeypatch.setattr(
        encoders.timm, 'get_pretrained_cfg', lambda _: SimpleNamespace(file='', hf_hub_id='', url='x/y')
    )
    with pytest.raises(WeightsError, match='ImageNet weights of test_resnet are not on this machine'):
        check_local('imagenet', 'test_resnet')
    (tmp_path / 'checkpoints' / 'y').write_bytes(b'')
    check_local('imagenet', 'test_resnet')
    check_local(str(tmp_path / 'y'), 'test_resnet')
    monkeypatch.setattr(
        encoders.timm, 'get_pretrained_cfg', lambda _: SimpleNamespace(file='', hf_hub_id='timm/x', url='')
    )
    monkeypatch.setattr(encoders, 'try_to_load_from_cache', lambda repo, name: None)
    with pytest.raises(WeightsError, match='ImageNet weights of test_resnet are not on this machine'):
        check_local('imagenet', 'test_resnet')
    monkeypatch.setattr(encoders, 'try_to_load_from_cache', lambda repo, name: f'{repo}/{name}')
    check_local('imagenet', 'test_resnet')
