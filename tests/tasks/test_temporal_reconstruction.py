"""Temporal reconstruction as a task: its loss, its pictures, and its checkpoint."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from matplotlib.image import imread
from torch import Tensor

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.models.segmentation import create_network
from torchgeo_msssl.models.weights import load_network
from torchgeo_msssl.tasks import Acceleration, TemporalReconstruction

#: A network of a few thousand parameters.
TINY: dict[str, Any] = {'model': 'test_resnet', 'in_channels': 4}


def make_batch(bands: int = 4, side: int = 32, batch: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    found: dict[str, Tensor] = {}
    for prefix, name in (('', 'image'), ('positive_', 'positive')):
        image = torch.randint(1, 60000, (batch, bands, side, side), generator=generator)
        found |= {
            name: image.to(torch.uint16),
            f'{prefix}valid': torch.ones(batch, 1, side, side, dtype=torch.bool),
            f'{prefix}scale': torch.full((batch, bands), 1e-4),
            f'{prefix}offset': torch.zeros(batch, bands),
        }
    return found


class PairedData:
    """Makes the tiny data, with each chip's partner, which is brighter by one standard deviation."""

    def __init__(self, data_class: type[Any], positives: str = 'temporal') -> None:
        self.data_class = data_class
        self.positives = positives

    def __call__(self) -> Any:
        data = self.data_class()
        data.positives = self.positives
        for chip in data.batches.dataset:
            chip |= {'positive': (chip['image'].int() + 500).to(torch.uint16)} | {
                f'positive_{key}': chip[key] for key in ('valid', 'scale', 'offset')
            }
        return data


@pytest.mark.parametrize('bands', [1, 5])
def test_everything_learns(bands: int) -> None:
    task = TemporalReconstruction(**(TINY | {'in_channels': bands}))
    batch = make_batch(bands)
    loss, features, embedding = task.compute_loss(batch)
    loss.backward()
    assert features.shape == embedding.shape == task(batch['image']).shape
    assert all(p.grad is not None for p in task.parameters() if p.requires_grad)


@pytest.mark.parametrize('kind', ['l1', 'mse'])
def test_the_loss_is_of_pixels_that_are_valid_on_both_dates(kind: str) -> None:
    task = TemporalReconstruction(**TINY, loss=kind, flips=False, quarter_turns=False)
    task.normalize.set_statistics([0.5, 1.0, 2.0, 3.0], [1.0, 2.0, 0.5, 4.0], [1e-4] * 4, [0.0] * 4)
    batch = make_batch()
    batch['valid'][:, :, :, :10] = False
    batch['positive_valid'][:, :, 20:] = False
    guess = torch.randn(3, 4, 32, 32)
    task.predict_image = lambda image: (guess, image.mean(dim=(-2, -1)))  # type: ignore[method-assign]
    loss, _, _ = task.compute_loss(batch)
    # in reflectance, by hand: the mean of each band cancels in a difference
    change = (batch['positive'].double() - batch['image'].double()).numpy() * 1e-4
    error = change / np.array([1.0, 2.0, 0.5, 4.0])[:, None, None] - guess.double().numpy()
    error = error[:, :, :20, 10:]
    expected = np.abs(error).mean() if kind == 'l1' else np.square(error).mean()
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_values_without_data_change_nothing() -> None:
    batch = make_batch()
    batch['valid'][:, :, 4:9] = False
    batch['positive_valid'][:, :, :, 7:11] = False
    task = TemporalReconstruction(**TINY).eval()
    losses = []
    for value in (0, 60_000):
        changed = {key: tensor.clone() for key, tensor in batch.items()}
        changed['image'] = torch.where(batch['valid'], batch['image'].int(), value).to(torch.uint16)
        changed['positive'] = torch.where(batch['positive_valid'], batch['positive'].int(), value).to(torch.uint16)
        torch.manual_seed(3)
        losses.append(task.compute_loss(changed)[0])
    torch.testing.assert_close(losses[0], losses[1], rtol=0, atol=0)


def test_both_dates_turn_together() -> None:
    task = TemporalReconstruction(**TINY)
    rows, cols = torch.meshgrid(torch.arange(1, 33), torch.arange(1, 33), indexing='ij')
    image = torch.stack([rows, cols, rows + cols, rows * cols]).expand(40, -1, -1, -1).to(torch.uint16)
    batch = {'image': image, 'positive': image}
    torch.manual_seed(0)
    first, second, valid, both = task.pairs(batch)
    assert torch.equal(first, second)
    assert len({tuple(chip[:2].flatten().tolist()) for chip in first}) == 8  # symmetries of the square
    assert valid.all()
    assert both.all()


@pytest.mark.parametrize('positives', ['same', 'nearby'])
def test_chips_of_one_date_are_refused(
    positives: str, tiny_data: Any, logging_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    data = PairedData(tiny_data, positives)()
    with pytest.raises(ConfigurationError, match=rf"^positives: .* got '{positives}'; set data.positives"):
        logging_trainer(tmp_path, 1).fit(TemporalReconstruction(**TINY), datamodule=data)
    with pytest.raises(ConfigurationError, match=r'^positives: .* needs chips with another date'):
        TemporalReconstruction(**TINY).compute_loss({'image': make_batch()['image']})


def test_compilation_is_refused(tiny_data: Any, logging_trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    trainer = logging_trainer(tmp_path, 1, callbacks=[Acceleration(compile=True)])
    with pytest.raises(ConfigurationError, match='TemporalReconstruction calls parts of its encoder'):
        trainer.fit(TemporalReconstruction(**TINY), datamodule=PairedData(tiny_data)())


@pytest.mark.slow
def test_a_constant_change_is_learned_and_drawn(
    tiny_data: Any, logging_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    trainer = logging_trainer(tmp_path, epochs=8)
    trainer.fit(TemporalReconstruction(**TINY, lr=3e-2), datamodule=PairedData(tiny_data)())
    assert trainer.callback_metrics['train_loss_epoch'] < 0.7 * trainer.callback_metrics['train_loss_given']
    (folder,) = (tmp_path / 'run').iterdir()
    picture = imread(folder / 'predictions.png')[..., :3]
    width = picture.shape[1] // 3
    # the third column is closer to the second than the first one is
    columns = [picture[40:, i * width + 4 : (i + 1) * width - 4] for i in range(3)]
    assert np.abs(columns[2] - columns[1]).mean() < np.abs(columns[0] - columns[1]).mean()
    assert {'views.png', 'curves.png', 'encoder.safetensors'} <= {path.name for path in folder.iterdir()}


@pytest.mark.slow
def test_the_whole_network_starts_a_segmentation(
    tiny_data: Any, logging_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    task = TemporalReconstruction(**TINY)
    trainer = logging_trainer(tmp_path, 1)
    trainer.fit(task, datamodule=PairedData(tiny_data)())
    trainer.save_checkpoint(tmp_path / 'last.ckpt')
    network: Any = create_network('unet', 'test_resnet', 4, 3)
    report = load_network(network, tmp_path / 'last.ckpt', bands=tiny_data.bands)
    assert {key.partition('.')[0] for key in report.missing} == {'segmentation_head'}
    network.segmentation_head = task.restoration_head
    image = torch.randn(2, 4, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(image), task.eval().predict_image(image)[0])


def test_a_task_is_built_from_its_hyperparameters() -> None:
    task = TemporalReconstruction(**TINY, loss='mse', architecture='fpn')
    assert {type(value).__module__ for value in task.hparams.values()} == {'builtins'}
    again = TemporalReconstruction(**dict(task.hparams))
    assert again.criterion.kind == 'mse'
    assert again.state_dict().keys() == task.state_dict().keys()


@pytest.mark.slow
def test_a_resumed_run_is_the_uninterrupted_one(
    check_resume: Callable[..., Any], tiny_data: Any, tmp_path: Path
) -> None:
    check_resume(lambda: TemporalReconstruction(**TINY), tmp_path, make_data=PairedData(tiny_data))


@pytest.mark.parametrize(
    ('options', 'named'), [({'loss': 'huber'}, 'loss'), ({'architecture': 'pspnet'}, 'architecture')]
)
def test_options_out_of_range_are_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=f'^{named}'):
        TemporalReconstruction(**TINY, **options)
