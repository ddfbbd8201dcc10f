"""Studies whose commands write what a run leaves, without training."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from torchgeo_msssl.evaluation.study.design import Initialisation, Pretraining, Study
from torchgeo_msssl.evaluation.study.provenance import Provenance
from torchgeo_msssl.shipped_configs import ConfigFile

Run = Callable[[Sequence[str]], None]


def option(arguments: Sequence[str], name: str) -> str:
    """Value of an option."""
    return arguments[list(arguments).index(f'--{name}') + 1]


def fake_run(arguments: Sequence[str]) -> None:
    """Leave a run folder: the score depends on what the cell is, so that mixed up cells would show."""
    logger = 'trainer.logger.init_args'
    names = ('save_dir', 'name', 'version')
    folder = Path(*(option(arguments, f'{logger}.{name}') for name in names))
    (folder / 'checkpoints').mkdir(parents=True)
    (folder / 'metrics.csv').write_text('step,train_loss_epoch\n0,0.5\n1,\n2,0.25\n')
    if arguments[0] == 'fit':
        (folder / 'encoder.safetensors').touch()
        (folder / 'checkpoints' / 'best.ckpt').touch()
        return
    assert Path(option(arguments, 'ckpt_path')).is_file()
    seed, fraction = int(option(arguments, 'seed_everything')), float(option(arguments, 'data.label_fraction'))
    score = 0.5 + 0.1 * fraction + 0.01 * seed + (0.2 if 'pretrained' in folder.parent.name else 0)
    scores = {'iou': score, 'f1': 0.9, 'precision': None, 'recall': 0.8}
    report = {'mean_iou': score, 'accuracy': 0.9, 'pixels': 10, 'classes': {'vine': scores | {'pixels': 5}}}
    (folder / 'metrics_test.json').write_text(json.dumps(report))
    threshold = {'network': {'iou': 0.7}, 'NDVI > 0.5': {'iou': 0.4}, 'everything': {'iou': 0.1}}
    (folder / 'baseline.json').write_text(json.dumps({'class': 'vine', 'scores': threshold}))


@pytest.fixture
def make_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Study]:
    """``make_study(**options)``: random and pretrained, two fractions, two seeds; ``folder`` is where it runs."""

    def make(folder: str = 'one', **options: object) -> Study:
        (tmp_path / folder).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / folder)
        for name in ('fit.yaml', 'pretrain.yaml'):
            Path(name).write_text('{}')
        pretraining = Pretraining(ConfigFile('pretrain.yaml'))
        common = {
            'name': 'vines',
            'fit': ConfigFile('fit.yaml'),
            'output': 'runs/study',
            'fractions': [0.1, 1.0],
            'seeds': [0, 1],
            'metrics': ['test_iou_vine'],
            'initialisations': [Initialisation('random'), Initialisation('pretrained', pretraining=pretraining)],
        }
        return Study(**(common | options))

    return make


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """:func:`fake_run`, and no data to look at; there are no networks to collect, which takes a second each time."""
    monkeypatch.setattr('gc.collect', lambda: 0)
    found = Provenance(reads_test_ground=True, labels=False)
    monkeypatch.setattr('torchgeo_msssl.evaluation.study.run.provenance_of', lambda *_: found)
    return fake_run
