import copy
import functools
import json
import os
import pickle
import subprocess
import sys
import warnings

import pytest
import safetensors
import segmentation_models_pytorch as smp
import timm
import torch
from torch import nn

import torchgeo_msssl
from tests.marks import first_fast
from torchgeo_msssl.errors import BandError, OutputError, WeightsError
from torchgeo_msssl.models import (
    EncoderMetadata,
    create_encoder,
    export_encoder,
    input_layer,
    load_encoder,
    read_source,
    save_encoder,
)
from torchgeo_msssl.models.matching import Spectrum, adapt_kernel, align_keys, match_bands
from torchgeo_msssl.models.weights import CHECKPOINT_KEY, load_network

BANDS = ('B02', 'B03', 'B04', 'B08')
WAVELENGTHS = (492.4, 559.8, 664.6, 832.8)
SWIN, VIT = 'swin_tiny_patch4_window7_224', 'vit_small_patch16_224'


@functools.cache
def trained(name):
    """An encoder of four bands in which every tensor, running statistics included, is like no initialisation."""
    encoder = create_encoder(name, 4).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for key, tensor in encoder.state_dict().items():
            if key.endswith('running_var'):
                tensor.add_(torch.rand(tensor.shape, generator=generator))
            elif tensor.is_floating_point():
                tensor.add_(0.02 * torch.randn(tensor.shape, generator=generator))
            elif key.endswith('num_batches_tracked'):
                tensor.add_(1)
    return encoder


def metadata(name='resnet18', bands=BANDS, **options):
    count = len(bands)
    return EncoderMetadata(
        'fastsiam',
        name,
        bands,
        WAVELENGTHS if bands == BANDS else (),
        [1e-4] * count,
        [-1000.0] * count,
        [0.1 * i for i in range(count)],
        [0.25] * count,
        chip_size=64,
        **options,
    )


def exported(tmp_path, encoder, name='resnet18', bands=BANDS, sensor='sentinel2_l2a'):
    path = tmp_path / 'encoder.safetensors'
    save_encoder(encoder, path, metadata(name, bands, sensor=sensor))
    return path


def checkpoint(tmp_path, encoder, name='resnet18', **changes):
    """A file with the layout that our pretraining tasks leave behind."""
    state_dict = {f'model.{key}': value for key, value in encoder.state_dict().items()}
    for key in ('mean', 'std', 'scale', 'offset'):
        state_dict[f'normalize.{key}'] = torch.ones(4)
    state_dict['projection_head.layers.0.weight'] = torch.ones(8, 512)
    content = {
        'hyper_parameters': {'model': name, 'in_channels': 4},
        'state_dict': state_dict,
        'msssl': metadata(name).to_dict(),
    }
    path = tmp_path / 'last.ckpt'
    torch.save(content | changes, path)
    return path


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        assert torch.equal(found[key], tensor), key


# ------------------------------------------------------------------------------------------- write and read


@pytest.mark.parametrize('name', first_fast(['test_resnet', 'convnext_nano', SWIN, VIT]))
def test_every_tensor_survives_the_file(tmp_path, name):
    encoder = trained(name)
    path = exported(tmp_path, encoder, name)
    network = create_encoder(name, 4)
    report = load_encoder(network, path, bands=BANDS)
    assert_equal(network.state_dict(), encoder.state_dict())
    assert set(report.matched) == set(encoder.state_dict())
    assert report.missing == report.unexpected == report.reshaped == {}
    assert report.bands == dict.fromkeys(BANDS, 'copied')
    assert report.kernel_scale == 1


def test_header_is_readable_by_anybody(tmp_path):
    path = tmp_path / 'e.safetensors'
    save_encoder(trained('resnet18'), path, metadata())
    with safetensors.safe_open(path, 'pt') as file:
        header = {key: json.loads(value) for key, value in file.metadata().items() if key != 'format'}
        assert set(file.keys()) == set(timm.create_model('resnet18', num_classes=0).state_dict())
    assert header == {
        'method': 'fastsiam',
        'model': 'resnet18',
        'bands': list(BANDS),
        'wavelengths': list(WAVELENGTHS),
        'scale': [1e-4] * 4,
        'offset': [-1000] * 4,
        'mean': [0.0, 0.1, 0.2, 0.1 * 3],
        'std': [0.25] * 4,
        'sensor': None,
        'chip_size': 64,
        'pixel_size': None,
        'stem': 'standard',
        'version': torchgeo_msssl.__version__,
    }
    assert read_source(path).metadata == metadata()
    assert os.listdir(tmp_path) == ['e.safetensors']


def test_metadata_survive_plain_types_and_a_later_version():
    assert EncoderMetadata.from_dict(metadata().to_dict()) == metadata()
    assert EncoderMetadata.from_dict(metadata().to_dict() | {'invented_later': 1}) == metadata()
    with pytest.raises(WeightsError, match='model'):
        EncoderMetadata.from_dict({'method': 'fastsiam'})
    with pytest.raises(WeightsError, match='std has 2 values for 1 bands'):
        EncoderMetadata('fastsiam', 'resnet18', ('red',), std=(1.0, 2.0))


def test_wrong_band_count_and_unwritable_file_are_refused(tmp_path):
    with pytest.raises(WeightsError, match=r'2 bands .* has 4 input channels'):
        save_encoder(trained('resnet18'), tmp_path / 'e.safetensors', metadata(bands=('red', 'nir')))
    (tmp_path / 'file').write_text('')
    with pytest.raises(OutputError, match='cannot be written'):
        save_encoder(trained('resnet18'), tmp_path / 'file' / 'e.safetensors', metadata())


def test_export_of_a_training_checkpoint(tmp_path):
    encoder = trained('resnet18')
    path = tmp_path / 'encoder.safetensors'
    export_encoder(checkpoint(tmp_path, encoder), path)
    source = read_source(path)
    assert_equal(source.state_dict, encoder.state_dict())
    assert source.metadata == metadata()


@pytest.mark.slow
def test_export_of_a_segmentation_checkpoint_has_timm_names(tmp_path):
    network = smp.Unet('tu-convnext_nano', encoder_weights=None, in_channels=4, classes=2)
    path = tmp_path / 'run.ckpt'
    state_dict = {f'model.{key}': value for key, value in network.state_dict().items()}
    torch.save({'state_dict': state_dict, 'msssl': metadata('convnext_nano').to_dict()}, path)
    export_encoder(path, tmp_path / 'e.safetensors')
    exported_keys = set(read_source(tmp_path / 'e.safetensors').state_dict)
    # smp has no use for the norm behind the last feature map, so it is not there to be exported.
    assert set(create_encoder('convnext_nano', 4).state_dict()) - exported_keys == {
        'head.norm.weight',
        'head.norm.bias',
    }

    other = smp.Unet('tu-convnext_nano', encoder_weights=None, in_channels=4, classes=2)
    load_encoder(other, tmp_path / 'e.safetensors', BANDS)
    assert_equal(other.encoder.state_dict(), network.encoder.state_dict())
    with pytest.raises(WeightsError, match=r'2 tensors are missing \(head.norm.weight, head.norm.bias\)'):
        load_encoder(create_encoder('convnext_nano', 4), tmp_path / 'e.safetensors', BANDS)


def test_export_without_model_name_is_refused(tmp_path):
    path = tmp_path / 'plain.pth'
    torch.save(trained('resnet18').state_dict(), path)
    with pytest.raises(WeightsError, match='does not name the model'):
        export_encoder(path, tmp_path / 'e.safetensors')


# ------------------------------------------------------------------------------------------ whole networks


def network_checkpoint(tmp_path, network, **extra):
    state_dict = {f'model.{key}': value for key, value in network.state_dict().items()}
    state_dict |= {'normalize.mean': torch.ones(4)} | extra
    path = tmp_path / 'network.ckpt'
    torch.save({'state_dict': state_dict, 'msssl': metadata().to_dict()}, path)
    return path


def unet(classes, bands=4, backbone='resnet18', architecture=smp.FPN):
    return architecture(backbone, encoder_weights=None, in_channels=bands, classes=classes)


def test_whole_network_but_the_last_layer(tmp_path):
    source, target = unet(7), unet(14)
    before = copy.deepcopy(target.segmentation_head.state_dict())
    report = load_network(target, network_checkpoint(tmp_path, source), BANDS)
    assert_equal(target.encoder.state_dict(), source.encoder.state_dict())
    assert_equal(target.decoder.state_dict(), source.decoder.state_dict())
    assert_equal(target.segmentation_head.state_dict(), before)
    head = {f'segmentation_head.{key}' for key in before}
    assert set(report.missing) == set(report.unexpected) == head
    assert set(report.matched) == target.state_dict().keys() - head
    assert all('replaced' in why for why in report.missing.values())
    assert 'replaced' in str(report)


def test_whole_network_with_its_last_layer(tmp_path):
    source, target = unet(3), unet(3)
    report = load_network(target, network_checkpoint(tmp_path, source), BANDS, replace=())
    assert_equal(target.state_dict(), source.state_dict())
    assert not report.missing
    with pytest.raises(WeightsError, match='have another shape'):
        load_network(unet(4), tmp_path / 'network.ckpt', BANDS, replace=())


def test_bands_of_a_whole_network_are_matched_by_name(tmp_path):
    source, target = unet(2).eval(), unet(2).eval()
    load_network(target, network_checkpoint(tmp_path, source), BANDS[::-1], replace=())
    image = torch.rand(1, 4, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(target(image.flip(1)), source(image), rtol=1e-5, atol=1e-5)
    report = load_network(unet(2, bands=2), tmp_path / 'network.ckpt', ('B08', 'B04'))
    assert report.dropped_bands == ('B02', 'B03')


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'backbone': 'resnet34'}, 'tensors are missing'),
        ({'architecture': smp.UPerNet}, 'does not fit'),
        ({'backbone': 'tu-convnext_nano'}, 'does not fit'),
    ],
)
def test_other_networks_are_refused_and_left_alone(tmp_path, options, message):
    target = unet(2, **options)
    before = copy.deepcopy(target.state_dict())
    with pytest.raises(WeightsError, match=message):
        load_network(target, network_checkpoint(tmp_path, unet(2)), BANDS)
    assert_equal(target.state_dict(), before)


def test_nothing_of_a_whole_network_may_be_left_over(tmp_path):
    for key in ('model.classification_head.3.weight', 'model.decoder.extra.weight', 'model.fc.weight'):
        path = network_checkpoint(tmp_path, unet(2), **{key: torch.ones(2)})
        with pytest.raises(WeightsError, match='unexpected'):
            load_network(unet(2), path, BANDS)


def test_what_is_no_whole_network(tmp_path):
    encoder = trained('resnet18')
    for path in (checkpoint(tmp_path, encoder), exported(tmp_path, encoder)):
        with pytest.raises(WeightsError, match='no whole segmentation network'):
            load_network(unet(2), path, BANDS)
    with pytest.raises(WeightsError, match='there is no file'):
        load_network(unet(2), tmp_path / 'missing.ckpt', BANDS)
    with pytest.raises(WeightsError, match='has no head; its parts are'):
        load_network(unet(2), network_checkpoint(tmp_path, unet(2)), BANDS, replace=('head',))


# ------------------------------------------------------------------------------------ hand-over to networks


def last_feature(network, image):
    features = network.encoder(image)
    return features[0][-1] if isinstance(features, tuple) else features[-1]  # smp's ViT gives prefix tokens too


@pytest.mark.slow
@pytest.mark.parametrize(
    ('architecture', 'backbone', 'name', 'size', 'options'),
    [
        (smp.Unet, 'resnet18', 'resnet18', 64, {}),
        (smp.Unet, 'resnet50', 'resnet50', 64, {}),
        (smp.DeepLabV3Plus, 'tu-resnet18', 'resnet18', 64, {'encoder_output_stride': 32}),
        (smp.Unet, 'tu-resnet50d', 'resnet50d', 64, {}),
        (smp.Unet, 'tu-convnext_nano', 'convnext_nano', 64, {}),
        (smp.UPerNet, 'tu-convnext_nano', 'convnext_nano', 64, {}),
        (smp.Unet, f'tu-{SWIN}', SWIN, 224, {}),
        (smp.UPerNet, f'tu-{SWIN}', SWIN, 96, {'dynamic_img_size': True}),
        (smp.DPT, f'tu-{VIT}', VIT, 224, {}),
        (smp.DPT, f'tu-{VIT}', VIT, 64, {'dynamic_img_size': True}),
    ],
)
def test_segmentation_network_sees_what_the_encoder_saw(tmp_path, architecture, backbone, name, size, options):
    if architecture is smp.DeepLabV3Plus:
        options = {}  # its last stage is dilated, so only the tensors are compared
    encoder = trained(name)
    path = exported(tmp_path, encoder, name)
    network = architecture(backbone, encoder_weights=None, in_channels=4, classes=2, **options).eval()
    report = load_encoder(network, path, bands=BANDS)

    flat = {key.replace('.', '_'): value for key, value in encoder.state_dict().items()}
    found = {key.removeprefix('model.').replace('.', '_'): v for key, v in network.encoder.state_dict().items()}
    heads = {'head_weight', 'head_bias'}
    assert found.keys() - heads <= flat.keys()
    for key in found.keys() - heads:
        assert torch.equal(found[key], flat[key]), key
    assert len(report.matched) == len(found.keys() - heads)
    assert len(report.matched) + len(report.unexpected) == len(flat)
    assert report.model == name

    if architecture is not smp.DeepLabV3Plus:
        image = torch.rand(2, 4, size, size)
        with torch.no_grad():
            seen, expected = last_feature(network, image), encoder.forward_features(image)
            if name == SWIN:  # timm ends with a norm, channels last; smp takes the map before it
                seen = encoder.norm(seen.permute(0, 2, 3, 1))
            if name == VIT:
                seen, expected = encoder.norm(seen.flatten(2).mT), expected[:, encoder.num_prefix_tokens :]
        torch.testing.assert_close(seen, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_what_smp_does_not_take_is_said(tmp_path):
    path = exported(tmp_path, trained('convnext_nano'), 'convnext_nano')
    network = smp.Unet('tu-convnext_nano', encoder_weights=None, in_channels=4)
    report = load_encoder(network, path, BANDS)
    assert set(report.unexpected) == {'head.norm.weight', 'head.norm.bias'}
    assert 'after the last feature map' in report.unexpected['head.norm.weight']

    dpt = smp.DPT(f'tu-{VIT}', encoder_weights=None, in_channels=4)
    report = load_encoder(dpt, exported(tmp_path, trained(VIT), VIT), BANDS)
    assert set(report.missing) == {'head.weight', 'head.bias'}
    assert 'classifier' in report.missing['head.weight']


def test_classifiers_are_never_handed_over(tmp_path):
    classifier = timm.create_model('resnet18', in_chans=4, num_classes=7)
    torch.save(classifier.state_dict(), tmp_path / 'c.pth')
    report = load_encoder(create_encoder('resnet18', 4), tmp_path / 'c.pth')
    assert set(report.unexpected) == {'fc.weight', 'fc.bias'}

    other = timm.create_model('resnet18', in_chans=4, num_classes=7)
    before = other.fc.weight.clone()
    report = load_encoder(other, tmp_path / 'c.pth')
    assert torch.equal(other.fc.weight, before)
    assert torch.equal(other.conv1.weight, classifier.conv1.weight)
    assert set(report.missing) == {'fc.weight', 'fc.bias'}


def test_report_can_be_printed_and_kept(tmp_path):
    network = smp.Unet('tu-convnext_nano', encoder_weights=None, in_channels=3)
    path = exported(tmp_path, trained('convnext_nano'), 'convnext_nano')
    report = load_encoder(network, path, bands=('B02', 'B03', 'B05'))
    text = str(report)
    for part in (str(path), 'convnext_nano', '142 tensors', 'B02, B03: copied', 'B05: new', 'dropped: B04, B08'):
        assert part in text
    assert json.loads(json.dumps(report.to_dict())) == report.to_dict()
    assert report.to_dict()['dropped_bands'] == ['B04', 'B08']


def test_nothing_is_loaded_for_none():
    network = create_encoder('resnet18', 4)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    report = load_encoder(network, None)
    assert_equal(network.state_dict(), before)
    assert report.source == 'random initialisation'
    assert report.matched == ()


# --------------------------------------------------------------------------------- to and from stock TorchGeo


def test_checkpoint_loads_in_our_networks(tmp_path):
    encoder = trained('resnet18')
    path = checkpoint(tmp_path, encoder)
    for network in (create_encoder('resnet18', 4), smp.Unet('resnet18', encoder_weights=None, in_channels=4)):
        report = load_encoder(network, path, bands=BANDS)
        assert_equal(getattr(network, 'encoder', network).state_dict(), encoder.state_dict())
        assert len(report.matched) == len(encoder.state_dict())
    assert read_source(path).metadata == metadata()


def test_compiled_checkpoint_loads(tmp_path):
    encoder = trained('resnet18')
    state_dict = {f'model._orig_mod.{key}': value for key, value in encoder.state_dict().items()}
    network = create_encoder('resnet18', 4)
    load_encoder(network, checkpoint(tmp_path, encoder, state_dict=state_dict), BANDS)
    assert_equal(network.state_dict(), encoder.state_dict())


def test_checkpoint_loads_in_stock_segmentation(tmp_path):
    from torchgeo.tasks import SemanticSegmentation

    encoder = trained('resnet18')
    path = checkpoint(tmp_path, encoder)
    task = SemanticSegmentation(model='unet', backbone='resnet18', weights=str(path), in_channels=4, num_classes=2)
    assert_equal(task.model.encoder.state_dict(), encoder.state_dict())


@pytest.mark.parametrize('name', ['resnet18', VIT])
def test_checkpoint_loads_in_stock_classification(tmp_path, name):
    from torchgeo.tasks import Classification

    encoder = trained(name)
    path = checkpoint(tmp_path, encoder, name)
    with warnings.catch_warnings():
        warnings.simplefilter('error')  # TorchGeo warns when it skips a tensor
        task = Classification(model=name, weights=str(path), in_channels=4, num_classes=2)
    found = task.model.state_dict()
    for key, tensor in encoder.state_dict().items():
        assert torch.equal(found[key], tensor), key


@pytest.mark.parametrize('name', first_fast(['convnext_nano', 'resnet50', SWIN]))
def test_stock_loader_takes_the_encoder_out_of_the_checkpoint(tmp_path, name):
    """Stock Classification cannot load any weights into ConvNeXt and Swin, but the loader under it can."""
    from torchgeo.tasks.utils import extract_backbone

    encoder = trained(name)
    found, state_dict = extract_backbone(str(checkpoint(tmp_path, encoder, name)))
    assert found == name
    network = timm.create_model(name, in_chans=4, num_classes=0)
    network.load_state_dict(state_dict, strict=True)
    assert_equal(network.state_dict(), encoder.state_dict())


def torchgeo_task(method):
    from torchgeo import tasks

    if method == 'MAE':
        return tasks.MAE(model='vit_tiny_patch16_224', in_channels=4), 'vit_tiny_patch16_224', 'backbone.vit'
    if method == 'BYOL':
        return tasks.BYOL(model='resnet18', in_channels=4), 'resnet18', 'model.backbone.model'
    if method == 'Classification':
        return tasks.Classification(model='resnet18', in_channels=4, num_classes=3), 'resnet18', 'model'
    if method.startswith('SemanticSegmentation'):
        backbone = method.partition(' ')[2]
        task = tasks.SemanticSegmentation(model='unet', backbone=backbone, in_channels=4, num_classes=3)
        return task, 'resnet18', 'model.encoder.model' if backbone.startswith('tu-') else 'model.encoder'
    return getattr(tasks, method)(model='resnet18', in_channels=4), 'resnet18', 'backbone'


@pytest.mark.parametrize(
    'method',
    first_fast(
        [
            'Classification',
            'SimCLR',
            'MoCo',
            'BYOL',
            'MAE',
            'SemanticSegmentation resnet18',
            'SemanticSegmentation tu-resnet18',
        ]
    ),
)
def test_torchgeo_checkpoints_load(tmp_path, method):
    """These files give an empty dictionary in TorchGeo's own loader."""
    task, name, attribute = torchgeo_task(method)
    path = tmp_path / 'theirs.ckpt'
    torch.save({'hyper_parameters': dict(task.hparams), 'state_dict': task.state_dict()}, path)
    network = create_encoder(name, 4)
    report = load_encoder(network, path)
    expected = task.get_submodule(attribute).state_dict()
    for key, tensor in network.state_dict().items():
        assert torch.equal(tensor, expected[key]), key
    assert set(report.matched) == set(network.state_dict())
    assert 'by position' in next(iter(report.bands.values()))
    assert read_source(path).metadata.model == name


def test_torchgeo_weights_by_name(monkeypatch):
    from torchgeo.models import ResNet18_Weights

    theirs = timm.create_model('resnet18', in_chans=13, num_classes=0).state_dict()
    asked = []
    monkeypatch.setattr(ResNet18_Weights, 'get_state_dict', lambda self, **options: asked.append(options) or theirs)
    network = create_encoder('resnet18', 2)
    report = load_encoder(network, 'ResNet18_Weights.SENTINEL2_ALL_MOCO', bands=('B8A', 'B04'))
    assert asked == [{'progress': True, 'check_hash': True, 'weights_only': True}]
    kernel = theirs['conv1.weight'][:, [8, 3]]  # B1 … B8, B8a is the ninth
    torch.testing.assert_close(network.conv1.weight.data / report.kernel_scale, kernel)
    assert report.bands == {'B8A': 'copied', 'B04': 'copied'}
    assert torch.equal(network.layer4[1].conv2.weight, theirs['layer4.1.conv2.weight'])

    by_enum = create_encoder('resnet18', 2)
    load_encoder(by_enum, ResNet18_Weights.SENTINEL2_ALL_MOCO, bands=('B8A', 'B04'))
    assert_equal(by_enum.state_dict(), network.state_dict())


def test_bands_of_landsat_are_not_those_of_sentinel2(monkeypatch):
    from torchgeo.models import ResNet18_Weights

    theirs = timm.create_model('resnet18', in_chans=7, num_classes=0).state_dict()
    monkeypatch.setattr(ResNet18_Weights, 'get_state_dict', lambda self, **options: theirs)
    with pytest.raises(WeightsError, match='no band in common'):
        load_encoder(create_encoder('resnet18', 4), 'ResNet18_Weights.LANDSAT_TM_TOA_MOCO', bands=BANDS)


def test_torchgeo_weights_that_do_not_exist_or_cannot_be_had(monkeypatch):
    from torchgeo.models import ResNet18_Weights

    with pytest.raises(WeightsError, match=r'did you mean ResNet18_Weights\.SENTINEL2_ALL_MOCO'):
        read_source('ResNet18_Weights.SENTINEL2_ALL_MOKO')

    def offline(self, **options):
        raise OSError('no route to host')

    monkeypatch.setattr(ResNet18_Weights, 'get_state_dict', offline)
    with pytest.raises(WeightsError, match='no route to host'):
        read_source('ResNet18_Weights.SENTINEL2_ALL_MOCO')


# ----------------------------------------------------------------------------------------------- imagenet


@pytest.fixture
def imagenet(monkeypatch):
    """timm's factory with weights that are made up instead of downloaded; returns the kernel of the stem."""
    real = timm.create_model
    made = {}

    def create_model(name, pretrained=False, **options):
        network = real(name, **options)
        if pretrained:
            made['name'], made['state_dict'] = name, network.state_dict()
        return network

    monkeypatch.setattr(timm, 'create_model', create_model)
    return made


@pytest.mark.parametrize(
    ('bands', 'order'),
    [
        (('red', 'green', 'blue'), [0, 1, 2]),
        (('B02', 'B03', 'B04'), [2, 1, 0]),  # Sentinel-2 has them the other way round
        (('blue', 'green', 'red', 'rededge', 'nir'), [2, 1, 0, None, None]),
        (('B04', 'B08'), [0, None]),
    ],
)
@pytest.mark.parametrize('kind', first_fast(['timm', 'smp']))
def test_imagenet_is_matched_by_colour(imagenet, bands, order, kind):
    if kind == 'timm':
        encoder = network = create_encoder('resnet18', len(bands))
    else:
        network = smp.Unet('resnet18', encoder_weights=None, in_channels=len(bands))
        encoder = network.encoder
    report = load_encoder(network, 'imagenet', bands=bands)
    assert imagenet['name'].partition('.')[0] == 'resnet18'
    kernel = imagenet['state_dict']['conv1.weight']
    expected = torch.stack([kernel.mean(1) if i is None else kernel[:, i] for i in order], 1)
    torch.testing.assert_close(encoder.conv1.weight.data, expected * report.kernel_scale)
    assert [how.startswith('copied') for how in report.bands.values()] == [i is not None for i in order]
    assert torch.equal(encoder.layer1[0].conv1.weight, imagenet['state_dict']['layer1.0.conv1.weight'])
    assert set(report.unexpected) == {'fc.weight', 'fc.bias'}
    if None not in order:
        assert report.kernel_scale == 1


def test_imagenet_needs_a_timm_model_and_a_connection(monkeypatch):
    network = smp.Unet('efficientnet-b0', encoder_weights=None, in_channels=3)
    with pytest.raises(WeightsError, match="none named 'efficientnet-b0'"):
        load_encoder(network, 'imagenet', ('red', 'green', 'blue'))

    def offline(name, **options):
        raise ConnectionError('no route to host')

    network = create_encoder('resnet18', 3)
    monkeypatch.setattr(timm, 'create_model', offline)
    with pytest.raises(WeightsError, match='no route to host'):
        load_encoder(network, 'imagenet', ('red', 'green', 'blue'))


# -------------------------------------------------------------------------------------------------- bands


@pytest.mark.parametrize('name', ['resnet18', 'convnext_nano', VIT])
def test_permuted_bands_give_the_same_output_for_permuted_input(tmp_path, name):
    encoder = trained(name)
    order = [2, 0, 3, 1]
    network = create_encoder(name, 4, 64).eval()
    report = load_encoder(network, exported(tmp_path, encoder, name), bands=[BANDS[i] for i in order])
    image = torch.rand(2, 4, 64, 64)
    with torch.no_grad():
        expected = encoder(image)
        assert (network(image[:, order]) - expected).norm() < 1e-5 * expected.norm()
        assert (network(image) - expected).norm() > 1e-3 * expected.norm()
    assert report.kernel_scale == 1
    assert torch.equal(input_layer(network)[1].weight, input_layer(encoder)[1].weight[:, order])


def test_spelling_of_bands_does_not_matter(tmp_path):
    network = create_encoder('resnet18', 4)
    report = load_encoder(network, exported(tmp_path, trained('resnet18')), bands=('b2', 'B3', 'B4', 'B08'))
    assert report.bands == dict.fromkeys(BANDS, 'copied')


@pytest.mark.parametrize(
    ('bands', 'order', 'dropped'),
    [
        (('B03', 'B08'), [1, 3], ('B02', 'B04')),  # subset
        (('B08', 'B11', 'B04', 'B03', 'B02'), [3, None, 2, 1, 0], ()),  # superset
        (('B12', 'B08'), [None, 3], ('B02', 'B03', 'B04')),
        (('B12', 'B08', 'B11', 'B04'), [None, 3, None, 2], ('B02', 'B03')),  # as many, but others
    ],
)
def test_other_band_sets(tmp_path, bands, order, dropped):
    encoder = trained('resnet18')
    network = create_encoder('resnet18', len(bands))
    report = load_encoder(network, exported(tmp_path, encoder), bands=bands)
    kernel = encoder.conv1.weight.data
    expected = torch.stack([kernel.mean(1) if i is None else kernel[:, i] for i in order], 1)
    torch.testing.assert_close(network.conv1.weight.data, expected * report.kernel_scale)
    assert [how == 'copied' for how in report.bands.values()] == [i is not None for i in order]
    assert report.dropped_bands == dropped
    assert report.kernel_scale != 1
    rest = {key: value for key, value in encoder.state_dict().items() if key != 'conv1.weight'}
    found = network.state_dict()
    found.pop('conv1.weight')
    assert_equal(found, rest)


@pytest.mark.parametrize('choice', [[0], [1, 3], [0, 1, 2, 3, None, None], [None, 2], [None] * 3 + [0]])
def test_size_of_the_output_is_kept_in_expectation(choice):
    generator = torch.Generator().manual_seed(0)
    kernel = torch.randn(16, 4, 7, 7, generator=generator) + 0.3
    adapted, factor = adapt_kernel(kernel, choice)

    def mean_square(weight):
        noise = torch.randn(24, weight.shape[1], 48, 48, generator=generator)
        return nn.functional.conv2d(noise, weight).square().mean().item()

    assert mean_square(adapted) == pytest.approx(mean_square(kernel), rel=0.02)
    assert abs(mean_square(adapted / factor) / mean_square(kernel) - 1) > 0.1  # it would not be without the factor


def test_kernel_of_zeros_stays_zero():
    adapted, factor = adapt_kernel(torch.zeros(2, 3, 1, 1), [None])
    assert factor == 1
    assert not adapted.any()


@pytest.mark.parametrize(
    ('source', 'target', 'expected'),
    [
        ((('B02', 'B8A'), None), (('B8A', 'B02'), None), [1, 0]),
        # Landsat's B05 is near infrared and its B06 short-wave; Sentinel-2's are red edge.
        ((('B05', 'B06', 'B04'), 'hls_l30'), (('B05', 'B06', 'B04'), 'sentinel2_l2a'), [None, None, 2]),
        ((('B05',), 'hls_l30'), (('B08',), 'sentinel2_l2a'), [0]),
        ((('B08', 'B04'), 'sentinel2_l2a'), (('red', 'nir'), 'micasense_rededge'), [1, 0]),
        ((('lwir',), 'micasense_altum'), (('B10',), 'sentinel2_l1c'), [None]),
        # A source band goes to one target band, the one of the same name first.
        ((('nir',), None), (('B08', 'nir'), 'sentinel2_l2a'), [None, 0]),
    ],
)
def test_which_band_is_which(source, target, expected):
    from torchgeo_msssl.bands import SENSORS

    spectra = [Spectrum.of(names, SENSORS.get(sensor or '')) for names, sensor in (source, target)]
    assert match_bands(*spectra) == expected


def test_sensor_argument_decides_what_numbered_bands_are(tmp_path):
    path = exported(tmp_path, trained('resnet18'))
    network = create_encoder('resnet18', 2)
    assert load_encoder(network, path, ('B05', 'B04')).bands['B05'].startswith('new')
    assert load_encoder(network, path, ('B05', 'B04'), sensor='hls_l30').bands['B05'] == 'copied from B08'
    with pytest.raises(BandError, match='landsat_99'):
        load_encoder(network, path, ('B05', 'B04'), sensor='landsat_99')


def test_unknown_bands(tmp_path):
    encoder = trained('resnet18')
    path = exported(tmp_path, encoder)
    with pytest.raises(WeightsError, match=r'has 4 bands and the network 5, .* give bands='):
        load_encoder(create_encoder('resnet18', 5), path)

    torch.save(encoder.state_dict(), tmp_path / 'plain.pth')
    with pytest.raises(WeightsError, match=r'band names of .*plain\.pth are unknown; give bands='):
        load_encoder(create_encoder('resnet18', 5), tmp_path / 'plain.pth', ('B02', 'B03', 'B04', 'B08', 'B11'))

    network = create_encoder('resnet18', 4)
    report = load_encoder(network, tmp_path / 'plain.pth', BANDS)
    assert_equal(network.state_dict(), encoder.state_dict())
    assert set(report.bands.values()) == {'copied by position, since names are not known on both sides'}


@pytest.mark.parametrize(
    ('bands', 'message'),
    [
        (('B01', 'B09', 'B11', 'B12'), 'B02, B03, B04, B08 and the network has B01, B09, B11, B12: no band in common'),
        (('B02', 'B03'), r'the network: 2 bands are named \(B02, B03\) but the first convolution has 4'),
        (('B02', 'B2', 'B03', 'B04'), 'expected distinct names, got B02, B2, B03, B04'),
    ],
)
def test_bands_that_cannot_be(tmp_path, bands, message):
    with pytest.raises(WeightsError, match=message):
        load_encoder(create_encoder('resnet18', 4), exported(tmp_path, trained('resnet18')), bands)


# ------------------------------------------------------------------------------------------ other image sizes


def test_position_embedding_of_another_grid_is_interpolated(tmp_path):
    encoder = trained(VIT)
    network = timm.create_model(VIT, in_chans=4, num_classes=0, img_size=64)
    report = load_encoder(network, exported(tmp_path, encoder, VIT), BANDS)
    assert report.reshaped == {'pos_embed': '(1, 197, 384) → (1, 17, 384)'}
    assert torch.equal(network.pos_embed[:, 0], encoder.pos_embed[:, 0])  # class token
    grid = encoder.pos_embed[:, 1:].reshape(1, 14, 14, 384).permute(0, 3, 1, 2)
    smaller = nn.functional.interpolate(grid, (4, 4), mode='bicubic', antialias=True)
    torch.testing.assert_close(network.pos_embed[:, 1:], smaller.permute(0, 2, 3, 1).reshape(1, 16, 384))
    # The encoder itself resamples on the fly, so both see the same image alike.
    image = torch.rand(1, 4, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(image), encoder(image), rtol=1e-5, atol=1e-5)


def test_relative_position_tables_of_another_window_are_interpolated(tmp_path):
    encoder = copy.deepcopy(trained(SWIN))
    with torch.no_grad():  # a constant table stays constant
        for key, table in encoder.state_dict().items():
            if key.endswith('relative_position_bias_table'):
                table.copy_(torch.full_like(table, 0.5))
    network = timm.create_model(SWIN, in_chans=4, num_classes=0, img_size=64)
    report = load_encoder(network, exported(tmp_path, encoder, SWIN), BANDS)
    assert len(report.reshaped) == 8  # six blocks of stage 3 and two of stage 4
    assert report.reshaped['layers.2.blocks.0.attn.relative_position_bias_table'] == '(169, 12) → (49, 12)'
    table = network.layers[2].blocks[0].attn.relative_position_bias_table
    torch.testing.assert_close(table, torch.full_like(table, 0.5))


def test_computed_buffers_of_old_files_are_explained(tmp_path):
    encoder = trained(SWIN)
    old = encoder.state_dict() | {'layers.0.blocks.0.attn.relative_position_index': torch.zeros(49, 49)}
    torch.save(old, tmp_path / 'old.pth')
    report = load_encoder(create_encoder(SWIN, 4), tmp_path / 'old.pth')
    assert list(report.unexpected.values()) == ['computed by the network itself']


# ------------------------------------------------------------------------------------------------- failures


def refuses(network, source, message, bands=BANDS):
    """The source is refused with this message, and the network is as it was."""
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(WeightsError, match=message):
        load_encoder(network, source, bands)
    assert_equal(network.state_dict(), before)


def test_wrong_model_is_named(tmp_path):
    path = exported(tmp_path, trained('resnet50'), 'resnet50')
    network = create_encoder('resnet18', 4)
    refuses(network, path, "made with 'resnet50' and the network is 'resnet18'")
    network = smp.Unet('resnet18', encoder_weights=None, in_channels=4)
    refuses(network, path, "made with 'resnet50' and the network is 'resnet18'")
    path = exported(tmp_path, trained('resnet34'), 'resnet34')  # has all tensors of ResNet-18, and more
    refuses(network, path, 'are unexpected')


def test_nothing_matches(tmp_path):
    path = exported(tmp_path, trained('resnet18'), 'resnet18')
    network = create_encoder(VIT, 4)
    refuses(network, path, r'none of its \d+ tensors \(bn1.bias.*network \(cls_token')


@pytest.mark.parametrize('backbone', ['mit_b0', 'efficientnet-b0'])
def test_encoders_of_smp_that_timm_does_not_have(tmp_path, backbone):
    network = smp.Unet(backbone, encoder_weights=None, in_channels=4)
    refuses(network, exported(tmp_path, trained('resnet18')), f"made with 'resnet18' and the network is '{backbone}'")


def test_missing_left_over_and_misshapen_tensors_are_named(tmp_path):
    network = create_encoder('resnet18', 4)
    good = trained('resnet18').state_dict()
    path = tmp_path / 'x.pth'

    torch.save({key: value for key, value in good.items() if key != 'layer2.0.bn1.weight'}, path)
    refuses(network, path, r'1 tensors are missing \(layer2.0.bn1.weight\)')
    torch.save(good | {'layer9.weight': torch.ones(1)}, path)
    refuses(network, path, r'1 are unexpected \(layer9.weight\)')
    torch.save(good | {'layer2.0.conv1.weight': torch.ones(128, 64, 5, 5)}, path)
    refuses(network, path, r'layer2.0.conv1.weight: expected \(128, 64, 3, 3\), got \(128, 64, 5, 5\)')
    torch.save(good | {'conv1.weight': torch.ones(64, 4, 3, 3)}, path)
    refuses(network, path, r'conv1.weight: expected \(64, 4, 7, 7\), got \(64, 4, 3, 3\)')

    torch.save({key: value for key, value in good.items() if not key.endswith('num_batches_tracked')}, path)
    report = load_encoder(network, path)  # files from before PyTorch 0.4.1 lack the counters
    assert len(report.missing) == 20


@pytest.mark.parametrize('suffix', ['.ckpt', '.safetensors'])
@pytest.mark.parametrize('fault', ['cut short', 'empty', 'text', 'absent'])
def test_unreadable_files(tmp_path, suffix, fault):
    path = tmp_path / f'broken{suffix}'
    if fault == 'cut short':
        encoder = trained('test_resnet')
        whole = exported(tmp_path, encoder) if suffix == '.safetensors' else checkpoint(tmp_path, encoder)
        path.write_bytes(whole.read_bytes()[:-100_000])
    elif fault != 'absent':
        path.write_text('' if fault == 'empty' else 'not weights at all')
    refuses(create_encoder('test_resnet', 4), path, f'broken{suffix}')


@pytest.mark.parametrize('content', [[1, 2], {'state_dict': 3}, {'state_dict': {}}, {'epoch': 3}])
def test_files_without_tensors(tmp_path, content):
    torch.save(content, tmp_path / 'x.ckpt')
    refuses(create_encoder('resnet18', 4), tmp_path / 'x.ckpt', r'x.ckpt holds no (state dict|tensors)')


class Malice:
    """Runs code when it is unpickled without care."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_checkpoint_that_would_run_code_is_refused(tmp_path):
    path = checkpoint(tmp_path, trained('resnet18'), callbacks=Malice(str(tmp_path / 'ran')))
    refuses(create_encoder('resnet18', 4), path, r'could run code and are rejected \(posix.mkdir\)')
    assert not (tmp_path / 'ran').exists()
    torch.load(path, weights_only=False)  # the file is a real trap
    assert (tmp_path / 'ran').exists()

    (tmp_path / 'bare.ckpt').write_bytes(pickle.dumps(Malice(str(tmp_path / 'ran too'))))
    refuses(create_encoder('resnet18', 4), tmp_path / 'bare.ckpt', 'bare.ckpt')
    assert not (tmp_path / 'ran too').exists()


def test_names_are_paired_one_to_one():
    assert align_keys(['a.0.w', 'b.w'], ['a_0.w', 'c.w']) == {'a_0.w': 'a.0.w'}
    assert align_keys(['a.b', 'a_b'], ['a.b', 'a_b']) == {'a.b': 'a.b', 'a_b': 'a_b'}
    assert align_keys(['a.b.c', 'a.b_c'], ['a_b_c']) == {}  # either could be meant


def test_checkpoint_key_is_part_of_the_contract():
    assert CHECKPOINT_KEY == 'msssl'


@pytest.mark.slow
def test_import_is_light():
    """The command line imports this for --help; TorchGeo alone takes many seconds."""
    code = 'import sys, torchgeo_msssl.models; print(*{"torchgeo", "segmentation_models_pytorch"} & set(sys.modules))'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ''
