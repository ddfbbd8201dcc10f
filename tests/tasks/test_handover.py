"""Every method's checkpoint goes on in TorchGeo's tasks and in ours, to the last tensor."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torchgeo.tasks import Classification, SemanticSegmentation

from tests.marks import first_fast
from torchgeo_msssl import tasks
from torchgeo_msssl.models import load_encoder
from torchgeo_msssl.models.encoders import create_encoder
from torchgeo_msssl.models.segmentation import create_network
from torchgeo_msssl.tasks import JointEmbeddingTask, PretrainingTask, Segmentation
from torchgeo_msssl.tasks.starting_weights import load_starting_weights

METHODS = [
    name
    for name in tasks.__all__
    if isinstance(getattr(tasks, name), type)
    and issubclass(getattr(tasks, name), PretrainingTask)
    and not name.endswith('Task')
]
BANDS = 4
VIT, SWIN = 'vit_tiny_patch16_224', 'swin_tiny_patch4_window7_224'


def checkpoint_of(method: str, backbone: str, folder: Path) -> tuple[PretrainingTask, Path]:
    """A checkpoint as Lightning writes it."""
    torch.manual_seed(1)
    task: Any = getattr(tasks, method)(model=backbone, in_channels=BANDS)
    task._total_steps = 10
    trainer = Trainer(accelerator='cpu', logger=False, enable_checkpointing=False, default_root_dir=folder)
    trainer.strategy.connect(task)
    path = folder / 'last.ckpt'
    trainer.save_checkpoint(path)
    return task, path


def test_all_methods_are_tried() -> None:
    assert set(METHODS) == {
        'BYOL',
        'BarlowTwins',
        'DINO',
        'FastSiam',
        'MAE',
        'MoCo',
        'Reconstruction',
        'SimCLR',
        'SimSiam',
        'SubimageOverlap',
        'TemporalReconstruction',
        'VICReg',
        'VICRegL',
    }


@pytest.mark.slow
@pytest.mark.parametrize('method', [method for method in METHODS if method != 'MAE'])
def test_stock_tasks_take_the_encoder(method: str, tmp_path: Path) -> None:
    task, path = checkpoint_of(method, 'resnet18', tmp_path)
    trained = task.model.state_dict()
    stock = SemanticSegmentation(
        model='unet', backbone='resnet18', weights=str(path), in_channels=BANDS, num_classes=3, loss='ce'
    )
    taken = stock.model.encoder.state_dict()
    assert set(trained) <= set(taken)
    assert all(torch.equal(value, taken[key]) for key, value in trained.items())
    classifier = Classification(model='resnet18', weights=str(path), in_channels=BANDS, num_classes=3)
    kept = classifier.model.state_dict()
    assert all(torch.equal(value, kept[key]) for key, value in trained.items())


@pytest.mark.parametrize('method', METHODS)
def test_only_the_encoder_is_called_model(method: str, tmp_path: Path) -> None:
    """TorchGeo's loader keeps every key with ``model.`` in it, wherever it stands."""
    task, path = checkpoint_of(method, 'test_vit' if method == 'MAE' else 'test_resnet', tmp_path)
    keys = torch.load(path, weights_only=True)['state_dict']
    assert {key.removeprefix('model.') for key in keys if 'model.' in key} == set(task.model.state_dict())


@pytest.mark.slow
@pytest.mark.parametrize(
    ('method', 'backbone'),
    [
        *((method, 'resnet18') for method in METHODS if method != 'MAE'),
        ('MAE', VIT),
        ('DINO', VIT),
        ('SimCLR', 'convnext_atto'),
        pytest.param('FastSiam', SWIN, marks=pytest.mark.slow),
        pytest.param('BYOL', SWIN, marks=pytest.mark.slow),
        ('Reconstruction', 'convnext_atto'),
    ],
)
def test_our_networks_take_the_encoder(method: str, backbone: str, tmp_path: Path) -> None:
    task, path = checkpoint_of(method, backbone, tmp_path)
    network = create_network('dpt' if backbone == VIT else 'unet', backbone, BANDS, 3)
    report = load_encoder(network, path)
    assert all(name.startswith('head.') for name in report.missing)  # a classifier that smp leaves in place
    assert len(report.matched) >= 0.95 * len(task.model.state_dict())  # a last norm may have no place
    again = create_encoder(backbone, BANDS).eval()
    load_encoder(again, path)
    x = torch.randn(2, BANDS, 64, 64)
    torch.testing.assert_close(again(x), task.model.eval()(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize('method', first_fast(['Reconstruction', 'SubimageOverlap']))
def test_the_decoder_is_transferred_too(method: str, tmp_path: Path) -> None:
    task, path = checkpoint_of(method, 'resnet18', tmp_path)
    network: Any = Segmentation(
        model='unet', backbone='resnet18', in_channels=BANDS, num_classes=3, transfer='network', weights=str(path)
    )
    report = load_starting_weights(network.model, str(path), 'network', None)
    parts = {key.split('.')[0] for key in report.missing} | {str(key).split('.')[0] for key in report.reshaped}
    assert parts <= {'segmentation_head'}
    decoder = network.model.decoder.state_dict()
    own: Any = task.decoder
    assert len(decoder) > 20
    assert all(torch.equal(value, decoder[key]) for key, value in own.state_dict().items())
    trained = task.model.state_dict()
    taken = network.model.encoder.state_dict()
    assert all(torch.equal(value, taken[key]) for key, value in trained.items() if key in taken)


def test_methods_share_their_options() -> None:
    """Another method is another word in the YAML."""
    for method in METHODS:
        if issubclass(getattr(tasks, method), JointEmbeddingTask):
            task: Any = getattr(tasks, method)(
                model='resnet18',
                in_channels=BANDS,
                views=3,
                projection_head='linear',
                output_dim=32,
                hidden_dim=16,
                lr=0.01,
                weight_decay=1e-5,
                warmup_epochs=1,
                augmentation={'blur': 0.1},
            )
            assert task.views == 3
            assert task.lr == 0.01
            assert task.projection_head.__class__.__name__ in ('Linear', 'DINOHead')
