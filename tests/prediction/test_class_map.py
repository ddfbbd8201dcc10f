"""Class maps: networks whose map is known, known faults of other programs, killed runs."""

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.marks import first_fast
from torchgeo_msssl.errors import BandError, ConfigurationError
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.headers import find_scenes
from torchgeo_msssl.geo.scene import Scene
from torchgeo_msssl.models.segmentation import set_network_stem, total_stride
from torchgeo_msssl.prediction.class_map import MapOptions, predict_scene
from torchgeo_msssl.prediction.plan import plan
from torchgeo_msssl.prediction.receptive_field import choose_blend
from torchgeo_msssl.prediction.scenes import read_mirrored
from torchgeo_msssl.prediction.stitch import Stitching

type MakeScene = Callable[..., str]

CLASSES = 5
NAMES = [f'class {number}' for number in range(CLASSES)]
STITCHINGS = [Stitching('crop', 64, margin=6, stride=4), Stitching('hann', 64), Stitching('hann', 48, overlap=11)]
SIZES = [(1, 1), (65, 63), (2, 300), (64, 64), (17, 1000), (229, 219)]
both = pytest.mark.parametrize('stitching', STITCHINGS, ids=lambda s: f'{s.blend}{s.window}')


def identity(image: Tensor, valid: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
    """The first band, which holds classes, as logits."""
    return 20 * nn.functional.one_hot(image[:, 0].long(), CLASSES).movedim(-1, 1).float()


def constant(image: Tensor, valid: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
    logits = torch.tensor([0.1, 0.3, 0.7, 0.2, 0.5])
    return logits[None, :, None, None].expand(len(image), -1, *image.shape[-2:])


def scene_at(path: str | Path) -> Scene:
    return find_scenes(str(path))[0]


def pixels_of(path: str | Path, band: int = 1) -> NDArray[Any]:
    with rasterio.open(path) as dataset:
        return dataset.read(band)


def drawn(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, CLASSES, (1, height, width), dtype=np.uint8)


def mapped(path: str, network: Any, stitching: Stitching, **options: Any) -> NDArray[Any]:
    scene = scene_at(path)
    output = Path(path).parent / 'maps' / f'{scene.name}.tif'
    made = MapOptions(NAMES, stitching, **options)
    return pixels_of(predict_scene(network, scene, scene.bands, output, made, overwrite=True, progress=False).path)


@both
@pytest.mark.parametrize('size', first_fast(SIZES, 3, unpack=False), ids=str)
def test_identity_gives_back_the_scene(make_scene: MakeScene, stitching: Stitching, size: tuple[int, int]) -> None:
    array = drawn(*size)
    np.testing.assert_array_equal(mapped(make_scene('s.tif', array), identity, stitching), array[0])


@pytest.mark.slow
@both
@given(height=st.integers(1, 300), width=st.integers(1, 300))
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_identity_on_drawn_sizes(make_scene: MakeScene, stitching: Stitching, height: int, width: int) -> None:
    array = drawn(height, width)
    np.testing.assert_array_equal(mapped(make_scene('s.tif', array), identity, stitching), array[0])


@pytest.mark.slow
@pytest.mark.parametrize('stitching', [Stitching('crop', 512, margin=30, stride=32), Stitching('hann', 512)], ids=str)
def test_identity_on_a_scene_of_many_blocks(make_scene: MakeScene, stitching: Stitching) -> None:
    array = drawn(2293, 2197)
    np.testing.assert_array_equal(mapped(make_scene('s.tif', array), identity, stitching), array[0])


@both
@pytest.mark.parametrize('size', first_fast(SIZES, 3, unpack=False), ids=str)
def test_constant_gives_a_constant_map(make_scene: MakeScene, stitching: Stitching, size: tuple[int, int]) -> None:
    path = make_scene('s.tif', drawn(*size))
    assert set(np.unique(mapped(path, constant, stitching, probabilities='float32', confidence='uint8'))) == {2}
    expected = torch.tensor([0.1, 0.3, 0.7, 0.2, 0.5]).softmax(0)
    folder = Path(path).parent / 'maps'
    for band in range(CLASSES):
        np.testing.assert_allclose(pixels_of(folder / 's_probabilities.tif', band + 1), expected[band], rtol=3e-7)
    assert set(np.unique(pixels_of(folder / 's_confidence.tif'))) == {round(254 * float(expected.max()))}


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.deep = nn.Sequential(
            nn.MaxPool2d(4),
            nn.Conv2d(8, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
        )
        self.last = nn.Conv2d(16, CLASSES, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        shallow = self.first(image)
        deep = nn.functional.interpolate(self.deep(shallow), scale_factor=8, mode='bilinear')
        return self.last(torch.cat([shallow, deep], dim=1))


def with_statistics(network: nn.Module, bands: int) -> nn.Module:
    """Running statistics as after training."""
    torch.manual_seed(1)
    network.train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(4, bands, 64, 64) + 0.5)
    return network.eval()


@pytest.mark.parametrize('size', [(229, 219), (17, 400), (1, 1)], ids=str)
def test_crop_equals_the_whole_scene_at_once(make_scene: MakeScene, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network = with_statistics(UNet(), 2)
    stitching = choose_blend(network, 2, window=96)
    assert stitching.blend == 'crop'
    array = np.random.default_rng(0).normal(size=(2, *size)).astype(np.float32)
    path = make_scene('s.tif', array)
    got = mapped(path, lambda image, *_: network(image), stitching)
    # One image of the whole scene, mirrored in the same way, up to a multiple of the total stride.
    before = stitching.margin
    after = [before + -side % stitching.stride for side in size]
    padded = np.pad(array, ((0, 0), (before, after[0]), (before, after[1])), mode='reflect')
    with torch.inference_mode():
        whole = network(torch.from_numpy(padded)[None]).argmax(1)[0].numpy()
    np.testing.assert_array_equal(got, whole[before : before + size[0], before : before + size[1]])
    assert size == (1, 1) or len(np.unique(got)) > 1


@pytest.mark.slow
def test_crop_equals_the_whole_scene_at_once_for_a_resnet_unet(make_scene: MakeScene) -> None:
    import segmentation_models_pytorch as smp

    torch.manual_seed(0)
    network = with_statistics(smp.Unet('resnet18', encoder_weights=None, in_channels=2, classes=CLASSES), 2)
    stitching = Stitching('crop', 736, margin=287, stride=32)  # as choose_blend finds
    array = np.random.default_rng(0).normal(size=(2, 250, 333)).astype(np.float32)
    got = mapped(make_scene('s.tif', array), lambda image, *_: network(image), stitching, batch_size=1)
    before = stitching.margin
    after = [before + -side % 32 for side in array.shape[1:]]
    padded = np.pad(array, ((0, 0), (before, after[0]), (before, after[1])), mode='reflect')
    with torch.inference_mode():
        whole = network(torch.from_numpy(padded)[None]).argmax(1)[0].numpy()
    np.testing.assert_array_equal(got, whole[before : before + 250, before : before + 333])
    assert len(np.unique(got)) > 1


@pytest.mark.slow
def test_crop_equals_the_whole_scene_at_once_with_a_small_stem(make_scene: MakeScene) -> None:
    """Margin and stride are those of the changed network; its stride is a quarter of 32."""
    import segmentation_models_pytorch as smp

    torch.manual_seed(0)
    smp_network = smp.Unet('tu-test_resnet', 5, None, decoder_channels=(8,) * 5, in_channels=2, classes=CLASSES)
    set_network_stem(smp_network, 'small')
    network = with_statistics(smp_network, 2)
    stitching = choose_blend(network, 2)
    assert stitching.blend == 'crop'
    assert stitching.stride == total_stride(smp_network) == 8
    stitching = dataclasses.replace(stitching, window=2 * stitching.margin + 2 * stitching.stride)
    array = np.random.default_rng(0).normal(size=(2, 50, 61)).astype(np.float32)
    got = mapped(make_scene('s.tif', array), lambda image, *_: network(image), stitching, batch_size=1)
    before = stitching.margin
    after = [before + -side % stitching.stride for side in array.shape[1:]]
    padded = np.pad(array, ((0, 0), (before, after[0]), (before, after[1])), mode='reflect')
    with torch.inference_mode():
        whole = network(torch.from_numpy(padded)[None]).argmax(1)[0].numpy()
    np.testing.assert_array_equal(got, whole[before : before + 50, before : before + 61])
    assert len(np.unique(got)) > 1


@both
def test_windows_without_data_are_skipped(make_scene: MakeScene, stitching: Stitching) -> None:
    """Windows that are skipped must not move the others, wherever they are."""
    array = drawn(300, 280)
    array[:, :90] = 250
    array[:, 120:200, 40:200] = 250
    array[:, 250:, 150:] = 250
    seen = []

    def network(image: Tensor, valid: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
        seen.append(valid.flatten(1).any(dim=1))
        return identity(image.where(valid, torch.zeros_like(image)), valid, scale, offset)

    path = make_scene('s.tif', array, nodata=250)
    scene = scene_at(path)
    output = Path(path).parent / 'maps/s.tif'
    result = predict_scene(network, scene, scene.bands, output, MapOptions(NAMES, stitching), progress=False)
    np.testing.assert_array_equal(pixels_of(result.path), np.where(array[0] == 250, 255, array[0]))
    assert result.empty_windows > 0
    assert torch.cat(seen).all()
    assert len(torch.cat(seen)) == result.windows - result.empty_windows
    assert result.counts == tuple(np.bincount(array[array < CLASSES], minlength=CLASSES))


@both
def test_uniform_windows_are_mapped_as_others(make_scene: MakeScene, stitching: Stitching) -> None:
    """Whoever skips windows of a single value, as if they were empty, shifts what follows."""
    array = drawn(200, 200)
    array[:, 40:180, 30:170] = 0
    np.testing.assert_array_equal(mapped(make_scene('s.tif', array), identity, stitching), array[0])


def test_margin_of_zero_leaves_something(make_scene: MakeScene) -> None:
    """``window[margin:-margin]`` is empty when the margin is 0."""
    array = drawn(70, 50)
    np.testing.assert_array_equal(mapped(make_scene('s.tif', array), identity, Stitching('crop', 32)), array[0])


@both
@pytest.mark.parametrize(
    'transform',
    [
        Affine(0.03, 0, 500_000.01, 0, -0.03, 4_900_000.02),  # float32 cannot tell these rows apart
        Affine(10, 0, 600_000, 0, 10, 5_000_000),  # rows from south to north
        Affine(0.3, 0.1, 600_000, 0.1, -0.3, 5_000_000),  # turned
    ],
    ids=['3 cm', 'south up', 'turned'],
)
def test_any_grid_comes_back_to_the_last_digit(make_scene: MakeScene, stitching: Stitching, transform: Affine) -> None:
    array = drawn(150, 90)
    path = make_scene('s.tif', array, transform=transform)
    np.testing.assert_array_equal(mapped(path, identity, stitching), array[0])
    with rasterio.open(path) as scene, rasterio.open(Path(path).parent / 'maps/s.tif') as got:
        assert tuple(got.transform) == tuple(scene.transform)
        assert got.crs == scene.crs
        assert got.shape == scene.shape


@pytest.mark.parametrize('mask', ['nodata', 'mask', 'nan', 'alpha'])
def test_pixels_without_data_are_nodata(make_scene: MakeScene, mask: str) -> None:
    array = drawn(100, 120).astype(np.float32 if mask == 'nan' else np.uint8)
    hole = np.zeros((100, 120), dtype=np.bool_)
    hole[30:77, 11:95] = True
    options: dict[str, Any] = {}
    if mask == 'nodata':
        array[0, hole], options = 99, {'nodata': 99}
    elif mask == 'nan':
        array[0, hole] = np.nan
    elif mask == 'alpha':
        array = np.concatenate([array, np.where(hole, 0, 255).astype(np.uint8)[None]])
        options = {'alpha': True}
    else:
        options = {'mask': ~hole}
    path = make_scene('s.tif', array, **options)

    def network(image: Tensor, valid: Tensor, *rest: Tensor) -> Tensor:
        return identity(image.where(valid, torch.zeros_like(image)), valid, *rest)

    got = mapped(path, network, STITCHINGS[1], probabilities='uint8', confidence='float32')
    np.testing.assert_array_equal(got == 255, hole)
    folder = Path(path).parent / 'maps'
    np.testing.assert_array_equal(pixels_of(folder / 's_probabilities.tif', 2) == 255, hole)
    np.testing.assert_array_equal(np.isnan(pixels_of(folder / 's_confidence.tif')), hole)


def test_bands_are_taken_by_name(make_scene: MakeScene) -> None:
    array = np.concatenate([drawn(80, 70, seed) for seed in range(3)])
    first = scene_at(make_scene('a.tif', array, names=['red', 'green', 'nir']))
    second = scene_at(make_scene('b.tif', array[[2, 0, 1]], names=['nir', 'red', 'green']))
    options = MapOptions(NAMES, STITCHINGS[0])
    maps = []
    for scene in (first, second):
        output = Path(scene.path).parent / f'maps/{scene.name}.tif'
        maps.append(pixels_of(predict_scene(identity, scene, ['green', 'nir'], output, options, progress=False).path))
    np.testing.assert_array_equal(maps[0], array[1])
    np.testing.assert_array_equal(maps[1], maps[0])
    with pytest.raises(BandError, match='has no band swir1'):
        predict_scene(identity, first, ['swir1'], first.path + '.map.tif', options, progress=False)


def test_scale_and_offset_reach_the_network(make_scene: MakeScene) -> None:
    scene = scene_at(make_scene('s.tif', drawn(20, 20).astype(np.uint16)))
    seen = []

    def network(image: Tensor, valid: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
        seen.append((image.dtype, valid.dtype, valid.shape[1], scale.tolist()[0], offset.tolist()[0]))
        return constant(image, valid, scale, offset)

    output = Path(scene.path).parent / 'map.tif'
    options = MapOptions(NAMES, STITCHINGS[1])
    predict_scene(network, scene, scene.bands, output, options, scale=[0.5], offset=[-1000], progress=False)
    assert set(map(str, seen)) == {str((torch.uint16, torch.bool, 1, [0.5], [-1000.0]))}
    with pytest.raises(ConfigurationError, match='one value for each of 1 bands, got 2'):
        predict_scene(network, scene, scene.bands, output, options, scale=[1, 1], offset=[0], progress=False)


@pytest.mark.parametrize('tta', ['flips', 'd4'])
@both
def test_views_are_turned_back(make_scene: MakeScene, stitching: Stitching, tta: str) -> None:
    array = drawn(90, 130)
    np.testing.assert_array_equal(mapped(make_scene('s.tif', array), identity, stitching, tta=tta), array[0])


def test_views_make_a_network_blind_to_direction(make_scene: MakeScene) -> None:
    """A network that looks to the left alone sees all sides alike with d4."""

    def left(image: Tensor, *_: Tensor) -> Tensor:
        value = image.float().roll(1, -1) * 0.1
        return torch.cat([value, -value], dim=1)

    array = drawn(40, 40)
    probabilities = []
    for name, turned in (('a', array), ('b', np.rot90(array, 1, (1, 2)))):
        path = make_scene(f'{name}.tif', np.ascontiguousarray(turned))
        scene = scene_at(path)
        output = Path(path).parent / f'maps/{name}.tif'
        options = MapOptions(['a', 'b'], Stitching('crop', 44, 2), tta='d4', probabilities='float32')
        result = predict_scene(left, scene, scene.bands, output, options, progress=False)
        assert result.probabilities is not None
        probabilities.append(pixels_of(result.probabilities))
    np.testing.assert_allclose(np.rot90(probabilities[0]), probabilities[1], atol=1e-6)


def test_one_channel_of_logits_is_two_classes(make_scene: MakeScene) -> None:
    array = drawn(50, 60)
    scene = scene_at(make_scene('s.tif', array))
    output = Path(scene.path).parent / 'map.tif'

    def network(image: Tensor, *_: Tensor) -> Tensor:
        return image.float() - 1.5

    predict_scene(network, scene, scene.bands, output, MapOptions(['no', 'yes'], STITCHINGS[1]), progress=False)
    np.testing.assert_array_equal(pixels_of(output), array[0] >= 2)


@pytest.mark.slow
def test_what_is_written_can_be_read(make_scene: MakeScene) -> None:
    array = drawn(1500, 1100)
    path = make_scene('s.tif', array, nodata=4, crs='EPSG:25830', res=0.25)
    colors = {number: (number, 2 * number, 100) for number in range(CLASSES)}

    def network(image: Tensor, *rest: Tensor) -> Tensor:
        return identity(image.clamp(0, 3), *rest)

    mapped(path, network, Stitching('hann', 512), colors=colors, probabilities='uint8', confidence='uint8')
    folder = Path(path).parent / 'maps'
    with rasterio.open(folder / 's.tif') as got, rasterio.open(path) as scene:
        assert (got.crs, got.transform, got.shape) == (scene.crs, scene.transform, scene.shape)
        assert (got.dtypes, got.nodata, got.count) == (('uint8',), 255, 1)
        assert got.tags(ns='IMAGE_STRUCTURE')['LAYOUT'] == 'COG'
        assert got.tags(ns='IMAGE_STRUCTURE')['OVERVIEW_RESAMPLING'] == 'MODE'
        assert got.profile['tiled']
        assert got.compression is not None
        assert got.overviews(1) == [2, 4]
        assert {number: got.colormap(1)[number][:3] for number in range(CLASSES)} == colors
        assert json.loads(got.tags()['CLASS_NAMES']) == NAMES
        overview = got.read(1, out_shape=(375, 275))
    # No class that is a mixture of others: only what is near.
    assert set(np.unique(overview)) <= {0, 1, 2, 3, 255}
    for name, count in (('s_probabilities.tif', CLASSES), ('s_confidence.tif', 1)):
        with rasterio.open(folder / name) as got:
            assert (got.count, got.nodata, got.tags(ns='IMAGE_STRUCTURE')['LAYOUT']) == (count, 255, 'COG')
            assert got.scales == pytest.approx((1 / 254,) * count)
    with rasterio.open(folder / 's_probabilities.tif') as got:
        assert list(got.descriptions) == NAMES
    assert '<Category>class 3</Category>' in (folder / 's.tif.aux.xml').read_text()
    style = (folder / 's.qml').read_text()
    assert 'value="2" color="#020464" label="class 2"' in style
    assert not list(folder.glob('.*')), 'nothing is left of the work'


def cog_faults(path: Path) -> list[str]:
    """What a validator of cloud-optimised GeoTIFFs looks at: directories first, overviews before the image's tiles."""
    data = path.read_bytes()
    faults = [] if b'LAYOUT=IFDS_BEFORE_DATA' in data[:2000] else ['no ghost area']
    with rasterio.open(path) as dataset:
        factors, tile = dataset.overviews(1), dataset.block_shapes[0][0]
        if max(dataset.shape) > tile and not factors:
            faults.append('no overviews')
        starts = []
        for level in range(-1, len(factors)):
            options = {} if level < 0 else {'overview_level': level}
            with rasterio.open(path, **options) as one:
                starts.append(int(one.get_tag_item('BLOCK_OFFSET_0_0', 'TIFF', bidx=1)))
    if starts != sorted(starts, reverse=True):
        faults.append(f'tiles of overviews after those of the image: {starts}')
    return faults


@pytest.mark.slow
def test_maps_are_cloud_optimised(make_scene: MakeScene) -> None:
    path = make_scene('s.tif', drawn(1100, 1300))
    mapped(path, identity, Stitching('hann', 512))
    assert cog_faults(Path(path).parent / 'maps/s.tif') == []


def test_a_complete_scene_is_skipped(make_scene: MakeScene) -> None:
    path = make_scene('s.tif', drawn(60, 60))
    scene = scene_at(path)
    output = Path(path).parent / 'maps/s.tif'
    calls = []

    def network(image: Tensor, *rest: Tensor) -> Tensor:
        calls.append(len(image))
        return identity(image, *rest)

    def predict(overwrite: bool = False, **options: Any) -> bool:
        calls.clear()
        made = MapOptions(NAMES, STITCHINGS[0], **options)
        result = predict_scene(network, scene, scene.bands, output, made, overwrite=overwrite, progress=False)
        assert result.skipped == (not calls)
        return result.skipped

    assert not predict()
    assert predict()
    assert predict(batch_size=1), 'the batch size does not change a map'
    assert not predict(overwrite=True)
    assert not predict(checkpoint='another')
    assert predict(checkpoint='another')
    assert not predict(checkpoint='another', confidence='uint8')
    assert not predict(tta='flips')
    make_scene('s.tif', drawn(60, 61))
    scene = scene_at(path)
    assert not predict(tta='flips')


def interrupted(after: int) -> Any:
    """The identity, which raises after some calls."""
    calls = [0]

    def network(image: Tensor, *rest: Tensor) -> Tensor:
        calls[0] += 1
        if calls[0] > after:
            raise KeyboardInterrupt
        return identity(image, *rest)

    return network


@both
def test_an_interrupted_run_is_resumed(make_scene: MakeScene, stitching: Stitching) -> None:
    array = drawn(1100, 150)
    path = make_scene('s.tif', array)
    scene = scene_at(path)
    output = Path(path).parent / 'maps/s.tif'
    options = MapOptions(NAMES, stitching, confidence='float32')
    with pytest.raises(KeyboardInterrupt):
        predict_scene(interrupted(20), scene, scene.bands, output, options, progress=False, every=1)
    assert not list(output.parent.glob('[!.]*')), 'nothing under a final name'
    result = predict_scene(identity, scene, scene.bands, output, options, progress=False)
    assert result.resumed_row > 0
    assert result.resumed_row % 256 == 0
    assert sum(result.counts) == (1100 - result.resumed_row) * 150
    np.testing.assert_array_equal(pixels_of(output), array[0])


def test_other_settings_start_from_scratch(make_scene: MakeScene) -> None:
    path = make_scene('s.tif', drawn(1100, 150))
    scene = scene_at(path)
    output = Path(path).parent / 'maps/s.tif'
    options = MapOptions(NAMES, STITCHINGS[0], confidence='uint8')
    with pytest.raises(KeyboardInterrupt):
        predict_scene(interrupted(20), scene, scene.bands, output, options, progress=False, every=1)
    other = MapOptions(NAMES, STITCHINGS[0], checkpoint='another')
    assert predict_scene(identity, scene, scene.bands, output, other, progress=False).resumed_row == 0
    assert not list(output.parent.glob('.*')), 'nothing of the first run is left'


def test_a_damaged_partial_file_starts_from_scratch(make_scene: MakeScene) -> None:
    array = drawn(1100, 150)
    path = make_scene('s.tif', array)
    scene = scene_at(path)
    output = Path(path).parent / 'maps/s.tif'
    options = MapOptions(NAMES, STITCHINGS[0])
    with pytest.raises(KeyboardInterrupt):
        predict_scene(interrupted(20), scene, scene.bands, output, options, progress=False, every=1)
    (output.parent / '.s.partial.tif').write_bytes(b'II*\0')
    result = predict_scene(identity, scene, scene.bands, output, options, progress=False)
    assert result.resumed_row == 0
    np.testing.assert_array_equal(pixels_of(output), array[0])


KILLED = """
    import os, signal, sys
    import torch
    from torchgeo_msssl.geo.headers import find_scenes
    from torchgeo_msssl.prediction.stitch import Stitching
    from torchgeo_msssl.prediction.class_map import MapOptions, predict_scene

    path, output, after = sys.argv[1], sys.argv[2], int(sys.argv[3])
    torch.manual_seed(0)
    network = torch.nn.Conv2d(1, 3, 7, padding=3)
    calls = 0

    def run(image, valid, scale, offset):
        global calls
        calls += 1
        if calls == after:
            os.kill(os.getpid(), signal.SIGKILL)
        return network(image.float())

    scene = find_scenes(path)[0]
    options = MapOptions(['a', 'b', 'c'], Stitching('hann', 128), probabilities='float32')
    result = predict_scene(run, scene, scene.bands, output, options, progress=False, every=1)
    print(result.resumed_row)
"""


def run_script(script: str, *arguments: str) -> 'subprocess.CompletedProcess[str]':
    command = [sys.executable, '-c', textwrap.dedent(script), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {'OMP_NUM_THREADS': '1'}
    )


@pytest.mark.slow
def test_a_killed_run_gives_the_same_bytes(make_scene: MakeScene, tmp_path: Path) -> None:
    path = make_scene('s.tif', drawn(1500, 300))
    assert run_script(KILLED, path, str(tmp_path / 'whole/s.tif'), '0').stdout.strip() == '0'
    output = tmp_path / 'killed/s.tif'
    for after in (25, 15):  # killed twice
        assert run_script(KILLED, path, str(output), str(after)).returncode == -signal.SIGKILL
        assert not output.exists()
    last = run_script(KILLED, path, str(output), '0')
    assert int(last.stdout) > 256, last.stderr
    for name in ('s.tif', 's_probabilities.tif'):
        with rasterio.open(tmp_path / 'whole' / name) as whole, rasterio.open(output.parent / name) as killed:
            digests = {hashlib.sha256(dataset.read().tobytes()).hexdigest() for dataset in (whole, killed)}
        assert len(digests) == 1
        assert (tmp_path / 'whole' / name).read_bytes() == (output.parent / name).read_bytes()


SPARSE = """
    import resource, sys
    import rasterio, torch
    from torchgeo_msssl.geo.headers import find_scenes
    from torchgeo_msssl.prediction.stitch import Stitching
    from torchgeo_msssl.prediction.class_map import MapOptions, predict_scene

    path, output = sys.argv[1:]
    def run(image, valid, scale, offset):
        return image[:, :4].float()

    scene = find_scenes(path)[0]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    options = MapOptions(list('abcd'), Stitching('crop', 512, margin=32, stride=32))
    predict_scene(run, scene, scene.bands, output, options, progress=False)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_height(tmp_path: Path) -> None:
    grown = []
    for height in (6_000, 12_000):
        path = tmp_path / f'{height}.tif'
        profile = {
            'driver': 'GTiff',
            'count': 4,
            'height': height,
            'width': 6_000,
            'dtype': 'uint16',
            'crs': 'EPSG:32631',
            'transform': Affine(0.1, 0, 600_000, 0, -0.1, 5_000_000),
            'tiled': True,
            'blockxsize': 512,
            'blockysize': 512,
            'compress': 'deflate',
            'sparse_ok': True,
            'nodata': 0,
            'photometric': 'MINISBLACK',
        }
        with rasterio.open(path, 'w', **profile) as dataset:
            values = np.random.default_rng(0).integers(1, 900, (4, 512, 512), dtype=np.uint16)
            for row in range(0, height - 512, 2048):
                dataset.write(values, window=Window(row, 1024, 512, 512).to_rasterio())
        done = run_script(SPARSE, str(path), str(tmp_path / f'maps/{height}.tif'))
        assert done.returncode == 0, done.stderr
        grown.append(int(done.stdout) / 1024)
    assert grown[1] < grown[0] + 30, f'peak memory in MiB above the start: {grown}'
    assert max(grown) < 600


@pytest.mark.parametrize('window', [Window(-9, -7, 30, 40), Window(3, 4, 5, 6), Window(-200, 5, 400, 3)], ids=str)
def test_windows_are_mirrored_as_numpy_does(make_scene: MakeScene, window: Window) -> None:
    array = drawn(23, 19)
    image, valid = read_mirrored(scene_at(make_scene('s.tif', array)), window, ['band_1'])
    padded = np.pad(array, ((0, 0), (500, 500), (500, 500)), mode='reflect')
    row, col = window.row + 500, window.col + 500
    np.testing.assert_array_equal(image, padded[:, row : row + window.height, col : col + window.width])
    assert valid.all()


def test_the_first_of_equal_classes_is_taken_as_argmax_does(make_scene: MakeScene) -> None:
    def network(image: Tensor, *_: Tensor) -> Tensor:
        return torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0])[None, :, None, None].expand(len(image), -1, *image.shape[-2:])

    assert set(np.unique(mapped(make_scene('s.tif', drawn(30, 30)), network, STITCHINGS[0]))) == {1}


def test_plan_estimates_windows_memory_disk_and_time(make_scene: MakeScene) -> None:
    scene = scene_at(make_scene('s.tif', drawn(300, 400)))
    options = MapOptions(NAMES, Stitching('crop', 112, margin=6, stride=4))
    estimate = plan(scene, scene.bands, options, constant)
    assert estimate.windows == 4 * 5  # margins of 8 leave 96
    assert estimate.disk_bytes >= 300 * 400
    assert estimate.seconds is not None
    assert '20 windows of 112 × 112 pixels, crop' in str(estimate)
    assert 'not timed' in str(plan(scene, scene.bands, options))
    with pytest.raises(BandError):
        plan(scene, ['nir'], options)


@pytest.mark.parametrize(
    ('network', 'words'),
    [
        (lambda image, *_: image.float(), r'logits of the shape \(\d+, 5, 64, 64\), got \(\d+, 1, 64, 64\)'),
        (lambda image, *_: torch.full((len(image), 5, 64, 64), torch.nan), 'gives NaN or infinity in the row'),
    ],
)
def test_networks_that_do_not_fit_are_refused(make_scene: MakeScene, network: Any, words: str) -> None:
    path = make_scene('s.tif', drawn(30, 30))
    with pytest.raises(ConfigurationError, match=words):
        mapped(path, network, Stitching('hann', 64))
    assert not (Path(path).parent / 'maps/s.tif').exists()


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ({'class_names': []}, '1 to 255 classes'),
        ({'class_names': ['x'] * 256}, 'got 256'),
        ({'tta': 'all'}, "tta: expected one of none, flips, d4, got 'all'"),
        ({'probabilities': 'int8'}, "probabilities: expected 'none', 'uint8' or 'float32', got 'int8'"),
        ({'batch_size': 0}, 'batch_size: expected 1 or more'),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        MapOptions(**{'class_names': NAMES, 'stitching': STITCHINGS[0]} | options)
