"""Contact sheets: layout, stretch, nodata."""

import numpy as np
import pytest
import torch

from torchgeo_msssl.errors import BandError, ConfigurationError
from torchgeo_msssl.transforms import contact_sheet
from torchgeo_msssl.transforms.pictures import NODATA_GRAY, SEPARATOR_WHITE


def ramp(batch: int = 2, bands: int = 5, size: int = 20) -> torch.Tensor:
    values = torch.arange(size * size, dtype=torch.float32).view(1, 1, size, size) / 1000
    return values * torch.arange(1, bands + 1).view(1, -1, 1, 1) * torch.arange(1, batch + 1).view(-1, 1, 1, 1)


def test_layout_and_stretch() -> None:
    chip = ramp()
    sheet = contact_sheet(chip, torch.stack([chip, 2 * chip, chip[:, :].flip(-1)]), [3, 1, 0], separator=3)
    assert sheet.shape == (2 * 20 + 3, 4 * 20 + 3 * 3, 3)
    assert sheet.dtype == np.uint8
    assert (sheet[20:23] == SEPARATOR_WHITE).all()
    assert (sheet[:, 20:23] == SEPARATOR_WHITE).all()
    first, same, brighter, flipped = (sheet[:20, column : column + 20] for column in (0, 23, 46, 69))
    assert np.array_equal(first, same)
    assert np.array_equal(flipped, first[:, ::-1])
    assert brighter.mean() > first.mean() + 30
    # each band of each chip has a stretch of its own, so a common factor does not show
    assert np.abs(sheet[23:43, :20].astype(int) - first).max() <= 1
    assert np.array_equal(first[..., 0], first[..., 2])
    values = chip[0, 0].numpy()
    low, high = np.percentile(values, [2, 98])
    expected = np.clip((values - low) / (high - low), 0, 1) * 255
    assert np.abs(first[..., 0] - expected).max() <= 0.51


def test_nodata_is_grey_and_has_no_part_in_the_stretch() -> None:
    chip = ramp()
    valid = torch.ones(2, 1, 20, 20, dtype=torch.bool)
    valid[:, :, :5] = False
    plain = contact_sheet(chip, chip[None], [0], valid, valid[None])
    spoilt = contact_sheet(
        chip.masked_fill(~valid, 1e9), chip.masked_fill(~valid, torch.nan)[None], [0], valid, valid[None]
    )
    assert np.array_equal(plain, spoilt)
    assert (plain[:5, :20] == NODATA_GRAY).all()
    assert (plain[5:20, 22:] != NODATA_GRAY).mean() > 0.9
    empty = contact_sheet(chip, chip[None], [0], torch.zeros_like(valid), torch.zeros_like(valid)[None], rows=1)
    assert (empty[:, :20] == NODATA_GRAY).all()


def test_even_chips_are_not_driven_out_of_range_by_a_gain() -> None:
    """Bare soil: reflectance 0.7 with hardly any contrast."""
    chip = 0.7 + 0.01 * ramp(batch=1)
    sheet = contact_sheet(chip, torch.stack([0.85 * chip, 1.15 * chip, 0 * chip]), [0, 1, 2], separator=0)
    means = [sheet[:, column : column + 20].mean() for column in (0, 20, 40, 60)]
    assert means[0] == pytest.approx(127.5, abs=6)
    assert 20 < means[1] < 80
    assert 175 < means[2] < 235
    assert means[3] == 0
    blank = contact_sheet(torch.zeros_like(chip), torch.zeros_like(chip)[None], [0])
    assert np.unique(blank[:, :20]).tolist() == [128]


def test_rows_zoom_and_sides() -> None:
    chip, views = ramp(batch=12), torch.zeros(2, 12, 5, 8, 8)
    assert contact_sheet(chip, views, [0, 1, 2]).shape == (8 * 20 + 7 * 2, 3 * 20 + 2 * 2, 3)
    sheet = contact_sheet(chip, views, [0, 1, 2], rows=1, zoom=2, separator=0)
    assert sheet.shape == (40, 120, 3)
    assert (sheet[12:28, 52:68] == 0).all()
    assert (sheet[:12, 40:] == SEPARATOR_WHITE).all()
    assert np.array_equal(sheet[0::2, 0:40:2], sheet[1::2, 1:40:2])


def test_bad_options_are_refused() -> None:
    for index in ([0, 1], [0, 1, 5], [-1, 0, 1], []):
        with pytest.raises(BandError, match='5 bands'):
            contact_sheet(ramp(), ramp()[None], index)
    with pytest.raises(ConfigurationError):
        contact_sheet(ramp(), ramp()[None], [0], zoom=0)
