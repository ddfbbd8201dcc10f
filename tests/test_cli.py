"""Command line: commands, run folder, resuming, TorchGeo's own command, and error messages."""

import csv
import errno
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import torch
import yaml
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.image import imread
from rasterio.transform import from_origin
from safetensors import safe_open
from safetensors.torch import load_file
from torchgeo.tasks import Classification, SemanticSegmentation

from torchgeo_msssl.__main__ import main
from torchgeo_msssl.cli import CLI, last_run, run_trainer, show_log
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.open_datasets import pooled_raster
from torchgeo_msssl.geo.sample import SampleArea
from torchgeo_msssl.models import load_encoder
from torchgeo_msssl.models.encoders import create_encoder
from torchgeo_msssl.tasks import Augmentation, FastSiam, JointEmbeddingTask, SimSiam, TextureClassifier
from torchgeo_msssl.tasks.run_folder import MetricsFile

REPOSITORY = Path(__file__).parents[1]
#: Configurations of `fit`, without those of `probe`, `recommend` and `study`.
OTHERS = ('probe_', 'recommend_', 'study_')
CONFIGS = sorted(path for path in (REPOSITORY / 'configs').glob('*.yaml') if not path.name.startswith(OTHERS))
#: Configurations that the fast loop runs.
FAST = {'vineseg_drone'}
BANDS = ('B02', 'B03', 'B04', 'B08')

SMALL = shlex.split(
    '--model.model test_resnet --model.views 2 --model.hidden_dim 32 --model.output_dim 32 --model.bottleneck_dim 8 '
    '--data.chip_size 32 --data.batch_size 4 --data.chips_per_epoch 12 '
    '--trainer.log_every_n_steps 1 --trainer.enable_progress_bar false --trainer.enable_model_summary false'
)
FASTSIAM = ['fit', '--config', str(REPOSITORY / 'configs' / 'fastsiam_s2.yaml')]


def write_scene(path: Path, side: int = 80, crs: str | None = 'EPSG:32631', **options: object) -> Path:
    """Write four named uint16 bands of noise in tiles."""
    rng = np.random.default_rng(len(path.name))
    image = rng.integers(500, 3000, (4, side, side)).astype(np.uint16)
    profile = {'tiled': True, 'blockxsize': 32, 'blockysize': 32, 'compress': 'deflate'} | options
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path,
        'w',
        driver='GTiff',
        height=side,
        width=side,
        count=4,
        dtype='uint16',
        crs=crs,
        transform=from_origin(500000, 4900000, 10, 10),
        **profile,
    ) as dataset:
        dataset.write(image)
        dataset.descriptions = BANDS
    return path


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty folder, without the arguments of pytest, which Lightning would compare."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', ['torchgeo_msssl'])
    monkeypatch.setenv('TORCHGEO_MSSSL_CACHE', str(tmp_path / 'cache'))


@pytest.fixture
def area(small_area: SampleArea) -> Path:
    """Return the folder of the small sample area."""
    return small_area.directory


@pytest.fixture(scope='module')
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[FastSiam, str, Path]:
    """Return the task, scene and run folder of a finished run of one epoch, which tests only read."""
    folder = tmp_path_factory.mktemp('finished')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, 'argv', ['torchgeo_msssl'])
        patch.setenv('TORCHGEO_MSSSL_CACHE', str(folder / 'cache'))
        scene = str(write_scene(folder / 'scene.tif'))
        cli = fit('--data.paths', scene, '--trainer.max_epochs', '1')
    return cli.model, scene, folder / 'runs' / 'fastsiam_s2' / 'version_0'


def fit(*options: str, config: list[str] = FASTSIAM) -> Any:
    return run_trainer([*config, *SMALL, *options])


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / 'metrics.csv').open(newline='') as file:
        return list(csv.DictReader(file))


def test_help_does_not_import_torch() -> None:
    code = (
        'import sys; from torchgeo_msssl.__main__ import main; main(["--help"]); '
        'sys.exit(any(name in sys.modules for name in ("torch", "lightning", "torchgeo", "rasterio")))'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.returncode == 0, done.stderr
    assert 'fit' in done.stdout
    assert 'export' in done.stdout


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['pretrain']) == 2
    assert "'pretrain'" in capsys.readouterr().err


def test_run_folder_is_complete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = write_scene(tmp_path / 'scenes' / 'T31TFJ_20210601.tif')
    assert main([*FASTSIAM, *SMALL, '--data.paths', str(scene), '--trainer.max_epochs', '2']) == 0
    folder = tmp_path / 'runs' / 'fastsiam_s2' / 'version_0'
    for name in ('config.yaml', 'checkpoints/last.ckpt', 'views.png', 'curves.png', 'statistics.json'):
        assert (folder / name).is_file(), name
    assert list(folder.glob('events.out.tfevents.*'))
    printed = capsys.readouterr()
    assert f'Run folder: {folder.relative_to(tmp_path)}' in printed.out
    assert f'probe_s2.yaml --encoders {folder.relative_to(tmp_path)}/encoder.safetensors' in printed.out
    assert [line[:16] for line in printed.err.splitlines() if 'Epoch' in line] == [
        'INFO: Epoch 1/2:',
        'INFO: Epoch 2/2:',
    ]
    assert 'FLOPs' not in printed.out + printed.err

    found = rows(folder)
    losses = [float(row['train_loss_step']) for row in found if row['train_loss_step']]
    assert len(losses) == 6
    assert all(-1 <= loss <= 1 for loss in losses)
    epochs = [row for row in found if row['train_loss_epoch']]
    assert [row['epoch'] for row in epochs] == ['0', '1']
    # the epoch's loss is the mean of its steps' (another way of adding up)
    assert float(epochs[1]['train_loss_epoch']) == pytest.approx(np.mean(losses[3:]), abs=1e-6)
    for name in ('mean_cosine', 'rank_me', 'epoch_embedding_std'):
        assert np.isfinite(float(epochs[0][name]))

    height, width, _ = imread(folder / 'views.png').shape
    assert width / (height - 30) == pytest.approx(3 / 4, abs=0.02)  # a chip and its two views, four times, with titles
    with safe_open(folder / 'encoder.safetensors', 'pt') as file:
        metadata = file.metadata()
    assert json.loads(metadata['bands']) == list(BANDS)
    assert json.loads(metadata['method']) == 'fastsiam'
    with rasterio.open(scene) as dataset:
        reflectance = dataset.read() * 1e-4  # before 2022: no offset
    assert json.loads(metadata['mean']) == pytest.approx(reflectance.mean((1, 2)).tolist(), rel=1e-5)
    assert json.loads(metadata['std']) == pytest.approx(reflectance.std((1, 2)).tolist(), rel=1e-5)


def test_first_layer_is_adapted_to_the_bands(tmp_path: Path) -> None:
    write_scene(tmp_path / 'a' / 'one.tif')
    write_scene(tmp_path / 'a' / 'two.tif')
    cli = fit('--data.paths', f'{tmp_path}/a/*.tif', '--data.bands', '[B8,B2]', '--trainer.max_steps', '1')
    assert cli.model.model.conv1[0].in_channels == 2
    assert cli.datamodule.bands == ('B08', 'B02')
    assert len(cli.datamodule.scenes) == 2
    assert cli.model.hparams['in_channels'] == 2


@pytest.mark.slow
def test_checkpoint_loads_in_stock_torchgeo(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / 'scene.tif')
    cli = fit('--data.paths', str(scene), '--model.model', 'resnet18', '--trainer.max_steps', '2')
    checkpoint = 'runs/fastsiam_s2/version_0/checkpoints/last.ckpt'
    trained = cli.model.model.state_dict()
    assert len(trained) > 100
    segmentation = SemanticSegmentation('unet', 'resnet18', weights=checkpoint, in_channels=4, num_classes=2)
    for key, tensor in segmentation.model.encoder.state_dict().items():
        assert torch.equal(tensor, trained[key]), key
    classification = Classification('resnet18', weights=checkpoint, in_channels=4, num_classes=3)
    theirs = classification.model.state_dict()
    for key, tensor in trained.items():
        assert torch.equal(theirs[key], tensor), key


def test_export_writes_the_encoder_of_the_run(finished: tuple[FastSiam, str, Path]) -> None:
    task, _, folder = finished
    assert main(['export', str(folder / 'checkpoints' / 'last.ckpt'), 'out.safetensors']) == 0
    exported, written = load_file('out.safetensors'), load_file(folder / 'encoder.safetensors')
    trained = task.model.state_dict()
    assert exported.keys() == written.keys() == trained.keys()
    assert all(torch.equal(exported[key], trained[key]) and torch.equal(written[key], trained[key]) for key in trained)
    encoder = create_encoder('test_resnet', 3)
    report = load_encoder(encoder, 'out.safetensors', bands=('B04', 'B03', 'B02'))
    assert not report.missing
    assert main(['export', 'nothing.ckpt', 'out2.safetensors']) == 1


def test_weights_initialize_another_run(finished: tuple[FastSiam, str, Path]) -> None:
    first, scene, folder = finished
    encoder = str(folder / 'encoder.safetensors')
    second = fit('--data.paths', scene, '--model.weights', encoder, '--trainer.max_steps', '1', '--model.lr', '1e-30')
    for key, tensor in first.model.named_parameters():
        torch.testing.assert_close(second.model.model.get_parameter(key), tensor, atol=1e-20, rtol=0)


def test_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / 'file').write_text('')
    assert main(['sample', str(tmp_path / 'file' / 'sample')]) == 1
    assert 'cannot be written' in capsys.readouterr().err


class Kill(Callback):
    """Kill the process at step 12, as the system does if memory runs out."""

    def on_train_batch_start(self, trainer: object, pl_module: object, batch: object, batch_idx: int) -> None:
        if trainer.global_step == 12:
            os.kill(os.getpid(), signal.SIGKILL)


RESUME_CONFIG = """\
seed_everything: 3
model:
  class_path: torchgeo_msssl.tasks.FastSiam
  init_args: {model: test_resnet, in_channels: 4, views: 3, hidden_dim: 32, output_dim: 32, bottleneck_dim: 8,
              warmup_epochs: 0.5}
data:
  class_path: torchgeo_msssl.datamodules.PretrainingDataModule
  init_args: {chip_size: 32, chips_per_epoch: 28, batch_size: 4, num_workers: WORKERS}
trainer:
  max_steps: 20
  log_every_n_steps: 1
  enable_progress_bar: false
  logger: {class_path: lightning.pytorch.loggers.TensorBoardLogger, init_args: {save_dir: runs, name: x}}
  callbacks:
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {save_last: true, save_top_k: 0, every_n_train_steps: 5}
"""


def start(command: Sequence[str], folder: Path) -> 'subprocess.Popen[str]':
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | {'OMP_NUM_THREADS': '1'},
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


@pytest.mark.slow
@pytest.mark.parametrize('workers', [0, 2])
def test_killed_run_resumes_bit_identically(tmp_path: Path, workers: int) -> None:
    """20 steps equal 12 steps, SIGKILL, and a resume from the checkpoint of step 10, in the middle of an epoch of 7."""
    scene = str(write_scene(tmp_path / 'scene.tif'))
    config = tmp_path / 'config.yaml'
    config.write_text(RESUME_CONFIG.replace('WORKERS', str(workers)))
    command = [sys.executable, '-m', 'torchgeo_msssl', 'fit', '--config', str(config), '--data.paths', scene]
    script = (
        'import sys; sys.path.insert(0, sys.argv.pop(1)); import test_cli; '
        'import torchgeo_msssl.tasks.base as base; old = base.PretrainingTask.configure_callbacks; '
        'base.PretrainingTask.configure_callbacks = lambda self: [*old(self), test_cli.Kill()]; '
        'from torchgeo_msssl.cli import run_trainer; run_trainer(sys.argv[1:])'
    )
    ended_early = [sys.executable, '-c', script, str(Path(__file__).parent), *command[3:]]
    # in parallel, on one thread each
    started = [start(command, tmp_path / 'whole'), start(ended_early, tmp_path / 'killed')]
    whole_errors, killed_errors = (process.communicate()[1] for process in started)
    assert started[0].returncode == 0, whole_errors[-2000:]
    assert started[1].returncode == -signal.SIGKILL, killed_errors[-2000:]
    resumed = start([*command, '--ckpt_path', 'last'], tmp_path / 'killed')
    errors = resumed.communicate()[1]
    assert resumed.returncode == 0, errors[-2000:]
    checkpoints = []
    for name in ('whole', 'killed'):
        folder = tmp_path / name / 'runs' / 'x' / 'version_0'
        checkpoints.append(torch.load(folder / 'checkpoints' / 'last.ckpt', weights_only=True))
        steps = [int(row['step']) for row in rows(folder) if row['train_loss_step']]
        assert steps == list(range(20))
    whole, killed = checkpoints
    assert whole['global_step'] == killed['global_step'] == 20
    for key, tensor in whole['state_dict'].items():
        assert torch.equal(tensor, killed['state_dict'][key]), key
    momenta = [point['optimizer_states'][0]['state'] for point in checkpoints]
    assert len(momenta[0]) > 40
    for i, state in momenta[0].items():
        assert torch.equal(state['momentum_buffer'], momenta[1][i]['momentum_buffer'])


def test_last_selects_the_newest_run(tmp_path: Path) -> None:
    for number, age in ((0, 300), (2, 100), (10, 200)):
        checkpoint = tmp_path / f'version_{number}' / 'checkpoints' / 'last.ckpt'
        checkpoint.parent.mkdir(parents=True)
        checkpoint.write_text('')
        os.utime(checkpoint, (1e9 - age, 1e9 - age))
    assert last_run(tmp_path)[0] == 2
    named = tmp_path / 'few_labels' / 'checkpoints' / 'last.ckpt'
    named.parent.mkdir(parents=True)
    named.write_text('')
    assert last_run(tmp_path) == ('few_labels', named)


@pytest.mark.parametrize('weights', ['pretrained', 'pretrained/version_0', 'pretrained/version_1'])
def test_weights_of_a_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], weights: str) -> None:
    for number in (0, 1):
        encoder = Path(f'runs/pretrained/version_{number}/encoder.safetensors')
        encoder.parent.mkdir(parents=True)
        encoder.write_bytes(b'')
        os.utime(encoder, (1e9 + number, 1e9 + number))

    def stop(self: CLI) -> None:
        raise ConfigurationError('stop')

    monkeypatch.setattr(CLI, 'instantiate_classes', stop)
    assert main([*FASTSIAM, '--model.weights', weights]) == 1
    expected = weights if '/' in weights else 'pretrained/version_1'
    assert f'Taking the weights runs/{expected}/encoder.safetensors' in capsys.readouterr().out


def small_options(config: Path, area: Path, prefix: str) -> list[str]:
    """Return options with which a configuration runs on the small area in a short time."""
    data = yaml.safe_load(config.read_text())['data']
    options = {'sample_dir': str(area), 'chips_per_epoch': '4', 'batch_size': '2'}
    splits = data['class_path'].endswith('SegmentationDataModule') or 'val_fraction' in data['init_args']
    if splits:  # chips and blocks that fit into small scenes
        options |= {'chip_size': '32'} | ({} if data['init_args'].get('reader') == 'chips' else {'block_size': '64'})
    return [text for key, value in options.items() for text in (f'{prefix}{key}', value)]


@pytest.mark.parametrize(
    'config',
    [pytest.param(path, marks=() if path.stem in FAST else pytest.mark.slow, id=path.stem) for path in CONFIGS],
)
def test_config_trains_one_step_on_the_sample_area(config: Path, area: Path) -> None:
    options = [
        *small_options(config, area, '--data.'),
        *('--trainer.max_steps', '1', '--trainer.enable_progress_bar', 'false', '--trainer.accelerator', 'cpu'),
    ]
    cli = run_trainer(['fit', '--config', str(config), *options])
    assert cli.trainer.global_step == 1
    if isinstance(cli.model, TextureClassifier):  # fitted, not trained by gradients
        return
    # after one step the optimizer has a state for every trained parameter
    (optimizer,) = cli.trainer.optimizers
    trained = [p for p in cli.model.parameters() if p.requires_grad and p.grad is not None]
    assert len(optimizer.state) == len(trained) > 50
    assert all(torch.isfinite(p).all() for p in trained)


@pytest.mark.slow
def test_configs_run_under_the_torchgeo_command(area: Path, tmp_path: Path) -> None:
    # two processes for all: importing TorchGeo's command takes longer than most of these runs
    code = """
import json, sys
from torchgeo.main import main
calls, sys.argv = json.loads(sys.argv[1]), ['torchgeo']
for call in calls:
    main(call)
    print('succeeded:', call[2])
"""
    common = ['--trainer.max_steps', '1', '--trainer.accelerator', 'cpu']
    calls = [
        ['fit', '--config', str(config), *small_options(config, area, '--data.init_args.'), *common]
        for config in CONFIGS
    ]
    environment = os.environ | {'OMP_NUM_THREADS': '1'}
    processes = [
        subprocess.Popen(
            [sys.executable, '-c', code, json.dumps(half)],
            cwd=tmp_path,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=(tmp_path / f'{k}.txt').open('w'),
        )
        for k, half in enumerate((calls[::2], calls[1::2]))
    ]
    outputs = [process.communicate()[0].splitlines() for process in processes]
    succeeded = [
        line.removeprefix('succeeded: ') for lines in outputs for line in lines if line.startswith('succeeded: ')
    ]
    errors = [(tmp_path / f'{k}.txt').read_text()[-3000:] for k in range(2)]
    assert sorted(succeeded) == sorted(str(config) for config in CONFIGS), '\n'.join(errors)
    assert len(list(tmp_path.glob('runs/*/version_0/curves.png'))) == len(CONFIGS)


@pytest.mark.slow
def test_pretraining_finetuning_and_mapping_of_vines(
    area: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pretrain on drone scenes, fine-tune, test, and map; the map has the grid of the scene."""
    flights = sorted(str(path) for path in (area / 'drone').glob('*.tif'))
    drone = ['--data.sensor', 'micasense_rededge', '--trainer.max_steps', '1']
    assert main([*FASTSIAM, *SMALL, '--model.model', 'resnet18', '--data.paths', *flights, *drone]) == 0
    encoder = 'runs/fastsiam_s2/version_0/encoder.safetensors'
    config = REPOSITORY / 'configs' / 'vineseg_drone.yaml'
    common = ['--config', str(config), *small_options(config, area, '--data.')]
    assert main(['fit', *common, '--model.weights', encoder, '--trainer.max_epochs', '1']) == 0
    folder = Path('runs/vineseg_drone/version_0')
    report = json.loads((folder / 'weights_report.json').read_text())
    assert len(report['matched']) == len(load_file(encoder))
    assert not report['missing']
    for name in (
        'split.geojson',
        'split.png',
        'confusion_matrix.csv',
        'sample_predictions.png',
        'checkpoints/best.ckpt',
    ):
        assert (folder / name).is_file(), name
    best = str(folder / 'checkpoints' / 'best.ckpt')
    capsys.readouterr()
    assert main(['test', *common, '--ckpt_path', 'best']) == 0
    (tested,) = Path('runs').glob('vineseg_drone/version_*/metrics_test.json')
    assert 0 <= json.loads(tested.read_text())['classes']['vine']['iou'] <= 1
    output = capsys.readouterr().out
    assert f'Taking {best}' in output
    assert 'NDVI' in output  # the baseline is printed, too
    assert f'Run folder: {tested.parent}' in output
    assert 'Scoring the map of the test ground.\nWindows of' in output

    capsys.readouterr()
    assert main(['predict', *common, '--ckpt_path', best, '--data.predict_paths', flights[0]]) == 0
    assert 'Wrote: predictions/vineyard_a.tif' in capsys.readouterr().out
    with rasterio.open('predictions/vineyard_a.tif') as made, rasterio.open(flights[0]) as scene:
        assert (made.crs, made.transform, made.shape) == (scene.crs, scene.transform, scene.shape)
        assert made.nodata == 255
        classes, valid = made.read(1), (scene.read() != 0).all(axis=0)
    assert set(np.unique(classes[valid])) <= {0, 1}
    assert (classes[~valid] == 255).all()
    assert Path('predictions/vineyard_a.qml').is_file()

    there = ['predict', *common, '--ckpt_path', best, '--data.predict_paths', flights[0]]
    there += ['--blend', 'hann', '--window', '128']
    assert main([*there, '--plan', 'true', '--tta', 'd4', '--batch_size', '1']) == 0
    assert '8 view(s) each; memory' in capsys.readouterr().out
    polygons = [*there, '--polygons', 'true', '--min_area', '1', '--probabilities', 'float32']
    assert main(polygons) == 0
    assert 'Wrote: predictions/vineyard_a.gpkg' in capsys.readouterr().out
    frame = gpd.read_file('predictions/vineyard_a.gpkg')
    assert (frame.area >= 1).all()
    assert frame['probability'].between(0.5, 1).all()
    with rasterio.open('predictions/vineyard_a_probabilities.tif') as dataset:
        assert dataset.descriptions == ('background', 'vine')
        total = dataset.read().sum(axis=0)
    assert total[valid] == pytest.approx(1, abs=1e-5)
    assert main(polygons) == 0
    assert capsys.readouterr().out.count('Already exists') == 2
    # another map: its former companions are removed
    assert main([*there, '--overlap', '32', '--polygons', 'true', '--min_area', '2']) == 0
    assert not Path('predictions/vineyard_a_probabilities.tif').exists()
    assert (gpd.read_file('predictions/vineyard_a.gpkg').area >= 2).all()
    assert main([*there, '--min_area', '2']) == 1
    assert 'polygons: true' in capsys.readouterr().err
    shutil.copytree(Path(flights[0]).parent, 'copy')
    both = ['--data.predict_paths', flights[0], 'copy/vineyard_a.tif']
    assert main(['predict', *common, '--ckpt_path', best, *both]) == 1
    assert 'would both become vineyard_a.tif' in capsys.readouterr().err
    assert main(['predict', *common, '--ckpt_path', best]) == 1
    assert '--data.predict_paths' in capsys.readouterr().err


@pytest.mark.slow
def test_reconstruction_restores_a_scene(area: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = REPOSITORY / 'configs' / 'reconstruction_drone.yaml'
    common = ['--config', str(config), *small_options(config, area, '--data.'), '--data.chip_size', '32']
    assert main(['fit', *common, '--trainer.max_steps', '1']) == 0
    flight = area / 'drone' / 'vineyard_a.tif'
    there = ['predict', *common, '--ckpt_path', 'last', '--data.predict_paths', str(flight)]
    assert main(there) == 0
    for kind in ('original', 'corrupted', 'reconstruction', 'reconstruction_and_visible'):
        with rasterio.open(f'predictions/vineyard_a_{kind}.tif') as made, rasterio.open(flight) as scene:
            assert (made.crs, made.transform, made.shape) == (scene.crs, scene.transform, scene.shape)
            assert made.descriptions == scene.descriptions
            if kind == 'original':
                valid = (scene.read() != 0).all(axis=0)
                assert made.read()[:, valid] == pytest.approx(scene.read()[:, valid] / 32768, rel=1e-3, abs=1e-5)
    capsys.readouterr()
    assert main([*there, '--tta', 'd4']) == 1
    assert 'tta: applies to class maps, but Reconstruction restores scenes' in capsys.readouterr().err


def test_configs_set_in_channels() -> None:
    """TorchGeo's command does not link the bands of the data to the first layer."""
    assert CONFIGS
    for config in CONFIGS:
        assert 'in_channels' in yaml.safe_load(config.read_text())['model']['init_args']


def test_blur_of_configs_is_below_a_pixel_of_the_chip() -> None:
    """In pixels of views it would depend on the crop, and 2 of them erase rows of vines."""
    found = []
    for config in CONFIGS:
        model = yaml.safe_load(config.read_text(encoding='utf-8'))['model']
        task = resolve_name(model['class_path'])
        if issubclass(task, JointEmbeddingTask):
            views = Augmentation(**model['init_args'].get('augmentation', {}))
            largest = 0.5 if 'drone' in config.stem else 1.0
            assert views.blur == 0 or (views.blur_unit == 'chip' and views.blur_sigma[1] <= largest), config
            found.append(config.stem)
    assert len(found) > 9


# Options of a run.


@pytest.mark.slow
def test_finished_run_is_extended(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    scene = str(write_scene(tmp_path / 'scene.tif'))
    fit('--data.paths', scene, '--trainer.max_epochs', '2')
    cli = fit('--data.paths', scene, '--trainer.max_epochs', '3', '--ckpt_path', 'last')
    assert 'was to end at step 6 and now ends at step 9' in caplog.text
    assert cli.trainer.global_step == 9
    found = [row for row in rows(Path('runs/fastsiam_s2/version_0')) if row['train_loss_step']]
    assert [int(row['step']) for row in found] == list(range(9))
    rates = [float(row['lr']) for row in found]
    cosine = [0.06 * (1 + np.cos(np.pi * step / total)) for total in (6, 9) for step in range(total)]
    assert rates[:6] == pytest.approx(cosine[:6])
    assert rates[7:] == pytest.approx(cosine[6:][7:])  # the first step still has the rate of the checkpoint


@pytest.mark.slow
def test_accumulated_batches_count_as_one_step(tmp_path: Path) -> None:
    options = ('--trainer.accumulate_grad_batches', '2', '--data.chips_per_epoch', '20', '--trainer.max_epochs', '2')
    fit('--data.paths', str(write_scene(tmp_path / 'scene.tif')), *options)
    found = [row for row in rows(Path('runs/fastsiam_s2/version_0')) if row['train_loss_step']]
    assert [row['step'] for row in found] == [
        '0',
        '1',
        '2',
        '3',
        '4',
        '5',
    ]  # 5 batches per epoch: the last one is alone
    assert [float(row['lr']) for row in found] == pytest.approx(
        [0.06 * (1 + np.cos(np.pi * step / 6)) for step in range(6)]
    )


@pytest.mark.parametrize('options', [['--trainer.logger', 'false'], ['--trainer.fast_dev_run', 'true']])
def test_no_run_folder_without_a_logger(tmp_path: Path, caplog: pytest.LogCaptureFixture, options: list[str]) -> None:
    fit('--data.paths', str(write_scene(tmp_path / 'scene.tif')), '--trainer.max_steps', '1', *options)
    assert 'no run folder without a logger' in caplog.text
    assert not list(tmp_path.rglob('encoder.safetensors'))
    assert not list(tmp_path.rglob('metrics.csv'))


@pytest.mark.slow
def test_csv_logger_of_lightning_keeps_its_file(tmp_path: Path) -> None:
    scene = str(write_scene(tmp_path / 'scene.tif'))
    fit(
        '--data.paths',
        scene,
        '--trainer.max_steps',
        '3',
        '--trainer.logger',
        'CSVLogger',
        '--trainer.logger.save_dir',
        'runs',
    )
    folder = next(Path('runs').glob('*/version_0'))
    assert 'train_loss_step' in rows(folder)[0]
    with (folder / 'curves.csv').open(newline='') as file:
        assert [row['step'] for row in csv.DictReader(file) if row['train_loss_step']] == ['0', '1', '2']
    assert (folder / 'encoder.safetensors').is_file()


@pytest.mark.slow
def test_half_precision_and_time_limit(tmp_path: Path) -> None:
    scene = str(write_scene(tmp_path / 'scene.tif'))
    cli = fit(
        '--data.paths',
        scene,
        '--trainer.precision',
        'bf16-mixed',
        '--trainer.max_time',
        '00:01:00:00',
        '--trainer.max_steps',
        '2',
    )
    assert cli.trainer.global_step == 2
    losses = [float(row['train_loss_step']) for row in rows(Path('runs/fastsiam_s2/version_0')) if row['lr']]
    assert all(-1 <= loss <= 1 for loss in losses)


@pytest.mark.slow
def test_figure_shows_the_views_of_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[torch.Tensor] = []
    old = FastSiam.make_views

    def make_views(self: FastSiam, *arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
        views, valid = old(self, *arguments)
        made.append(views.clone())
        return views, valid

    monkeypatch.setattr(FastSiam, 'make_views', make_views)
    fit('--data.paths', str(write_scene(tmp_path / 'scene.tif')), '--trainer.max_steps', '2')
    assert len(made) == 3  # for the picture, and for two steps
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[1], made[2])


@pytest.mark.slow
def test_augmentation_options_are_restored_from_the_checkpoint(tmp_path: Path) -> None:
    options = ('--model.augmentation.blur', '0.3', '--model.augmentation.crop_scale', '[0.4,1.0]')
    cli = fit('--data.paths', str(write_scene(tmp_path / 'scene.tif')), '--trainer.max_steps', '1', *options)
    checkpoint = 'runs/fastsiam_s2/version_0/checkpoints/last.ckpt'
    task = FastSiam.load_from_checkpoint(checkpoint, weights_only=True)
    assert task.multiview.augmentation.blur == cli.model.multiview.augmentation.blur == 0.3
    assert tuple(task.multiview.augmentation.crop_scale) == (0.4, 1.0)
    assert task.metadata() == cli.model.metadata()
    for key, tensor in cli.model.state_dict().items():
        assert torch.equal(task.state_dict()[key], tensor), key


def test_method_by_class_name(tmp_path: Path) -> None:
    scene = str(write_scene(tmp_path / 'scene.tif'))
    cli = fit('--model', 'torchgeo_msssl.tasks.SimSiam', '--data.paths', scene, '--trainer.max_steps', '1')
    assert type(cli.model) is SimSiam
    assert cli.model.constant_predictor_lr
    assert cli.model.model.conv1[0].in_channels == 4


def test_help_of_a_method(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(['fit', '--model.help', 'torchgeo_msssl.tasks.FastSiam'])
    assert stopped.value.code == 0
    output = capsys.readouterr().out
    # the method's own options, and those declared once for all methods, with their help
    for text in ('bottleneck_dim', 'crop_scale', 'timm name of the encoder', 'Maximum learning rate', 'warmup_epochs'):
        assert text in ' '.join(output.split()), text


class Interrupt(Callback):
    """Send a signal in the second epoch, as Ctrl-C or a batch queue does."""

    def on_train_batch_start(self, trainer: object, pl_module: object, batch: object, batch_idx: int) -> None:
        if trainer.global_step == 4:
            os.kill(os.getpid(), getattr(signal, os.environ['SIGNAL']))


@pytest.mark.slow
@pytest.mark.parametrize('name', ['SIGINT', 'SIGTERM'])
def test_interrupted_run_is_saved_and_resumes(tmp_path: Path, name: str) -> None:
    scene = str(write_scene(tmp_path / 'scene.tif'))
    script = (
        # a job that a shell started in the background inherits an ignored SIGINT
        'import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); '
        'sys.path.insert(0, sys.argv.pop(1)); import test_cli; '
        'import torchgeo_msssl.tasks.base as base; old = base.PretrainingTask.configure_callbacks; '
        'base.PretrainingTask.configure_callbacks = lambda self: [*old(self), test_cli.Interrupt()]; '
        'from torchgeo_msssl.__main__ import main; sys.exit(main(sys.argv[1:]))'
    )
    arguments = [*FASTSIAM, *SMALL, '--data.paths', scene, '--trainer.max_epochs', '3']
    command = [sys.executable, '-c', script, str(Path(__file__).parent), *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=tmp_path, env=os.environ | {'SIGNAL': name}
    )
    assert done.returncode == {'SIGINT': 1, 'SIGTERM': 143}[name]
    folder = tmp_path / 'runs' / 'fastsiam_s2' / 'version_0'
    for file in ('encoder.safetensors', 'curves.png', 'metrics.csv', 'checkpoints/last.ckpt'):
        assert (folder / file).is_file(), done.stderr[-2000:]
    assert torch.load(folder / 'checkpoints' / 'last.ckpt', weights_only=True)['global_step'] == 3
    run_trainer([*arguments, '--ckpt_path', 'last'])
    assert [int(row['step']) for row in rows(folder) if row['train_loss_step']] == list(range(9))


DISTRIBUTED = """\
import json, sys
from pathlib import Path
import torch
from lightning.fabric.utilities.distributed import DistributedSamplerWrapper
from torchgeo_msssl.cli import run_trainer
from torchgeo_msssl.tasks import PretrainingTask

seen, old = [], PretrainingTask.seed_step

def seed_step(self, batch_idx):
    old(self, batch_idx)
    seen.append(torch.random.initial_seed())

PretrainingTask.seed_step = seed_step
step = PretrainingTask.training_step

def training_step(self, batch, batch_idx):
    chips.extend(batch['window'].tolist())
    return step(self, batch, batch_idx)

chips = []
PretrainingTask.training_step = training_step
cli = run_trainer(sys.argv[1:])
assert not isinstance(cli.trainer.train_dataloader.sampler, DistributedSamplerWrapper)
weights = [float(p.double().sum()) for p in cli.model.model.parameters()]
record = {'seeds': seen, 'chips': chips, 'weights': weights, 'folder': str(cli.trainer.loggers[0].log_dir)}
Path(f'rank{cli.trainer.global_rank}.json').write_text(json.dumps(record))
"""


@pytest.mark.slow
def test_two_ranks(tmp_path: Path) -> None:
    """Ranks have different chips and random draws, equal weights, and one run folder."""
    scene, labels = write_scene(tmp_path / 'scene.tif', side=128), tmp_path / 'labels.tif'
    with rasterio.open(scene) as dataset:
        profile = dataset.profile | {'count': 1, 'dtype': 'uint8', 'nodata': 0}
    with rasterio.open(labels, 'w', **profile) as dataset:
        dataset.write(np.repeat([[1, 2]], 64, axis=1).repeat(128, axis=0).astype(np.uint8), 1)
    script = tmp_path / 'distributed.py'
    script.write_text(DISTRIBUTED)
    config = yaml.safe_load((REPOSITORY / 'configs' / 'fastsiam_s2.yaml').read_text())
    probe = next(each for each in config['trainer']['callbacks'] if each['class_path'].endswith('FrozenProbe'))
    probe['init_args'] = {'chip_size': 16, 'block_size': 32, 'k': 1, 'every_n_epochs': 5}
    (tmp_path / 'config.yaml').write_text(yaml.safe_dump(config))
    command = [
        *(sys.executable, str(script), 'fit', '--config', 'config.yaml', *SMALL),
        *('--data.paths', str(scene), '--data.labels', str(labels), '--data.chips_per_epoch', '16'),
        *('--trainer.max_epochs', '2', '--trainer.accelerator', 'cpu'),
        *('--trainer.devices', '2', '--trainer.strategy', 'ddp'),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((tmp_path / f'rank{rank}.json').read_text()) for rank in (0, 1))
    assert len(first['chips']) == len(second['chips']) == 16  # 2 epochs of 2 batches of 4
    assert first['chips'][:8] != second['chips'][:8]
    assert first['chips'][8:] != second['chips'][8:]
    seeds = {*first['seeds'], *second['seeds']}
    assert len(seeds) == len(set(first['seeds'])) + len(set(second['seeds'])) == 8
    assert first['weights'] == second['weights']
    assert [path.name for path in (tmp_path / 'runs' / 'fastsiam_s2').iterdir()] == ['version_0']
    folder = tmp_path / 'runs' / 'fastsiam_s2' / 'version_0'
    for name in ('encoder.safetensors', 'curves.png', 'views.png', 'knn.json', 'checkpoints/last.ckpt'):
        assert (folder / name).is_file(), name
    assert [int(row['step']) for row in rows(folder) if row['train_loss_step']] == [0, 1, 2, 3]
    assert done.stdout.count('Frozen 1-NN') == 1


@pytest.mark.slow
def test_two_ranks_that_stop_within_an_epoch_end_well(tmp_path: Path) -> None:
    """What the first rank prints takes no part in what the ranks compute together."""
    scene = write_scene(tmp_path / 'scene.tif', side=128)
    command = [
        *(sys.executable, '-m', 'torchgeo_msssl', 'fit', '--config', str(REPOSITORY / 'configs' / 'fastsiam_s2.yaml')),
        *(*SMALL, '--data.paths', str(scene), '--data.chips_per_epoch', '32', '--trainer.max_steps', '1'),
        *('--trainer.accelerator', 'cpu', '--trainer.devices', '2', '--trainer.strategy', 'ddp'),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count('Next:') == 1


@pytest.mark.slow
def test_two_ranks_map_three_scenes(area: Path, tmp_path: Path) -> None:
    """Two processes share an uneven number of scenes: the maps of one process, each written once."""
    flights = sorted((area / 'drone').glob('*.tif'))
    scenes = tmp_path / 'scenes'
    scenes.mkdir()
    for flight, name in zip([*flights, flights[0]], 'abc', strict=True):
        shutil.copy(flight, scenes / f'{name}.tif')
    config = REPOSITORY / 'configs' / 'vineseg_drone.yaml'
    common = ['--config', str(config), *small_options(config, area, '--data.')]
    assert main(['fit', *common, '--trainer.max_steps', '1']) == 0
    predict = ['predict', *common, '--ckpt_path', 'last', '--data.predict_paths', str(scenes)]
    predict += ['--blend', 'hann', '--window', '64', '--batch_size', '16']
    assert main([*predict, '--output', 'one']) == 0
    ranks = ['--output', 'many', '--trainer.accelerator', 'cpu', '--trainer.devices', '2', '--trainer.strategy', 'ddp']
    command = [sys.executable, '-m', 'torchgeo_msssl', *predict, *ranks]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    for name in 'abc':
        assert done.stdout.count(f'Wrote: many/{name}.tif') == 1
        assert Path(f'many/{name}.tif').read_bytes() == Path(f'one/{name}.tif').read_bytes()


# Errors are one sentence.


@pytest.fixture
def failure(capsys: pytest.CaptureFixture[str]) -> object:
    def run(*options: str) -> str:
        assert main([*FASTSIAM, *SMALL, *options, '--trainer.max_epochs', '1']) == 1
        error = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
        assert len(error) == 1
        assert not list(Path('runs').glob('*/version_*'))  # nothing is left of a run that did not begin
        return error[0]

    return run


def test_missing_path(failure) -> None:
    assert "'/no/such/place'" in failure('--data.paths', '/no/such/place')


def test_missing_crs(failure, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / 'scene.tif', crs=None)
    message = failure('--data.paths', str(scene), '--data.res', '20')  # plain images cannot be warped
    assert str(scene) in message
    assert 'coordinate reference system' in message


@pytest.mark.parametrize('bands', ['[B02,B11]', '[B02,B03,B04,B08,B12]', '[B02,sky]'])
def test_missing_bands(failure, tmp_path: Path, bands: str) -> None:
    scene = write_scene(tmp_path / 'scene.tif')
    message = failure('--data.paths', str(scene), '--data.bands', bands)
    assert str(scene) in message
    assert 'B02, B03, B04, B08' in message


def test_chip_larger_than_all_scenes(failure, tmp_path: Path) -> None:
    message = failure('--data.paths', str(write_scene(tmp_path / 'scene.tif')), '--data.chip_size', '96')
    assert '96×96' in message
    assert '80×80' in message


def test_no_valid_chip(failure, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / 'scene.tif', nodata=0)
    with rasterio.open(scene, 'r+') as dataset:
        image = dataset.read()
        image[:, 16:64] = 0
        dataset.write(image)
    assert 'min_valid' in failure('--data.paths', str(scene))


def test_unwritable_run_folder(failure, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / 'scene.tif')
    (tmp_path / 'file').write_text('')
    target = str(tmp_path / 'file' / 'runs')
    message = failure('--data.paths', str(scene), '--trainer.logger.init_args.save_dir', target)
    assert target in message


def test_option_out_of_range(failure, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / 'scene.tif')
    assert 'chip_size' in failure('--data.paths', str(scene), '--data.chip_size', '0')
    assert 'views' in failure('--data.paths', str(scene), '--model.views', '1')


@pytest.mark.parametrize('workers', ['0', '1'])
def test_file_truncated_during_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], workers: str
) -> None:
    scene = write_scene(tmp_path / 'scene.tif', side=320)

    def cut(self: object, trainer: object, pl_module: object) -> None:
        pooled_raster(str(scene))  # open, as it is in the middle of training
        os.truncate(scene, scene.stat().st_size // 8)

    monkeypatch.setattr('torchgeo_msssl.tasks.run_folder.RunFolder.on_train_start', cut)
    options = ['--data.paths', str(scene), '--data.num_workers', workers, '--trainer.max_epochs', '1']
    monkeypatch.setenv('GDAL_CACHEMAX', '1')
    assert main([*FASTSIAM, *SMALL, *options]) == 1
    error = capsys.readouterr().err
    assert f'error: {scene}: cannot be read at rows' in error
    assert 'columns' in error


def test_loss_is_not_finite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = write_scene(tmp_path / 'scene.tif')
    loss = 'torchgeo_msssl.tasks.fastsiam.fastsiam_loss'
    monkeypatch.setattr(loss, lambda p, z, **options: (p - z).sum() * float('nan'))
    assert main([*FASTSIAM, *SMALL, '--data.paths', str(scene)]) == 1
    error = capsys.readouterr().err
    assert 'nan at step 0' in error
    assert f'{scene} (rows' in error
    assert 'B08' in error


def test_best_is_the_last_checkpoint_of_a_run_without_validation(tmp_path: Path) -> None:
    def save(version: int, name: str, time: int) -> Path:
        path = tmp_path / f'version_{version}' / 'checkpoints' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (time, time))
        return path

    best = save(0, 'best.ckpt', 10)
    save(0, 'last.ckpt', 20)
    assert last_run(tmp_path, 'best.ckpt') == (0, best)
    last = save(1, 'last.ckpt', 30)
    assert last_run(tmp_path, 'best.ckpt') == (1, last)


@pytest.mark.slow
def test_classes_and_unlabelled_values_follow_the_data(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / 'scene.tif')
    mask = np.random.default_rng(0).integers(0, 3, (80, 80)).astype(np.int16)
    mask[:8] = -1
    with rasterio.open(scene) as dataset:
        profile = dataset.profile | {'count': 1, 'dtype': 'int16'}
    with rasterio.open(tmp_path / 'mask.tif', 'w', **profile) as dataset:
        dataset.write(mask, 1)
    command = ['fit', '--config', str(REPOSITORY / 'configs' / 'vineseg_drone.yaml'), '--data.paths', str(scene)]
    command += ['--data.labels', str(tmp_path / 'mask.tif'), '--data.ignore_index', '[-1, 254]']
    command += shlex.split(
        '--model.backbone test_resnet --data.chip_size 16 --data.block_size 16 --data.batch_size 4 '
        '--data.chips_per_epoch 4 --trainer.max_epochs 1 --trainer.limit_val_batches 1 '
        '--trainer.enable_progress_bar false --trainer.enable_model_summary false'
    )
    run = run_trainer(command)
    assert run.model.num_classes == 3  # the configuration says 2
    assert run.model.class_names == ['background', 'class_1', 'class_2']
    assert run.model.ignore_index == run.datamodule.ignore_index == 254
    assert torch.isfinite(run.trainer.callback_metrics['train_loss'])
    (saved,) = Path('runs').glob('*/version_0/checkpoints/last.ckpt')
    again = type(run.model).load_from_checkpoint(saved, map_location='cpu', weights_only=True)
    assert (again.num_classes, again.ignore_index) == (3, 254)


def test_no_checkpoint_of_a_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r'best\.ckpt; run `fit` first, or give the path'):
        last_run(tmp_path, 'best.ckpt')


def test_nothing_to_resume(failure, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / 'scene.tif')
    message = failure('--data.paths', str(scene), '--ckpt_path', 'last')
    assert 'runs/fastsiam_s2' in message
    assert 'leave --ckpt_path out to begin a run' in message


@pytest.mark.parametrize('command', ['validate', 'test', 'predict'])
def test_untrained_network_is_not_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    # the scenes do not exist: nothing is read before the refusal, and nothing is written
    common = [command, '--config', str(REPOSITORY / 'configs' / 'vineseg_drone.yaml'), '--data.paths', 'nowhere.tif']
    scene = ['--data.predict_paths', 'nowhere.tif'] if command == 'predict' else []
    assert main([*common, *scene]) == 1
    assert f'error: {command}: --ckpt_path is missing' in capsys.readouterr().err
    assert main([*common, *scene, '--ckpt_path', 'best']) == 1
    message = capsys.readouterr().err
    assert 'checkpoints/best.ckpt; run `fit` first, or give the path of a checkpoint' in message
    assert not list(tmp_path.iterdir())


def test_untrained_restoration_is_not_validated(capsys: pytest.CaptureFixture[str]) -> None:
    config = str(REPOSITORY / 'configs' / 'mae_s2.yaml')
    assert main(['validate', '--config', config, '--data.paths', 'nowhere.tif']) == 1
    assert 'error: validate: --ckpt_path is missing' in capsys.readouterr().err


def test_weights_of_another_model(failure, finished: tuple[FastSiam, str, Path]) -> None:
    _, scene, folder = finished
    encoder = str(folder / 'encoder.safetensors')
    message = failure('--data.paths', scene, '--model.weights', encoder, '--model.model', 'test_byobnet')
    assert 'test_byobnet' in message


class Harmful:
    """Pickle to a function call."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ('touch harmed',)


def test_checkpoint_with_pickled_code_is_refused(failure, finished: tuple[FastSiam, str, Path], tmp_path: Path) -> None:
    _, scene, folder = finished
    checkpoint = torch.load(folder / 'checkpoints' / 'last.ckpt', weights_only=True)
    torch.save(checkpoint | {'extra': Harmful()}, 'harmful.ckpt')
    assert 'no code in it ran' in failure('--data.paths', scene, '--ckpt_path', 'harmful.ckpt')
    assert not (tmp_path / 'harmed').exists()


def test_run_folder_removed_during_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = write_scene(tmp_path / 'scene.tif')
    old = MetricsFile.add

    def add(self: MetricsFile, row: dict[str, float]) -> None:
        if row['step'] == 2:
            shutil.rmtree(self.path.parent)
        old(self, row)

    monkeypatch.setattr(MetricsFile, 'add', add)
    assert main([*FASTSIAM, *SMALL, '--data.paths', str(scene)]) == 1
    assert 'metrics.csv cannot be written' in capsys.readouterr().err


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def save(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, 'No space left on device', 'last.ckpt')

    scene = write_scene(tmp_path / 'scene.tif')
    monkeypatch.setattr('lightning.pytorch.Trainer.save_checkpoint', save)
    assert main([*FASTSIAM, *SMALL, '--data.paths', str(scene), '--trainer.max_epochs', '1']) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith('error: [Errno 28] No space left on device')


@pytest.mark.parametrize('command', ['validate', 'test', 'predict'])
def test_pretraining_cannot_be_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    scene = write_scene(tmp_path / 'scene.tif')
    arguments = [command, *FASTSIAM[1:], *SMALL, '--data.paths', str(scene)]
    assert main(arguments) == 1
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
    assert error == [line for line in error if line.startswith(f'error: {command}: FastSiam pretrains without labels')]
    assert len(error) == 1


def test_lists_reach_lightning_without_a_warning(
    monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*FASTSIAM, '--data.bands', 'B02,B03', '--print_config']
    monkeypatch.setattr(sys, 'argv', ['torchgeo_msssl', *arguments])
    with pytest.raises(SystemExit) as stopped:
        run_trainer(arguments)
    assert stopped.value.code == 0
    assert yaml.safe_load(capsys.readouterr().out)['data']['init_args']['bands'] == ['B02', 'B03']
    assert not [str(warning.message) for warning in recwarn if 'args parameter' in str(warning.message)]
    assert sys.argv == ['torchgeo_msssl', *arguments]


def test_what_the_trainer_cannot_do(failure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = str(write_scene(tmp_path / 'scene.tif'))
    message = failure('--data.paths', scene, '--trainer.precision', 'bf16-true')
    assert 'trainer.precision: bf16-true changes the type of the weights' in message
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    monkeypatch.setattr('torch.backends.mps.is_available', lambda: False)
    message = failure('--data.paths', scene, '--trainer.accelerator', 'gpu')
    assert message.startswith('error: trainer: ')
    assert message.endswith('; set trainer.accelerator to auto or cpu.')


def test_one_value_per_channel(failure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(*_: object, **__: object) -> None:
        torch.nn.BatchNorm2d(3)(torch.zeros(1, 3, 1, 1))

    monkeypatch.setattr(FastSiam, 'training_step', step)
    message = failure('--data.paths', str(write_scene(tmp_path / 'scene.tif')))
    assert message.startswith('error: batch_size: batch normalization needs several values per channel')


def test_lightning_does_not_advertise(caplog: pytest.LogCaptureFixture) -> None:
    show_log()
    with caplog.at_level('INFO'):
        Trainer(accelerator='cpu', logger=TensorBoardLogger('runs'))
    assert 'GPU available' in caplog.text
    for noise in ('litlogger', 'litmodels', 'TPU'):
        assert noise not in caplog.text


def test_last_requires_a_save_dir(failure, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / 'scene.tif')
    message = failure('--data.paths', str(scene), '--trainer.logger', 'false', '--ckpt_path', 'last')
    assert 'save_dir' in message


def test_resuming_with_other_bands_or_model(failure, finished: tuple[FastSiam, str, Path]) -> None:
    _, scene, folder = finished
    last = str(folder / 'checkpoints' / 'last.ckpt')
    message = failure('--data.paths', scene, '--data.bands', '[B02,B03]', '--ckpt_path', last)
    assert 'the checkpoint is of the bands B02, B03, B04, B08, the data have B02, B03' in message
    message = failure('--data.paths', scene, '--model.model', 'test_byobnet', '--ckpt_path', last)
    assert 'of a test_resnet, not a test_byobnet' in message


def test_resuming_another_method(failure, finished: tuple[FastSiam, str, Path]) -> None:
    _, scene, folder = finished
    last = str(folder / 'checkpoints' / 'last.ckpt')
    simsiam = ['--model.class_path', 'torchgeo_msssl.tasks.SimSiam']
    common = ['--data.paths', scene, '--ckpt_path', last]
    assert 'ckpt_path: the checkpoint is of fastsiam, not simsiam' in failure(*simsiam, *common)
    message = failure('--model.output_dim', '16', *common)
    assert 'tensors of the checkpoint are not those of the task; the first,' in message
    assert '32' in message
    assert '16' in message


def test_missing_checkpoint(failure, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / 'scene.tif')
    assert 'there is no file nothing.ckpt' in failure('--data.paths', str(scene), '--ckpt_path', 'nothing.ckpt')


def test_chip_size_does_not_fit_the_encoder(failure, tmp_path: Path) -> None:
    scene = str(write_scene(tmp_path / 'scene.tif'))
    vit = ('--model.model', 'vit_tiny_patch16_224')
    assert 'choose 32 or 48 px (chip_size' in failure('--data.paths', scene, '--data.chip_size', '40', *vit)
    assert 'batch_size' in failure('--data.paths', scene, '--data.batch_size', '1')


def test_scenes_with_different_bands(failure, tmp_path: Path) -> None:
    write_scene(tmp_path / 'a' / 'one.tif')
    with rasterio.open(write_scene(tmp_path / 'a' / 'two.tif'), 'r+') as dataset:
        dataset.descriptions = ('B02', 'B03', 'B05', 'B06')
    assert '`bands: [B02, B03]`' in failure('--data.paths', str(tmp_path / 'a'))


@pytest.mark.slow
def test_several_files_are_several_scenes(tmp_path: Path) -> None:
    files = [str(write_scene(tmp_path / name)) for name in ('one.tif', 'two.tif')]
    assert main([*FASTSIAM, *SMALL, '--data.paths', *files, '--trainer.max_steps', '1']) == 0
    written = yaml.safe_load(Path('runs/fastsiam_s2/version_0/config.yaml').read_text())
    assert written['data']['init_args']['paths'] == files
