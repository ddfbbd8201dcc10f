"""The command that compares results."""

import json
from pathlib import Path

import pytest

from torchgeo_msssl.__main__ import main


def write_study(folder: Path) -> Path:
    """Write a study of two cells."""
    folder.mkdir()
    columns = 'study,cell,initialisation,variant,fraction,shots,scenes,seed,region,metric,value,seconds,run,command'
    rows = [
        f'v,{name},{name},,1.0,,,0,blocks,test_iou,{value},9,cells/{name},fit'
        for name, value in (('random', 0.25), ('fastsiam', 0.5))
    ]
    (folder / 'results.csv').write_text('\n'.join([columns, *rows]) + '\n')
    return folder


def test_compare_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / 'a' / 'version_0'
    run.mkdir(parents=True)
    (run / 'metrics_test.json').write_text(json.dumps({'mean_iou': 0.75, 'accuracy': 0.9, 'classes': {}}))
    study = write_study(tmp_path / 'study')
    out = tmp_path / 'out'
    assert main(['compare', str(run), str(study), '--output', str(out), '--metric', 'test_iou', 'test_accuracy']) == 0
    shown = capsys.readouterr().out
    assert (out / 'compare.md').read_text() in shown
    assert '| study | fastsiam | 0.500 | 1 |' in shown
    assert '| a/version_0 |  | 0.900 | 1 |' in shown
    assert 'test_mean_iou' not in shown
    assert f'Wrote {out / "compare.md"}, {out / "compare.csv"}, {out / "compare.png"}\n' in shown
    assert not (study / 'report.html').exists()

    assert main(['compare', str(study), '--output', str(out), '--html']) == 0
    assert (study / 'report.html').is_file()
    assert main(['compare', str(run), '--output', str(out), '--html']) == 1
    assert capsys.readouterr().err.count('\n') == 1
