"""Segmentation with a teacher: its labels, its loss against a transcription, checkpoints and resuming."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningDataModule, Trainer, seed_everything
from torch import Tensor
from torch.utils.data import DataLoader

from torchgeo_msssl.errors import ConfigurationError, NonFiniteLossError, WeightsError
from torchgeo_msssl.models.weights import export_encoder, read_source
from torchgeo_msssl.tasks import Segmentation, SemiSupervision

BANDS, SIDE = ['red', 'green', 'blue'], 32
#: Options with which a network sees unlabelled chips as its teacher does.
STILL: dict[str, Any] = {'common_gain': (1, 1), 'band_gain': (1, 1), 'blur': 0, 'noise': 0, 'cutmix': 0}


def chips(count: int, seed: int) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(seed)
    valid = torch.ones(1, SIDE, SIDE, dtype=torch.bool)
    valid[..., -3:] = False
    images = torch.randint(0, 255, (count, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    return [{'image': image, 'mask': (image[0] > 127).long(), 'valid': valid} for image in images]


def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    batch = {key: torch.stack([sample[key] for sample in samples]) for key in ('image', 'mask', 'valid')}
    # other chips, in the reverse order
    return batch | {'unlabelled': {key: batch[key].flip(0) for key in ('image', 'valid')}}


class Data(LightningDataModule):
    """A ``contract.UnlabelledData``."""

    bands, mean, std = BANDS, [0.5] * 3, [0.3] * 3
    scale, offset, wavelengths = [1 / 255] * 3, [0.0] * 3, ()
    sensor_name, rgb_index, chip_size, batch_size, ignore_index = None, (0, 1, 2), SIDE, 2, 255
    in_channels, class_names = 3, ('soil', 'vine')
    requested = 0

    def add_unlabelled(self) -> None:
        self.requested += 1

    def train_dataloader(self) -> Any:
        return DataLoader(chips(6, seed=0), 2, collate_fn=collate)

    def region_loader(self, part: str, context: int = 0) -> Any:
        return self.train_dataloader()

    def describe_chips(self, batch: Any) -> list[str]:
        return [f'{"labelled" if "mask" in batch else "unlabelled"} chips']

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch


def make_task(semi: Any = None, **options: Any) -> Segmentation:
    options = {'in_channels': 3, 'model': 'fpn', 'scheduler': 'none', 'semi': semi} | options
    return Segmentation(**options)


def make_trainer(folder: Path, steps: int) -> Trainer:
    return Trainer(
        default_root_dir=folder,
        max_steps=steps,
        limit_val_batches=0,
        logger=False,
        accelerator='cpu',
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def attached(folder: Path, semi: Any, **options: Any) -> Segmentation:
    seed_everything(0)
    task = make_task(semi, **options)
    task.trainer = make_trainer(folder, 3)
    task.trainer.datamodule = Data()  # type: ignore[attr-defined]
    task.setup('fit')
    task.on_fit_start()
    task.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    return task


def perturb_weights(network: torch.nn.Module, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


def first_batch() -> dict[str, Any]:
    return collate(chips(2, seed=0))


@pytest.mark.parametrize('method', ['fixmatch', 'mean_teacher'])
def test_the_loss_is_that_of_the_papers(tmp_path: Path, method: Any) -> None:
    semi = SemiSupervision(**STILL, method=method, weight=0.7, warmup_steps=0, class_fraction=0)
    # a U-Net has no dropout
    still: dict[str, Any] = {'flips': False, 'quarter_turns': False, 'common_gain': (1, 1), 'band_gain': (1, 1)}
    task = attached(tmp_path, semi, model='unet', **still)
    assert task.teacher is not None
    perturb_weights(task.teacher)
    task.train()
    batch = first_batch()

    def standardized(some: dict[str, Tensor]) -> Tensor:
        return torch.where(some['valid'], (some['image'] / 255 - 0.5) / 0.3, 0.0)

    x, u = standardized(batch), standardized(batch['unlabelled'])
    with torch.no_grad():
        probability = task.teacher.encoder(u).softmax(1)
    confidence, label = probability.max(1)
    semi.threshold = confidence.median().item()
    student = copy.deepcopy(task.model)
    loss = task.training_loss(batch, *task.augmented(batch))
    pred_x, pred_u = student(torch.cat([x, u])).split([2, 2])
    valid = batch['unlabelled']['valid'].squeeze(1)
    labelled = torch.where(batch['valid'].squeeze(1), batch['mask'], 255)
    if method == 'fixmatch':
        used = (confidence >= semi.threshold) & valid
        assert 0 < used.sum() < valid.sum()
        unsupervised = (F.cross_entropy(pred_u, label, reduction='none') * used).sum() / valid.sum()
    else:
        unsupervised = (pred_u.softmax(1) - probability).square().mean(1)[valid].mean()
    expected = F.cross_entropy(pred_x, labelled, ignore_index=255) + 0.7 * unsupervised
    torch.testing.assert_close(loss, expected, rtol=1e-3, atol=0)  # tiny feature maps and batch norm amplify rounding
    loss.backward()
    assert all(parameter.grad is None for parameter in task.teacher.parameters())


def test_labels_move_with_the_chips(tmp_path: Path) -> None:
    task = attached(tmp_path, SemiSupervision(**STILL | {'cutmix': 1}))

    def coordinates(x: Tensor, network: Any = None) -> Tensor:
        """Logits of class 1 that are the value of the first band; the standardized chips themselves."""
        assert network is task.teacher
        return torch.stack([torch.zeros_like(x[:, 0]), x[:, 0]], 1)

    task.segment = coordinates  # type: ignore[method-assign, assignment]
    torch.manual_seed(0)
    image, probability, valid = task.augmented_unlabelled(first_batch()['unlabelled'])
    torch.testing.assert_close(probability[:, 1:][valid], image[:, :1].sigmoid()[valid])
    assert not image[~valid.expand_as(image)].any()
    assert not torch.equal(valid, first_batch()['unlabelled']['valid'])


def test_the_labelled_part_of_a_step_is_that_of_a_supervised_one(tmp_path: Path) -> None:
    plain = attached(tmp_path, None)
    task = attached(tmp_path, {'weight': 0.0})
    images = []
    for some in (plain, task):
        some.seed_step(3)
        images.append(some.augmented(first_batch()))
    for one, other in zip(*images, strict=True):
        assert torch.equal(one, other)


def fit(folder: Path, steps: int, semi: Any) -> Any:
    seed_everything(5)
    trainer, task, data = make_trainer(folder, steps), make_task(semi), Data()
    trainer.fit(task, datamodule=data)
    trainer.save_checkpoint(folder / f'{steps}.ckpt')
    assert data.requested == (0 if semi is None else 1)
    return task


def test_one_step_starts_the_teacher_and_moves_it(tmp_path: Path) -> None:
    task = fit(tmp_path, 1, {})
    # the momentum of the first step is 0
    assert not different(task.teacher.encoder, task.model)


def different(one: torch.nn.Module, other: torch.nn.Module) -> list[str]:
    return [name for name, tensor in one.state_dict().items() if not torch.equal(tensor, other.state_dict()[name])]


@pytest.mark.slow
def test_checkpoints_hold_both_networks(tmp_path: Path) -> None:
    semi = {'ema': 0.5, 'warmup_steps': 3, 'threshold': 0.5}
    whole = fit(tmp_path, 3, semi)
    assert different(whole.teacher.encoder, whole.model)

    image = first_batch()['image']
    teacher = Segmentation.load_from_checkpoint(tmp_path / '3.ckpt', weights_only=True).eval()
    assert teacher.semi == SemiSupervision(**semi)
    student = Segmentation.load_from_checkpoint(
        tmp_path / '3.ckpt', weights_only=True, semi=semi | {'predict_with': 'student'}
    ).eval()
    whole.eval()
    x = whole.normalize(image)
    assert torch.equal(teacher(image), whole.teacher(x))
    assert torch.equal(student(image), whole.model(x))
    assert not torch.equal(teacher(image), student(image))

    export_encoder(tmp_path / '3.ckpt', tmp_path / 'encoder.safetensors')
    exported = read_source(tmp_path / 'encoder.safetensors').state_dict
    assert torch.equal(exported['conv1.weight'], whole.model.encoder.conv1.weight)


def test_checkpoints_of_the_other_kind_are_refused() -> None:
    supervised, semi_supervised = make_task(None), make_task({})
    for task, other, message in (
        (supervised, semi_supervised, r'a teacher.*config.yaml'),
        (semi_supervised, supervised, r'no teacher.*leave it out'),
    ):
        with pytest.raises(WeightsError, match=message):
            task.on_load_checkpoint({'state_dict': other.state_dict()})


def test_batches_without_unlabelled_chips_are_reported(tmp_path: Path) -> None:
    task, batch = attached(tmp_path, {}), first_batch()
    del batch['unlabelled']
    with pytest.raises(ConfigurationError, match='semi: expected unlabelled chips'):
        task.training_loss(batch, *task.augmented(batch))


def test_a_loss_that_is_not_finite_names_the_unlabelled_chips(tmp_path: Path) -> None:
    task, batch = attached(tmp_path, {'class_fraction': 1.0}), first_batch()
    task.model.segmentation_head[0].bias.data[0] = torch.nan
    with pytest.raises(NonFiniteLossError, match='unlabelled chips'):
        task.training_loss(batch, *task.augmented(batch))


@pytest.mark.parametrize(
    'options', [{'method': 'x'}, {'ema': 1.0}, {'threshold': 2}, {'weight': -1}, {'predict_with': 'both'}]
)
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        make_task(options)
