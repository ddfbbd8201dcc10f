"""Tables and figures of studies, finished or not."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.evaluation.study.curves import draw_curves
from torchgeo_msssl.evaluation.study.design import Study, make_cells
from torchgeo_msssl.evaluation.study.results import write_results
from torchgeo_msssl.evaluation.study.run import run_cell
from torchgeo_msssl.evaluation.study.summary import write_plan, write_summary

Make = Callable[..., Study]
Run = Callable[[Sequence[str]], None]


def test_summary_of_what_has_ended(make_study: Make, run: Run) -> None:
    study = make_study(metrics=['test_iou_vine', 'test_f1_vine'])
    cells = make_cells(study, ['blocks'])
    write_plan(study, cells)
    write_results(study, cells)
    assert '0 of 8 cells ended' in write_summary(study.output)[-1].read_text()
    for count, cell in enumerate(cells, start=1):
        run_cell(study, cell, run)
        write_results(study, cells)
        if count in (3, 8):
            text = write_summary(study.output)[-1].read_text()
            assert f'{count} of 8 cells ended' in text
    # 0.5 + 0.1 fraction + 0.01 seed, and 0.2 more where pretrained (conftest.py)
    assert '| random | 1.0 | 0.605 ± 0.064 | 2 |' in text
    assert '| threshold on an index | 0.1 | 0.400 ± 0.000 | 2 |' in text
    assert '| test_iou_vine | pretrained | 0.1 | +0.200 ± 0.000 | 2 / 0 / 0 |' in text
    assert 'read the pixels of the test ground too (never its labels)' in text
    assert 'All seeds of pretrained start from one pretraining: the intervals hold no spread' in text
    assert 'all labels of the validation ground choose the checkpoint' in text
    assert imread(Path(study.output) / 'curves.png').shape[:2] == (540, 1440)


def test_a_folder_without_a_study(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match='expected the folder of a study'):
        write_summary(tmp_path)


@pytest.mark.parametrize('axis', ['fraction', 'variant', None])
def test_curves_show_every_line(tmp_path: Path, axis: str | None) -> None:
    def picture(names: list[str]) -> np.ndarray:
        rows = [
            {
                'fraction': '',
                'shots': '',
                'scenes': '',
                'variant': '',
                'steps': '',
                'seed': str(seed),
                'region': 'blocks',
                'metric': 'm',
                'initialisation': name,
                'value': repr(0.5 + 0.1 * number + 0.01 * seed),
            }
            | ({axis: value} if axis else {})
            for number, name in enumerate(names)
            for seed in range(2)
            for value in (['0.1', '1.0'] if axis == 'fraction' else ['2 views', '4 views'])
        ]
        draw_curves(tmp_path / 'curves.png', pd.DataFrame(rows), ['m'])
        return imread(tmp_path / 'curves.png')[..., :3]

    def coloured(image: np.ndarray, colour: str) -> bool:
        rgb = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        return bool((np.abs(image - rgb).max(axis=-1) < 0.02).any())

    blue, orange = '#1f77b4', '#ff7f0e'
    both, one = picture(['a', 'b']), picture(['a'])
    assert coloured(both, blue)
    assert coloured(both, orange)
    assert not coloured(one, orange)
