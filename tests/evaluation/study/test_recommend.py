"""Recommendations from constructed scores, without training."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from tests.evaluation.study.conftest import option
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.evaluation.study.design import Initialisation
from torchgeo_msssl.evaluation.study.recommend import Recommender
from torchgeo_msssl.evaluation.study.recommendation import Recommendation
from torchgeo_msssl.evaluation.study.run import run_pending
from torchgeo_msssl.geo.open_datasets import close_datasets
from torchgeo_msssl.shipped_configs import ConfigFile

FIT = """
data:
  class_path: torchgeo_msssl.datamodules.SegmentationDataModule
  init_args: {paths: scene.tif, labels: mask.tif, class_names: [soil, vine], chip_size: 16, block_size: 32}
"""
#: Validation scores of two seeds; those on the test ground are 1 minus these, so that they would mislead.
VALIDATION = {'texture': (0.5, 0.52), 'random': (0.4, 0.38), 'pretrained': (0.8, 0.85)}

Make = Callable[..., Recommender]


class FakeRuns:
    """Leaves run folders with constructed scores, and counts the commands."""

    def __init__(self, scores: dict[str, tuple[float, ...]]) -> None:
        self.scores, self.ran = scores, []  # type: ignore[var-annotated]

    def __call__(self, arguments: Sequence[str]) -> None:
        logger = 'trainer.logger.init_args'
        folder = Path(*(option(arguments, f'{logger}.{name}') for name in ('save_dir', 'name', 'version')))
        candidate = folder.parent.name.split('_')[0]
        self.ran.append((arguments[0], candidate))
        (folder / 'checkpoints').mkdir(parents=True)
        if arguments[0] == 'fit':
            for name in ('best', 'last'):
                (folder / 'checkpoints' / f'{name}.ckpt').write_text(f'{folder.parent.name}')
            return
        assert Path(option(arguments, 'ckpt_path')).is_file()
        score = self.scores[candidate][int(option(arguments, 'seed_everything'))]
        part = {'validate': 'val', 'test': 'test'}[arguments[0]]
        report = {'mean_iou': score if part == 'val' else 1 - score, 'accuracy': 0.9, 'classes': {}}
        (folder / f'metrics_{part}.json').write_text(json.dumps(report))


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """``make(runs, **options)`` in a folder with a scene and its mask."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('gc.collect', lambda: 0)
    rng = np.random.default_rng(0)
    for name, values in (('scene', rng.integers(1, 255, (3, 128, 128))), ('mask', rng.integers(0, 2, (1, 128, 128)))):
        transform = Affine(1, 0, 5e5, 0, -1, 49e5)
        profile = {'driver': 'GTiff', 'crs': 'EPSG:32631', 'transform': transform, 'dtype': 'uint8'}
        with rasterio.open(f'{name}.tif', 'w', count=len(values), height=128, width=128, **profile) as file:
            file.write(values.astype(np.uint8))
    Path('fit.yaml').write_text(FIT)
    Path('quick.yaml').write_text(FIT)

    def ready(runs: FakeRuns, **options: object) -> Recommender:
        candidates = [Initialisation('texture', fit=ConfigFile('quick.yaml')), Initialisation('random')]
        candidates += [Initialisation('pretrained', {'model.weights': 'encoder.safetensors'})]
        common = {
            'name': 'vines',
            'fit': ConfigFile('fit.yaml'),
            'output': 'out',
            'seeds': [0, 1],
            'candidates': candidates,
            'options': {'model.lr': 0.1, 'data.shots': 2, 'data.seed': 5},
        }
        return Recommender(Recommendation(**(common | options)), runs)

    yield ready
    close_datasets()


def test_validation_decides_and_the_winner_is_tested_once(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    runs = FakeRuns(VALIDATION)
    recommender = make(runs)
    run_pending(recommender.study, recommender.cells, runs)
    recommender.conclude()
    assert [command for command, _ in runs.ran].count('fit') == 6
    assert [name for command, name in runs.ran if command == 'test'] == ['pretrained']

    report = json.loads(Path('out/recommendation.json').read_text())
    assert (report['recommended'], report['seed']) == ('pretrained', 1)
    assert report['candidates']['random']['lead']['mean'] == pytest.approx((0.4 + 0.47) / 2)
    assert report['candidates']['texture']['scores'] == {'0': 0.5, '1': 0.52}
    assert report['test']['test_mean_iou'] == pytest.approx(1 - 0.85)
    for name in ('best', 'last'):
        kept = Path('out') / 'recommended' / 'checkpoints' / f'{name}.ckpt'
        assert kept.read_text().startswith('pretrained')
        assert kept.read_text().endswith('seed-1')
    shown = capsys.readouterr().out
    assert '| **pretrained** | 0.825' in shown
    assert (
        'Next: python -m torchgeo_msssl predict --config fit.yaml --ckpt_path out/recommended/checkpoints/best.ckpt'
        in shown
    )
    assert '--data.predict_paths' in shown

    again = make(runs)
    done = list(runs.ran)
    run_pending(again.study, again.cells, runs)
    again.conclude()
    assert runs.ran == done  # nothing is trained or tested again


def test_candidates_share_the_split_and_differ_in_their_options(make: Make) -> None:
    recommender = make(FakeRuns(VALIDATION))
    commands = {cell.name.split('_')[0] + str(cell.seed): steps for cell, steps in recommender_steps(recommender)}
    assert len({option(steps, 'data.split') for steps in commands.values()}) == 1
    assert Path(option(commands['random0'], 'data.split')).is_file()
    assert {option(steps, 'data.shots') for steps in commands.values()} == {'2'}
    assert option(commands['random1'], 'data.seed') == '1'  # draws other blocks of the same training ground
    assert option(commands['texture0'], 'config') == 'quick.yaml'
    assert '--model.lr' not in commands['texture0']  # an option of networks
    assert option(commands['random0'], 'model.lr') == '0.1'
    assert '--model.weights' not in commands['random0']
    more = make(FakeRuns(VALIDATION), weights=['runs/encoder.safetensors'])
    assert more.study.initialisations[-1].name == 'from encoder'


def recommender_steps(recommender: Recommender) -> Iterator[tuple[object, tuple[str, ...]]]:
    from torchgeo_msssl.evaluation.study.cell_commands import steps_of

    return ((cell, steps_of(recommender.study, cell).fit) for cell in recommender.cells)


def test_candidates_must_have_the_same_labels(make: Make) -> None:
    Path('other.yaml').write_text(FIT.replace('}', ', shots: 3, buffer: 2.0}'))
    candidates = [Initialisation('texture', fit=ConfigFile('other.yaml')), Initialisation('random')]
    with pytest.raises(ConfigurationError, match=r'texture has other values of label_options, shots in other\.yaml'):
        make(FakeRuns(VALIDATION), candidates=candidates, options={})


def test_a_tie_goes_to_the_simpler_candidate(make: Make) -> None:
    runs = FakeRuns(VALIDATION | {'pretrained': (0.505, 0.525)})
    recommender = make(runs)
    run_pending(recommender.study, recommender.cells, runs)
    assert recommender.conclude().name == 'texture'
    assert Path('out/recommended/checkpoints/best.ckpt').read_text().startswith('texture')


def test_a_candidate_that_fails_is_left_out(make: Make) -> None:
    runs = FakeRuns(VALIDATION)

    def fails(arguments: Sequence[str]) -> None:
        if 'encoder.safetensors' in arguments:
            raise ConfigurationError('weights: no such file.')
        runs(arguments)

    recommender = make(runs)
    run_pending(recommender.study, recommender.cells, fails)
    assert recommender.conclude().name == 'texture'


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ({'metric': 'test_mean_iou'}, 'the test ground must not decide'),
        ({'margin': -1.0}, 'margin'),
        ({'seeds': []}, 'seeds'),
        ({'candidates': []}, 'initialisations'),
    ],
)
def test_options_out_of_range(make: Make, options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        make(FakeRuns(VALIDATION), **options)


def test_unknown_metrics_are_named(make: Make) -> None:
    runs = FakeRuns(VALIDATION)
    recommender = make(runs, metric='val_iou_tree')
    run_pending(recommender.study, recommender.cells, runs)
    with pytest.raises(ConfigurationError, match='has no val_iou_tree; available: val_mean_iou, val_accuracy'):
        recommender.conclude()
