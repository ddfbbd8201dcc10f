"""Exported networks: the same classes as `predict`, the metadata that Deepness reads, and model cards."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from lightning.pytorch import Trainer

from tests.marks import first_fast
from torchgeo_msssl.__main__ import main
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.models.metadata import EncoderMetadata
from torchgeo_msssl.prediction.export.model_card import CARD, ModelCard, write_card
from torchgeo_msssl.prediction.export.network import PortableNetwork
from torchgeo_msssl.prediction.export.onnx_file import deepness_metadata, overlap_percent
from torchgeo_msssl.prediction.export.run import export
from torchgeo_msssl.prediction.predict import MapSettings, map_scenes
from torchgeo_msssl.prediction.stitch import Stitching
from torchgeo_msssl.tasks import FastSiam, TextureClassifier, VineSegmentation

Make = Callable[..., str]
BANDS = ['red', 'green', 'blue']
RADIOMETRY = ([0.3, 0.4, 0.2], [0.1, 0.2, 0.1], [1 / 255] * 3, [0.0] * 3)


def trained(task: Any) -> Any:
    """A task as training leaves it, with random weights."""
    task._provenance = {'bands': BANDS, 'sensor': 'rgb', 'pixel_size': 0.25, 'chip_size': 64}
    task.normalize.set_statistics(*RADIOMETRY)
    return task.eval()


def checkpoint_of(task: Any, folder: Path) -> Path:
    trainer = Trainer(logger=False, accelerator='cpu', enable_checkpointing=False, barebones=True)
    trainer.strategy.connect(task)
    path = folder / 'run' / 'checkpoints' / 'last.ckpt'
    trainer.save_checkpoint(path)
    return path


@pytest.fixture
def task() -> Any:
    torch.manual_seed(0)
    return trained(VineSegmentation(model='unet', backbone='tu-test_resnet', in_channels=3))


def images(seed: int = 0, size: tuple[int, int, int, int] = (2, 3, 50, 70)) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(1, 255, size).astype(np.float32))


def test_a_portable_network_gives_the_probabilities_of_the_task(task: Any) -> None:
    image = images()
    image[1, 2, 10:20, 5] = torch.nan
    with torch.no_grad():
        expected = task(image).softmax(1)
        found = PortableNetwork(task)(image)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize('nodata', [0.0, -9999.0, 65535.0])
def test_nodata_counts_as_invalid_also_after_scaling_in_float32(task: Any, nodata: float) -> None:
    image = images()
    valid = torch.ones(2, 1, 50, 70, dtype=torch.bool)
    valid[0, 0, :9, :9] = False
    image[0, 1, :9, :9] = nodata
    scaled = (image / 255) / np.float32(1 / 255)  # as Deepness does it
    with torch.no_grad():
        torch.testing.assert_close(
            PortableNetwork(task, nodata)(scaled), task(image, valid).softmax(1), rtol=1e-3, atol=1e-4
        )


@pytest.mark.parametrize(
    ('window', 'margin', 'stride', 'expected'),
    [(1152, 288, 32, 50), (512, 60, 4, 25), (512, 0, 1, 0), (640, 64, 32, 20), (640, 200, 32, 70)],
)
def test_the_overlap_keeps_margin_and_stride(window: int, margin: int, stride: int, expected: int) -> None:
    percent = overlap_percent(Stitching('crop', window, margin, stride))
    overlap = int(window * percent / 100 * 2) // 2  # ProcessingOverlap.get_overlap_px of Deepness
    assert percent == expected
    assert overlap // 2 >= margin
    assert (window - overlap) % stride == 0


def test_blended_windows_overlap_by_half() -> None:
    assert overlap_percent(Stitching('hann', 512)) == 50


def test_deepness_reads_the_metadata() -> None:
    known = EncoderMetadata('segmentation', 'resnet18', ('red',), pixel_size=0.0825)
    texts = deepness_metadata(known, ['background', 'vine'], Stitching('hann', 512), 1)
    # transcription of deepness/processing/models/model_base.py
    assert str(json.loads(texts['model_type'])).capitalize() == 'Segmentor'
    names = sorted(json.loads(texts['class_names']).items(), key=lambda item: int(item[0]))
    assert names == [('0', 'background'), ('1', 'vine')]
    assert float(json.loads(texts['resolution'])) == 8.25
    assert int(json.loads(texts['tile_size'])) == 512
    assert int(json.loads(texts['tiles_overlap'])) == 50
    assert float(json.loads(texts['seg_thresh'])) == 0
    mean, std = (np.float32(json.loads(texts[f'standardization_{name}'])) for name in ('mean', 'std'))
    pixels = np.arange(256, dtype=np.uint8)
    seen = (np.float32(pixels * 1.0 / 255.0) - mean) / std
    np.testing.assert_allclose(seen, pixels, rtol=3e-7)
    assert json.loads(texts['bands']) == ['red']


def card(folder: Path, name: str = 'vines.onnx') -> ModelCard:
    known = EncoderMetadata('segmentation', 'resnet18', ('red', 'nir'), pixel_size=0.08)
    return ModelCard(folder / 'run' / 'checkpoints' / 'best.ckpt', [folder / name], known, ['background', 'vine'])


def test_a_card_shows_ground_and_metrics_of_the_run(tmp_path: Path) -> None:
    run = tmp_path / 'run'
    run.mkdir()
    scores = {'iou': 0.75, 'f1': None, 'pixels': 900}
    report = {'mean_iou': 0.8125, 'accuracy': 0.9, 'pixels': 900, 'classes': {'vine': scores}, 'baselines': {}}
    (run / 'metrics_test.json').write_text(json.dumps(report))
    (run / 'config.yaml').write_text('data: {init_args: {paths: /home/me/ortho.tif, labels: null}}')
    text = write_card(card(tmp_path)).read_text(encoding='utf-8')
    for part in ('red, nir', '0.08 m', '0 background, 1 vine', 'mean_iou: 0.8125', 'vine: iou 0.75', '`ortho.tif`'):
        assert part in text
    assert '/home/me' not in text
    assert '## Licence' in text


def test_a_card_keeps_what_the_user_wrote(tmp_path: Path) -> None:
    path = write_card(card(tmp_path))
    path.write_text(
        path.read_text(encoding='utf-8').replace('Fill in: the licence', 'CC-BY-4.0, not'), encoding='utf-8'
    )
    text = write_card(card(tmp_path, 'other.onnx')).read_text(encoding='utf-8')
    assert 'CC-BY-4.0, not' in text
    assert '`other.onnx`' in text
    assert text.count('## Licence') == 1


def test_a_foreign_card_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / CARD).write_text('mine')
    with pytest.raises(ConfigurationError, match='rename it'):
        export('some.ckpt', tmp_path / 'e.safetensors')
    assert (tmp_path / CARD).read_text() == 'mine'


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({}, 'name a file to write'),
        ({'onnx': 'vines.pb'}, 'ends with .onnx'),
        ({'output': 'e.safetensors', 'tile_size': 512}, 'neither is given'),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        export('some.ckpt', **options)


@pytest.mark.parametrize(
    ('kind', 'message'),
    first_fast([(TextureClassifier, 'TextureClassifier, whose'), (FastSiam, 'method: fastsiam')]),
)
def test_other_tasks_are_refused(kind: Any, message: str, tmp_path: Path) -> None:
    options = {'model': 'test_resnet'} if kind is FastSiam else {}
    path = checkpoint_of(trained(kind(in_channels=3, **options)), tmp_path)
    with pytest.raises(ConfigurationError, match=message):
        export(path, torch=tmp_path / 'n.pt2')
    assert not (tmp_path / 'n.pt2').exists()


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, 'onnx', None)
    with pytest.raises(ConfigurationError, match=r"pip install 'torchgeo_msssl\[onnx\]'"):
        export('some.ckpt', onnx=tmp_path / 'n.onnx')


@pytest.fixture
def mapped(
    task: Any, make_scene: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, np.ndarray, np.ndarray]:
    """Checkpoint of a network, a scene, and the map of the scene, from one window."""
    image = images(1, (1, 3, 128, 128)).numpy()[0].astype(np.uint8)
    path = checkpoint_of(task, tmp_path)
    scene = make_scene('ortho.tif', image, names=BANDS, res=0.25)
    settings = MapSettings(str(tmp_path / 'maps'), blend='hann', window=128, overlap=0)
    (result,) = map_scenes(task, scene, path, settings, sensor='rgb')
    # measuring the receptive field takes longer than the export
    plan = SimpleNamespace(stitching=Stitching('hann', 512))
    monkeypatch.setattr('torchgeo_msssl.prediction.export.run.map_options', lambda *arguments: plan)
    with rasterio.open(result.path) as dataset:
        return path, image, dataset.read(1)


@pytest.mark.slow
def test_onnxruntime_maps_like_predict(mapped: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx = pytest.importorskip('onnx')
    pytest.importorskip('onnxscript')
    onnxruntime = pytest.importorskip('onnxruntime')
    path, image, expected = mapped
    file = tmp_path / 'out' / 'vines.onnx'
    assert main(['export', str(path), '--onnx', str(file)]) == 0
    assert '--tile_size' in capsys.readouterr().out
    session = onnxruntime.InferenceSession(str(file), providers=['CPUExecutionProvider'])
    assert session.get_inputs()[0].shape == ['batch', 3, 'height', 'width']
    assert session.get_outputs()[0].shape == ['batch', 2, 'height', 'width']
    whole = image[None].astype(np.float32)
    (found,) = session.run(None, {'image': whole})
    np.testing.assert_array_equal(found[0].argmax(0), expected)
    (part,) = session.run(None, {'image': np.repeat(whole[..., :77, :50], 3, axis=0)})
    assert part.shape == (3, 2, 77, 50)
    np.testing.assert_allclose(part.sum(1), 1, rtol=1e-5)
    assert json.loads(session.get_modelmeta().custom_metadata_map['bands']) == BANDS
    assert str(Path(torch.__file__).parent).encode() not in file.read_bytes()
    assert (file.parent / CARD).is_file()
    assert onnx.load(file).ir_version <= 9  # what the onnxruntime of Deepness reads


@pytest.mark.slow
def test_torch_runs_tiles_of_a_fixed_size(mapped: Any, tmp_path: Path) -> None:
    path, image, expected = mapped
    export(path, torch=tmp_path / 'v.pt2', tile_size=128)
    program = torch.export.load(tmp_path / 'v.pt2')
    found = program.module()(torch.from_numpy(image[None].astype(np.float32)))
    np.testing.assert_array_equal(found[0].argmax(0).numpy(), expected)
    with pytest.raises(ConfigurationError, match='expected a multiple of'):
        export(path, torch=tmp_path / 'w.pt2', tile_size=101)
