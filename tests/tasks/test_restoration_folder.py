"""The picture of restored chips: what it shows where."""

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from torchgeo_msssl.errors import BandError
from torchgeo_msssl.tasks.restoration_folder import PANELS, draw_restorations
from torchgeo_msssl.tasks.run_folder import MetricsFile, draw_curves


@pytest.mark.parametrize('note', ['', 'mean and spread are those of the original'])
def test_each_image_has_its_column(tmp_path: Path, note: str) -> None:
    original = torch.rand(3, 4, 40, 40)
    black, white = torch.full_like(original, -9.0), torch.full_like(original, 9.0)
    valid = torch.ones(3, 1, 40, 40, dtype=torch.bool)
    valid[:, :, :20] = False
    draw_restorations(tmp_path / 'a.png', [original, black, white, original], valid, (2, 1, 0), rows=2, note=note)
    picture = imread(tmp_path / 'a.png')[..., :3]
    assert picture.shape == (2 * 160 + 2 + (45 if note else 30), 4 * 160 + 3 * 2, 3)
    sheet = picture[-(2 * 160 + 2) :]
    cells = [sheet[90:150, 162 * column + 10 : 162 * column + 150] for column in range(4)]
    np.testing.assert_allclose(cells[1], 0, atol=0.01)
    np.testing.assert_allclose(cells[2], 1, atol=0.01)
    np.testing.assert_allclose(cells[0], cells[3], atol=0.01)
    assert cells[0].std() > 0.1
    np.testing.assert_allclose(sheet[10:70, 10:150], 128 / 255, atol=0.01)  # no data


def test_a_band_that_is_not_there(tmp_path: Path) -> None:
    image = torch.rand(2, 4, 16, 16)
    with pytest.raises(BandError, match='rgb_index'):
        draw_restorations(tmp_path / 'a.png', [image] * 4, torch.ones(2, 1, 16, 16, dtype=torch.bool), (7, 1, 0))
    assert not list(tmp_path.iterdir())


def test_curves_of_what_there_is(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / 'metrics.csv', resumed_at=0)
    metrics.add({'step': 0, 'epoch': 0, 'train_loss_step': 1.0})
    metrics.add({'step': 1, 'epoch': 0, 'val_psnr': 20.0})
    draw_curves(metrics, tmp_path / 'curves.png', PANELS)
    assert imread(tmp_path / 'curves.png').shape[:2] == (600, 1200)
