"""Segmentation: the hand-over to it, its losses, scores, augmentation and freezing."""

import csv
import functools
import itertools
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import LightningDataModule, Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger
from matplotlib.image import imread
from sklearn import metrics as sk
from torch.utils.data import DataLoader

from tests.marks import first_fast
from torchgeo_msssl.errors import BandError, ConfigurationError, NonFiniteLossError, WeightsError
from torchgeo_msssl.losses.segmentation import SegmentationLoss, focal_loss, overlap_loss
from torchgeo_msssl.models.metadata import EncoderMetadata, statistics_by_name
from torchgeo_msssl.models.segmentation import Architecture, create_network, smp_encoder_name, total_stride
from torchgeo_msssl.models.weights import export_encoder, read_source, save_encoder
from torchgeo_msssl.tasks import Segmentation, VineSegmentation
from torchgeo_msssl.tasks.confusion import accuracy, class_scores, confusion_matrix, mean_iou
from torchgeo_msssl.tasks.fastsiam import FastSiam
from torchgeo_msssl.transforms.symmetries import apply_symmetries, random_symmetries

BANDS = ['blue', 'green', 'red', 'nir']
MEAN, STD = [0.05, 0.08, 0.1, 0.3], [0.02, 0.03, 0.04, 0.1]
SWIN, VIT = 'swin_tiny_patch4_window7_224', 'vit_small_patch16_224'
LOSSES = ['ce', 'dice', 'focal', 'jaccard', 'ce+dice']


def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    return {key: torch.stack([sample[key] for sample in samples]) for key in samples[0]}


def make_chips(count: int, size: int = 32, classes: int = 2, seed: int = 0) -> list[dict[str, Any]]:
    """Chips in which a bright square of near infrared is class 1, and a bright frame column class 2."""
    generator = torch.Generator().manual_seed(seed)
    chips = []
    for _ in range(count):
        image = torch.randint(300, 900, (len(BANDS), size, size), generator=generator)
        mask = torch.zeros(size, size, dtype=torch.uint8)
        top, left = torch.randint(0, size // 2, (2,), generator=generator).tolist()
        image[3, top : top + size // 2, left : left + size // 2] += 4000
        mask[top : top + size // 2, left : left + size // 2] = 1
        if classes > 2:
            image[0, :, :4] += 3000
            mask[:, :4] = 2
        mask[-2:] = 255
        valid = torch.ones(1, size, size, dtype=torch.bool)
        valid[:, :, -1] = False
        chips.append(
            {
                'image': image.to(torch.uint16),
                'mask': mask,
                'valid': valid,
                'scale': torch.full((len(BANDS),), 1e-4),
                'offset': torch.zeros(len(BANDS)),
            }
        )
    return chips


class Chips(LightningDataModule):
    """A ``contract.LabelledData``."""

    bands, mean, std = BANDS, MEAN, STD
    scale, offset, wavelengths = [1e-4] * 4, [0.0] * 4, ()
    sensor_name, rgb_index, chip_size, batch_size, ignore_index = None, (2, 1, 0), 32, 4, 255

    def __init__(self, count: int = 8, batch_size: int = 4, class_names: tuple[str, ...] = ('background', 'vine')):
        super().__init__()
        self.class_names = list(class_names)
        self.chips = make_chips(count, classes=len(class_names))
        self.size = batch_size

    def train_dataloader(self) -> Any:
        return DataLoader(self.chips, self.size, collate_fn=collate)

    def val_dataloader(self) -> Any:
        return self.train_dataloader()

    test_dataloader = val_dataloader
    predict_dataloader = val_dataloader

    @property
    def in_channels(self) -> int:
        return len(self.bands)

    def region_loader(self, part: str, context: int = 0) -> Any:
        return self.train_dataloader()

    def describe_chips(self, batch: Any) -> list[str]:
        return ['chips of a test']

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch


def make_trainer(folder: Path, **options: Any) -> Trainer:
    options = {
        'max_steps': 2,
        'num_sanity_val_steps': 0,
        'log_every_n_steps': 1,
        'enable_checkpointing': False,
    } | options
    return Trainer(
        default_root_dir=folder,
        logger=CSVLogger(folder, 'test'),
        accelerator='cpu',
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def attach(task: Segmentation, folder: Path, data: Any = None) -> Segmentation:
    """Do what fitting does before its first step."""
    trainer = make_trainer(folder)
    trainer.datamodule = Chips() if data is None else data  # type: ignore[attr-defined]
    task.trainer = trainer
    task.setup('fit')
    task.on_fit_start()
    return task


@functools.cache
def pretrained(name: str) -> FastSiam:
    """A pretraining task in which every tensor of the encoder is like no initialisation."""
    task = FastSiam(model=name, in_channels=4, views=2, hidden_dim=8, output_dim=8, bottleneck_dim=4).eval()
    task.normalize.set_statistics([m * 1.1 for m in MEAN], STD, [1e-4] * 4, [0.0] * 4)
    task._provenance = {'bands': BANDS, 'sensor': None}
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for key, tensor in task.model.state_dict().items():
            noise = torch.randn(tensor.shape, generator=generator)
            if key.endswith('running_var'):
                tensor.add_(noise.abs())
            elif tensor.is_floating_point():
                tensor.add_(0.02 * noise)
    return task


def save_task(task: Any, path: Path) -> Path:
    checkpoint = {'state_dict': task.state_dict(), 'hyper_parameters': dict(task.hparams)}
    task.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, path)
    return path


def small(**options: Any) -> Segmentation:
    return Segmentation(**({'in_channels': 4, 'backbone': 'resnet18', 'model': 'fpn'} | options))


# --------------------------------------------------------------------------------------------------- hand-over


@pytest.mark.parametrize('kind', first_fast(['safetensors', 'checkpoint']))
@pytest.mark.parametrize(
    ('architecture', 'name'),
    [
        ('unet', 'test_resnet'),
        ('upernet', 'test_resnet'),
        ('dpt', 'test_resnet'),
        pytest.param('unet', 'resnet50', marks=pytest.mark.slow),
        pytest.param('fpn', 'resnet50', marks=pytest.mark.slow),
        ('unet', 'test_convnext'),
        pytest.param('segformer', 'convnext_nano', marks=pytest.mark.slow),
        pytest.param('upernet', SWIN, marks=pytest.mark.slow),
        pytest.param('unet', SWIN, marks=pytest.mark.slow),
        pytest.param('dpt', VIT, marks=pytest.mark.slow),
    ],
)
def test_encoder_gives_what_the_pretraining_encoder_gave(
    tmp_path: Path, architecture: Any, name: str, kind: str
) -> None:
    before = pretrained(name)
    path = save_task(before, tmp_path / 'last.ckpt')
    if kind == 'safetensors':
        export_encoder(path, tmp_path / 'encoder.safetensors')
        path = tmp_path / 'encoder.safetensors'
    task = attach(Segmentation(architecture, name, str(path), in_channels=4), tmp_path / 'runs').eval()
    image = collate(make_chips(2, 64))['image']
    with torch.no_grad():
        seen, expected = (
            task.model.encoder(task.normalize(image)),
            before.model.forward_features(before.normalize(image)),
        )
        last = seen[0][-1] if isinstance(seen, tuple) else seen[-1]
        if name == SWIN:  # timm ends with a norm, channels last; smp takes the map before it
            last = before.model.norm(last.permute(0, 2, 3, 1))
        if name == VIT:
            last = before.model.norm(last.flatten(2).mT)
            expected = expected[:, before.model.num_prefix_tokens :]
        torch.testing.assert_close(last, expected, rtol=1e-6, atol=1e-6)
        assert task(image).shape == (2, 2, 64, 64)
    report = json.loads(next((tmp_path / 'runs').rglob('weights_report.json')).read_text())
    assert report['bands'] == dict.fromkeys(BANDS, 'copied')
    assert report['matched']
    assert str(path) in report['statistics']


def test_statistics_travel_by_name_and_stay(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = save_task(pretrained('resnet18'), tmp_path / 'last.ckpt')
    data = Chips()
    data.bands, data.scale = ['nir', 'red', 'green'], [1e-4, 2e-4, 3e-4]
    data.mean, data.std, data.offset = MEAN[:0:-1], STD[:0:-1], [5.0] * 3
    task = attach(small(in_channels=3, weights=str(path)), tmp_path, data)
    torch.testing.assert_close(task.normalize.mean, torch.tensor(MEAN[:0:-1]) * 1.1)
    torch.testing.assert_close(task.normalize.scale, torch.tensor(data.scale))
    assert task.normalize.offset.tolist() == [5] * 3

    own = attach(small(in_channels=3, weights=str(path), statistics='data'), tmp_path, data)
    torch.testing.assert_close(own.normalize.mean, torch.tensor(data.mean))

    data.bands = ['nir', 'red', 'rededge']  # one that the weights do not have
    other = attach(small(in_channels=3, weights=str(path)), tmp_path, data)
    torch.testing.assert_close(other.normalize.mean, torch.tensor(data.mean))
    with pytest.raises(ConfigurationError, match='has none for nir, red, rededge'):
        attach(small(in_channels=3, weights=str(path), statistics='weights'), tmp_path, data)

    far = Chips()
    far.mean = [100.0, 150.0, 120.0, 130.0]
    attach(small(weights=str(path)), tmp_path, far)
    assert 'check scale and offset' in caplog.text

    far.mean = MEAN
    task = attach(small(), tmp_path, far)
    far.mean, far.std = [1.0] * 4, [1.0] * 4
    task.setup('fit')  # a second fit goes on with what the network has learnt to expect
    task.on_fit_start()
    torch.testing.assert_close(task.normalize.mean, torch.tensor(MEAN))


def test_statistics_need_the_same_band_and_not_only_its_colour() -> None:
    sentinel = EncoderMetadata('fastsiam', 'resnet18', ('B02', 'B08'), mean=(1, 2), std=(3, 4), sensor='sentinel2_l2a')
    assert statistics_by_name(sentinel, ['B8', 'B2'], 'sentinel2_l2a') == ([2, 1], [4, 3])
    assert statistics_by_name(sentinel, ['blue', 'nir']) is None
    assert statistics_by_name(EncoderMetadata('fastsiam', 'resnet18', ('B02',)), ['B02']) is None


def test_wrong_files_models_and_data_are_refused(tmp_path: Path) -> None:
    path = save_task(pretrained('resnet18'), tmp_path / 'last.ckpt')
    with pytest.raises(WeightsError, match='neither a file'):
        attach(small(weights=str(tmp_path / 'missing.ckpt')), tmp_path)
    with pytest.raises(WeightsError, match='use the same model'):
        attach(small(backbone='convnext_nano', weights=str(path)), tmp_path)
    with pytest.raises(WeightsError, match='no whole segmentation network'):
        attach(small(weights=str(path), transfer='network'), tmp_path)
    torch.save({'state_dict': {'model.nothing.weight': torch.ones(3)}}, tmp_path / 'other.ckpt')
    with pytest.raises(WeightsError, match='none of its'):
        attach(small(weights=str(tmp_path / 'other.ckpt')), tmp_path)
    with pytest.raises(BandError, match='takes 5 bands and the data have 4'):
        attach(small(in_channels=5), tmp_path)
    with pytest.raises(ConfigurationError, match='network has 2 and the data 3'):
        attach(small(), tmp_path, Chips(class_names=('a', 'b', 'c')))
    with pytest.raises(ConfigurationError, match='same classes in the same order'):
        attach(small(class_names=['vine', 'background']), tmp_path)


def test_coarse_to_fine_replaces_the_last_layer_only(tmp_path: Path) -> None:
    coarse = attach(small(num_classes=2), tmp_path)
    path = save_task(coarse, tmp_path / 'coarse.ckpt')
    fine = small(num_classes=3, weights=str(path), transfer='network')
    head = {key: value.clone() for key, value in fine.model.segmentation_head.state_dict().items()}
    attach(fine, tmp_path / 'runs', Chips(class_names=('background', 'vine', 'tree')))
    for key, value in fine.model.state_dict().items():
        known = head[key.removeprefix('segmentation_head.')] if 'segmentation_head' in key else None
        assert torch.equal(value, coarse.model.state_dict()[key] if known is None else known), key
    report = json.loads(next((tmp_path / 'runs').rglob('weights_report.json')).read_text())
    assert set(report['missing']) == {f'segmentation_head.{key}' for key in head}
    assert all('replaced' in why for why in [*report['missing'].values(), *report['unexpected'].values()])
    assert len(report['matched']) + len(head) == len(fine.model.state_dict())

    for wrong in ({'model': 'unet'}, {'backbone': 'resnet34'}):
        with pytest.raises(WeightsError, match='does not fit the network'):
            attach(small(weights=str(path), transfer='network', **wrong), tmp_path)


@pytest.mark.slow
def test_checkpoint_tells_bands_scale_and_classes(tmp_path: Path) -> None:
    task, data = VineSegmentation(in_channels=4, model='fpn'), Chips()
    trainer = make_trainer(tmp_path)
    trainer.fit(task, datamodule=data)
    path = tmp_path / 'vine.ckpt'
    trainer.save_checkpoint(path)
    content = torch.load(path, weights_only=True)
    assert content['msssl']['class_names'] == ['background', 'vine']
    assert content['msssl']['bands'] == BANDS
    assert content['msssl']['scale'] == pytest.approx([1e-4] * 4)
    assert content['msssl']['model'] == 'resnet18'
    assert read_source(path).metadata.mean == pytest.approx(MEAN)

    again = VineSegmentation.load_from_checkpoint(path, map_location='cpu', weights_only=True).eval()
    image = collate(make_chips(2, 32))['image']
    with torch.no_grad():
        assert torch.equal(again(image), task.eval()(image))
    assert again.bands == BANDS
    assert again.class_names == ['background', 'vine']

    data.mean = data.std = []  # a data module that has nothing to train needs no statistics
    make_trainer(tmp_path).test(VineSegmentation(in_channels=4, model='fpn'), data, ckpt_path=path, weights_only=True)
    with pytest.raises(ConfigurationError, match='give a checkpoint'):
        make_trainer(tmp_path).test(VineSegmentation(in_channels=4, model='fpn'), data)
    data.bands = BANDS[::-1]
    fresh = VineSegmentation(in_channels=4, model='fpn')
    with pytest.raises(BandError, match=r'set data.bands to \[blue, green, red, nir\]'):
        make_trainer(tmp_path).test(fresh, datamodule=data, ckpt_path=path, weights_only=True)


# ---------------------------------------------------------------------------------------------------- networks


@pytest.mark.parametrize('size', first_fast([(17, 33), (1, 1), (64, 32)], unpack=False))
@pytest.mark.parametrize(
    ('architecture', 'backbone'),
    [
        *itertools.product(get_args(Architecture), ['test_resnet']),
        ('unet', 'test_convnext'),
        pytest.param('upernet', SWIN, marks=pytest.mark.slow),
        pytest.param('dpt', VIT, marks=pytest.mark.slow),
    ],
)
def test_any_size_is_taken(architecture: Any, backbone: str, size: tuple[int, int]) -> None:
    task = Segmentation(architecture, backbone, in_channels=4, num_classes=3).eval()
    with torch.no_grad():
        image = torch.randint(0, 9, (2, 4, *size)).to(torch.uint8)
        logits = task(image)
        assert logits.shape == (2, 3, *size)
        assert torch.isfinite(logits).all()
        # what is padded is what no data looks like
        larger = torch.zeros(2, 4, 64, 64, dtype=torch.uint8)
        larger[..., : size[0], : size[1]] = image
        valid = torch.zeros(2, 1, 64, 64, dtype=torch.bool)
        valid[..., : size[0], : size[1]] = True
        if max(size) == 64:
            assert torch.equal(task(image), task.segment(task.normalize(image)))
        elif architecture in ('unet', 'fpn') and size == (17, 33):
            whole = task(larger[..., :32, :], valid[..., :32, :])[..., :17, :33]
            torch.testing.assert_close(logits, whole, rtol=1e-5, atol=1e-5)


def test_encoder_names() -> None:
    assert smp_encoder_name('resnet18') == 'resnet18'
    assert smp_encoder_name('resnet18', 'dpt') == 'tu-resnet18'
    assert smp_encoder_name('tu-resnet18') == 'tu-resnet18'
    assert smp_encoder_name('convnext_nano') == 'tu-convnext_nano'
    assert smp_encoder_name('mit_b0') == 'mit_b0'
    assert total_stride(create_network('deeplabv3+', 'resnet18', 1, 2)) == 32
    with pytest.raises(ConfigurationError, match='did you mean resnet18'):
        smp_encoder_name('resnet181')
    with pytest.raises(ConfigurationError, match='does not go with'):
        create_network('unet', VIT, 4, 2)
    with pytest.raises(ConfigurationError, match='does not go with'):
        create_network('deeplabv3+', SWIN, 4, 2)
    with pytest.raises(ConfigurationError, match='is not one of unet'):
        create_network('vnet', 'resnet18', 4, 2)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'freeze': 'encoder_until'}, 'freeze_until_step'),
        ({'freeze': 'encoder', 'freeze_until_step': 5}, 'freeze_until_step'),
        ({'warmup_steps': -1}, 'warmup_steps'),
        ({'freeze': 'all'}, 'freeze'),
        ({'scheduler': 'linear'}, 'scheduler'),
        ({'class_names': ['a', 'a']}, 'class_names'),
        ({'class_weights': [1.0]}, 'class_weights'),
        ({'class_weights': [0.0, 0.0]}, 'class_weights'),
        ({'ignore_index': 1}, 'ignore_index'),
        ({'loss': 'mse'}, 'loss'),
        ({'focal_gamma': -1.0}, 'gamma'),
        ({'num_classes': 1}, 'num_classes'),
        ({'common_gain': (2.0, 1.0)}, 'common_gain'),
        ({'encoder_lr_factor': -1.0}, 'encoder_lr_factor'),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        small(**options)


# ------------------------------------------------------------------------------------------------------ losses


def scores_and_labels(classes: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, 5, 7, generator=generator)
    return logits, torch.randint(0, classes, (2, 5, 7), generator=generator)


@pytest.mark.parametrize('weights', [None, [0.2, 1.0, 3.0]])
def test_losses_are_those_of_torch_and_smp(weights: list[float] | None) -> None:
    logits, target = scores_and_labels()
    target[0, 0] = 255
    weight = None if weights is None else torch.tensor(weights)
    ce = F.cross_entropy(logits, target, weight, ignore_index=255)
    dice = smp.losses.DiceLoss('multiclass', ignore_index=255, class_weights=weights)(logits, target)
    known = target != 255
    expected = {'ce': ce, 'dice': dice, 'ce+dice': ce + dice}
    if weights is None:
        columns = logits.movedim(1, -1)[known][None].mT, target[known][None]
        expected['jaccard'] = smp.losses.JaccardLoss('multiclass')(*columns)
        expected['focal'] = smp.losses._functional.softmax_focal_loss_with_logits(*columns, gamma=1.5)
    for name, value in expected.items():
        loss = SegmentationLoss(name, 3, 255, weights, gamma=1.5)(logits, target)  # type: ignore[arg-type]
        torch.testing.assert_close(loss, value, msg=name)
    torch.testing.assert_close(focal_loss(logits, target, gamma=0), F.cross_entropy(logits, target, ignore_index=255))


def test_overlap_is_of_the_classes_that_are_there() -> None:
    logits, target = scores_and_labels()
    target[target == 2] = 0
    probability = logits.softmax(dim=1)
    terms = [
        1 - 2 * probability[:, c][target == c].sum() / (probability[:, c].sum() + (target == c).sum()) for c in (0, 1)
    ]
    torch.testing.assert_close(overlap_loss(logits, target), sum(terms) / 2)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000), name=st.sampled_from(LOSSES), junk=st.sampled_from([0.0, 1e4, -1e4, math.inf, math.nan])
)
def test_nothing_under_ignored_pixels_matters(seed: int, name: Any, junk: float) -> None:
    logits, target = scores_and_labels(seed=seed)
    ignored = torch.rand(target.shape, generator=torch.Generator().manual_seed(seed)) < 0.4
    target[ignored] = 255
    loss = SegmentationLoss(name, 3)
    results = []
    for value in (None, junk):
        scores = logits.clone()
        if value is not None:
            scores.movedim(1, -1)[ignored] = value
        scores.requires_grad_()
        found = loss(scores, target)
        found.backward()
        results.append((found.detach(), scores.grad))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])  # type: ignore[arg-type]
    assert not results[1][1].movedim(1, -1)[ignored].any()  # type: ignore[union-attr]


@pytest.mark.parametrize('name', LOSSES)
def test_perfect_scores_and_no_labels(name: Any) -> None:
    logits, target = scores_and_labels()
    perfect = (50 * F.one_hot(target, 3).movedim(-1, 1).float()).requires_grad_()
    loss = SegmentationLoss(name, 3)(perfect, target)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert torch.isfinite(perfect.grad).all()  # type: ignore[arg-type]
    logits.requires_grad_()
    empty = SegmentationLoss(name, 3)(logits, torch.full_like(target, 255))
    empty.backward()
    assert empty.item() == 0
    assert not logits.grad.any()  # type: ignore[union-attr]
    assert SegmentationLoss(name, 3)(logits.bfloat16(), target).dtype == torch.float32


def test_strange_labels_are_named() -> None:
    logits, target = scores_and_labels()
    target[0, 0, :2] = 7
    with pytest.raises(ConfigurationError, match='2 pixels have the labels 7'):
        SegmentationLoss('ce', 3)(logits, target)


# ------------------------------------------------------------------------------------------------------ scores


@pytest.mark.parametrize('seed', range(5))
def test_scores_are_those_of_scikit_learn(seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels = generator.choice([0, 1, 3, 255], 500)  # class 2 is never labelled, 4 neither labelled nor predicted
    predictions = generator.choice([0, 1, 2] if seed % 2 else [0, 1, 3], 500)
    matrix = torch.zeros(5, 5, dtype=torch.int64)
    for part in np.array_split(np.arange(500), 7):
        matrix += confusion_matrix(torch.from_numpy(predictions[part]), torch.from_numpy(labels[part]), 5)
    known = labels != 255
    truth, found = labels[known], predictions[known]
    assert matrix.dtype == torch.int64
    assert np.array_equal(matrix.numpy(), sk.confusion_matrix(truth, found, labels=range(5)))
    options = {'labels': range(5), 'average': None, 'zero_division': np.nan}
    precision, recall, f1, _ = sk.precision_recall_fscore_support(truth, found, **options)
    scores = class_scores(matrix)
    np.testing.assert_allclose(scores['precision'], precision)
    np.testing.assert_allclose(scores['recall'], recall)
    np.testing.assert_allclose(scores['f1'], f1)
    iou = sk.jaccard_score(truth, found, labels=range(5), average=None, zero_division=0)
    there = np.array([((truth == c) | (found == c)).any() for c in range(5)])
    np.testing.assert_allclose(scores['iou'], np.where(there, iou, np.nan))
    assert mean_iou(matrix) == pytest.approx(iou[there].mean())
    assert accuracy(matrix) == pytest.approx(sk.accuracy_score(truth, found))
    assert all(math.isnan(values[4]) for values in scores.values())


def test_scores_of_nothing_are_no_numbers() -> None:
    matrix = torch.zeros(3, 3, dtype=torch.int64)
    assert math.isnan(mean_iou(matrix))
    assert math.isnan(accuracy(matrix))
    assert class_scores(matrix)['iou'].isnan().all()


# ------------------------------------------------------------------------------------------------ augmentation


@pytest.mark.parametrize(
    ('flips', 'turns', 'count'), [(True, True, 8), (True, False, 4), (False, True, 4), (False, False, 1)]
)
def test_symmetries_are_those_of_the_square(flips: bool, turns: bool, count: int) -> None:
    torch.manual_seed(0)
    symmetries = random_symmetries(800, True, flips, turns)
    image = torch.arange(9).reshape(1, 1, 3, 3).to(torch.uint8).expand(800, 2, 3, 3)
    found, numbers = apply_symmetries(image, symmetries)[:, 1].reshape(800, 9).unique(dim=0, return_counts=True)
    square = image[0, 0]
    turned = [torch.rot90(square, k) for k in range(4)] if turns else [square]
    expected = [*turned, *(each.flip(-1) for each in turned)] if flips else turned
    expected += [each.flip(-2) for each in expected] if flips else []
    assert torch.equal(found, torch.stack(expected).reshape(-1, 9).unique(dim=0))
    assert len(found) == count
    assert numbers.min() > 800 / count / 2
    long = apply_symmetries(
        torch.arange(6).reshape(1, 2, 3).expand(800, 2, 3), random_symmetries(800, False, flips, turns)
    )
    assert len(long.unique(dim=0)) == (4 if flips else 2 if turns else 1)


@pytest.mark.parametrize('shape', [(16, 16), (16, 24)])
def test_image_and_mask_move_together(shape: tuple[int, int]) -> None:
    task = small(in_channels=3, num_classes=256, ignore_index=999, common_gain=(1.0, 1.0), band_gain=(1.0, 1.0))
    mask = torch.randint(0, 256, (32, *shape))
    image = mask[:, None].expand(-1, 3, -1, -1).to(torch.uint16)
    torch.manual_seed(3)
    moved, labels = task.augmented({'image': image, 'mask': mask})
    assert torch.equal(moved[:, 0], labels.float())
    assert torch.equal(moved[:, 0], moved[:, 2])
    assert len({index for index in range(32) if torch.equal(labels[index], mask[index])}) < 16


def test_invalid_pixels_have_no_label_and_no_value() -> None:
    task = small(flips=False, quarter_turns=False)
    batch = collate(make_chips(2))
    image, mask = task.augmented(batch)
    assert (mask[:, :, -1] == 255).all()
    assert (mask[:, :-2, :-1] == batch['mask'][:, :-2, :-1]).all()
    assert not image[..., -1].any()
    broken = {'image': torch.full((1, 4, 2, 2), 1.0), 'mask': torch.zeros(1, 1, 2, 2)}
    broken['image'][0, 2, 0, 0] = math.nan
    assert task.labels(broken).tolist() == [[[255, 0], [0, 0]]]


def test_gains_are_those_of_the_options() -> None:
    task = small(flips=False, quarter_turns=False, common_gain=(2.0, 2.0), band_gain=(1.5, 1.5))
    batch = collate(make_chips(2))
    expected = task.reflectance(batch) * 3
    torch.testing.assert_close(task.augmented(batch)[0][..., :-1], expected[..., :-1])


# ---------------------------------------------------------------------------------------------------- training


def encoder_state(task: Segmentation) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in task.model.encoder.state_dict().items()}


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {key for key, value in before.items() if not torch.equal(value, after[key])}


@pytest.mark.slow
def test_frozen_encoder_stays_to_the_last_buffer(tmp_path: Path) -> None:
    task = small(freeze='encoder')
    before, decoder = encoder_state(task), {k: v.clone() for k, v in task.model.decoder.state_dict().items()}
    make_trainer(tmp_path, max_steps=4).fit(task, datamodule=Chips())
    assert not changed(before, encoder_state(task))
    assert changed(decoder, task.model.decoder.state_dict())
    assert not any(parameter.requires_grad for parameter in task.model.encoder.parameters())
    assert not task.model.encoder.training
    assert task.model.decoder.training


@pytest.mark.slow
def test_encoder_thaws_at_the_step(tmp_path: Path) -> None:
    states = []

    class Watching(Segmentation):
        def on_train_batch_end(self, *given: Any) -> None:
            states.append((self.global_step, encoder_state(self)))

    task = Watching('fpn', in_channels=4, freeze='encoder_until', freeze_until_step=3, lr=1e-2, scheduler='none')
    before = encoder_state(task)
    make_trainer(tmp_path, max_steps=6).fit(task, datamodule=Chips())
    for step, state in states:
        moved = changed(before, state)
        assert bool(moved) == (step > 3), step
        if moved:
            assert 'conv1.weight' in moved
            assert 'bn1.running_mean' in moved


@pytest.mark.slow
def test_gradients_of_a_frozen_encoder_are_dropped(tmp_path: Path) -> None:
    """On several devices a frozen encoder has gradients, and trains as on one device."""
    states = []
    for devices in (1, 2):
        seed_everything(0)
        task = small(freeze_until_step=2, lr=1e-2)
        task._gradients_while_frozen = devices > 1  # what `setup` sets
        task.freeze_encoder(True)
        assert task.model.encoder.conv1.weight.requires_grad == (devices > 1)
        options = {'gradient_clip_val': 0.1, 'limit_val_batches': 0}
        make_trainer(tmp_path, max_steps=3, **options).fit(task, datamodule=Chips())
        states.append(task.state_dict())
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def test_rates_of_the_groups(tmp_path: Path) -> None:
    task = small(lr=0.02, encoder_lr_factor=0.1, scheduler='none', weights='encoder.safetensors')
    groups = task.configure_optimizers().param_groups  # type: ignore[union-attr]
    encoder = {id(parameter) for parameter in task.model.encoder.parameters()}
    found = set()
    for group in groups:
        inside = {id(parameter) in encoder for parameter in group['params']}
        assert len(inside) == 1
        assert group['lr'] == pytest.approx(0.002 if inside == {True} else 0.02)
        found |= {id(parameter) for parameter in group['params']}
    assert found == {id(parameter) for parameter in task.model.parameters()}
    assert sorted(group['weight_decay'] for group in groups) == [0, 0, 1e-2, 1e-2]
    frozen = small(freeze='encoder').parameter_groups()
    assert not any(id(parameter) in encoder for group in frozen for parameter in group['params'])
    thawing = small(freeze_until_step=2)
    assert thawing.freeze_mode == 'encoder_until'
    assert sum(len(group['params']) for group in thawing.parameter_groups()) == len(list(thawing.model.parameters()))
    assert not any(parameter.requires_grad for parameter in thawing.model.encoder.parameters())


def test_warmup_steps_replace_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    def schedule_steps(epochs: float) -> tuple[int, int]:
        return 100, round(20 * epochs)

    for options, expected in (({'warmup_epochs': 2}, 40), ({'warmup_steps': 3}, 3), ({'warmup_steps': 500}, 99)):
        task = small(**({'warmup_epochs': 1} | options))
        monkeypatch.setattr(task, 'schedule_steps', schedule_steps)
        assert task.schedule() == (100, expected)


@pytest.mark.slow
def test_schedules(tmp_path: Path) -> None:
    rates: list[float] = []

    class Watching(Segmentation):
        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            super().on_train_batch_start(batch, batch_idx)
            rates.append(self.optimizers().param_groups[-1]['lr'])  # type: ignore[union-attr]

    task = Watching('fpn', in_channels=4, lr=0.01, warmup_epochs=1)
    make_trainer(tmp_path, max_steps=6).fit(task, datamodule=Chips())
    factors = [0, 0.5, *(0.5 * (1 + math.cos(math.pi * step / 4)) for step in range(4))]
    assert rates == pytest.approx([0.01 * factor for factor in factors])
    rates.clear()
    plateau: Any = small(scheduler='plateau', patience=3).configure_optimizers()
    assert isinstance(plateau['lr_scheduler']['scheduler'], torch.optim.lr_scheduler.ReduceLROnPlateau)
    assert plateau['lr_scheduler']['monitor'] == 'val_mean_iou'
    assert plateau['lr_scheduler']['scheduler'].mode == 'max'
    make_trainer(tmp_path, max_steps=4).fit(small(scheduler='plateau'), datamodule=Chips())
    with pytest.raises(ConfigurationError, match='needs an end'):
        make_trainer(tmp_path, max_steps=-1, max_epochs=-1).fit(small(), datamodule=Chips())


@pytest.mark.slow
def test_a_few_chips_are_learnt_by_heart(tmp_path: Path) -> None:
    seed_everything(0)
    task, data = VineSegmentation(in_channels=4, lr=3e-3, encoder_lr_factor=1), Chips(batch_size=8)
    trainer = make_trainer(tmp_path, max_steps=30, limit_val_batches=0)
    trainer.fit(task, datamodule=data)
    assert trainer.test(task, datamodule=data)[0]['test_iou_vine'] > 0.9


@pytest.mark.slow
def test_run_folder_is_filled(tmp_path: Path) -> None:
    task, data = small(flips=False), Chips(batch_size=8)
    trainer = make_trainer(tmp_path)
    trainer.fit(task, datamodule=data)
    scores = trainer.test(task, datamodule=data)[0]
    folder = Path(trainer.log_dir)  # type: ignore[arg-type]
    for name in ('views.png', 'curves.png', 'confusion_matrix.png', 'sample_predictions.png'):
        assert imread(folder / name).std() > 0.02, name
    with (folder / 'confusion_matrix.csv').open(newline='') as file:
        rows = list(csv.reader(file))
    assert rows[0][1:] == ['background', 'vine']
    counts = np.array([row[1:] for row in rows[1:]], dtype=int)
    assert counts.sum() == 8 * 30 * 31  # two rows are not labelled, one column holds no data
    report = json.loads((folder / 'metrics_test.json').read_text())
    assert report['classes']['vine']['iou'] == pytest.approx(counts[1, 1] / (counts.sum() - counts[0, 0]))
    assert report['classes']['vine']['iou'] == pytest.approx(scores['test_iou_vine'], abs=1e-6)
    assert report['mean_iou'] == pytest.approx(scores['test_mean_iou'], abs=1e-6)
    assert (folder / 'metrics_val.json').is_file()
    assert json.loads((folder / 'weights_report.json').read_text())['source'] == 'random initialisation'

    predictions: Any = trainer.predict(task, dataloaders=data.predict_dataloader())
    torch.testing.assert_close(predictions[0]['probabilities'].sum(dim=1), torch.ones(8, 32, 32))
    assert 'image' not in predictions[0]


@pytest.mark.slow
def test_scores_do_not_depend_on_batches_and_absent_classes_are_null(tmp_path: Path) -> None:
    task = small(num_classes=3)
    reports = []
    for size in (1, 3, 8):
        data = Chips(batch_size=size)
        data.class_names = ['background', 'vine', 'tree']
        trainer = make_trainer(tmp_path)
        task.model.segmentation_head[0].bias.data[2] = -1e6  # never predicted
        scores = trainer.validate(task, datamodule=data, verbose=False)[0]
        assert math.isnan(scores['val_iou_tree'])
        reports.append(json.loads((Path(trainer.log_dir) / 'metrics_val.json').read_text()))  # type: ignore[arg-type]
    assert reports[0] == reports[1] == reports[2]
    assert reports[0]['classes']['tree'] == {'iou': None, 'f1': None, 'precision': None, 'recall': None, 'pixels': 0}


@pytest.mark.slow
def test_resumed_run_is_the_uninterrupted_one(tmp_path: Path) -> None:
    weights = save_task(pretrained('resnet18'), tmp_path / 'encoder.ckpt')

    def fit(steps: int, checkpoint: Path | None = None) -> Segmentation:
        seed_everything(5)
        task = small(weights=str(weights), scheduler='none', freeze='encoder_until', freeze_until_step=3)
        trainer = make_trainer(tmp_path, max_steps=steps)
        trainer.fit(task, datamodule=Chips(), ckpt_path=checkpoint, weights_only=True)
        trainer.save_checkpoint(tmp_path / f'{steps}.ckpt')
        return task

    whole, _ = fit(6), fit(2)
    weights.unlink()  # a checkpoint needs nothing besides
    resumed = fit(6, tmp_path / '2.ckpt')
    assert not changed(whole.state_dict(), resumed.state_dict())
    torch.testing.assert_close(resumed.normalize.mean, torch.tensor(MEAN) * 1.1)


def test_losses_that_are_not_finite_stop_the_run(tmp_path: Path) -> None:
    task = small(scheduler='none')
    task.model.segmentation_head[0].bias.data[0] = math.inf
    with pytest.raises(NonFiniteLossError, match='blue 300 to 899'):
        make_trainer(tmp_path).fit(task, datamodule=Chips())


def test_data_module_of_somebody_else_normalises_itself(tmp_path: Path) -> None:
    task = small()
    task.trainer = make_trainer(tmp_path)
    task.trainer.datamodule = SimpleNamespace(mean=1)  # type: ignore[attr-defined]
    task.setup('fit')
    x = torch.randn(1, 4, 32, 32)
    assert torch.equal(task.normalize(x), x)


def test_weights_of_a_plain_encoder_file(tmp_path: Path) -> None:
    before = pretrained('resnet18')
    save_encoder(before.model, tmp_path / 'e.safetensors', EncoderMetadata('fastsiam', 'resnet18', tuple(BANDS)))
    task = attach(small(weights=str(tmp_path / 'e.safetensors')), tmp_path)
    torch.testing.assert_close(task.normalize.mean, torch.tensor(MEAN))  # it has no statistics
    assert torch.equal(task.model.encoder.conv1.weight, before.model.conv1.weight)


def test_pixels_without_a_class_in_the_map_are_not_counted() -> None:
    """At the edge of warped scenes a pixel may hold data in a chip and none in the map."""
    task = small()
    mask = torch.tensor([[[0, 1], [1, 255]]])
    task.maps = SimpleNamespace(classes=lambda _: torch.tensor([[[0, 255], [1, 1]]]))  # type: ignore[assignment]
    task.labels = lambda _: mask  # type: ignore[method-assign]
    task.test_step({}, 0)
    assert task.confusion.tolist() == [[1, 0], [0, 1]]
