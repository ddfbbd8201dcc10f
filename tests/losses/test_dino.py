"""DINO's loss against the authors' algorithm, limits that are known, and one process on all data."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.losses.two_ranks import RANKS, mean_over_ranks, run_two_ranks
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.losses.dino import DINOLoss, temperature_at

# 0.04 is a float32 within lightly's loss, which is divided by it
CLOSE = 1e-6


def draw(views: int = 2, batch: int = 8, prototypes: int = 6, local_views: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    teacher, student = torch.randn(2, views, batch, prototypes, generator=generator, dtype=torch.float64)
    local = torch.randn(local_views, batch, prototypes, generator=generator, dtype=torch.float64)
    return teacher / 5, torch.cat([student, local]) / 5


def authors_loss(
    teacher: Tensor, student: Tensor, center: Tensor, temp: float, student_temp: float = 0.1, momentum: float = 0.9
) -> tuple[Tensor, Tensor]:
    """``DINOLoss.forward`` of https://github.com/facebookresearch/dino/blob/main/main_dino.py, and the new centre."""
    student_out = student / student_temp
    teacher_out = F.softmax((teacher - center) / temp, dim=-1).detach()
    total_loss, n_loss_terms = torch.zeros((), dtype=student.dtype), 0
    for iq, q in enumerate(teacher_out):
        for v in range(len(student_out)):
            if v == iq:
                continue  # same view
            total_loss = total_loss + torch.sum(-q * F.log_softmax(student_out[v], dim=-1), dim=-1).mean()
            n_loss_terms += 1
    batch_center = teacher.flatten(0, 1).mean(dim=0)
    return total_loss / n_loss_terms, center * momentum + batch_center * (1 - momentum)


@pytest.mark.parametrize(('views', 'local_views'), [(2, 0), (4, 0), (2, 1), (2, 8), (3, 2)])
@pytest.mark.parametrize('temperature', [0.04, 0.07])
def test_three_steps_are_the_authors(views: int, local_views: int, temperature: float) -> None:
    """With local views (multi-crop) the teacher has scores of the global views only."""
    loss_of, center = DINOLoss(6).double(), torch.zeros(6, dtype=torch.float64)
    for step in range(3):
        teacher, student = (part * (step + 1) for part in draw(views, local_views=local_views))
        student.requires_grad_()
        loss = loss_of(teacher, student, temperature)
        expected, center = authors_loss(teacher, student, center, temperature)
        assert loss.item() == pytest.approx(expected.item(), rel=CLOSE)
        gradients = [torch.autograd.grad(value, student)[0] for value in (loss, expected)]
        torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=CLOSE)
        torch.testing.assert_close(loss_of.center, center, rtol=0, atol=1e-12)
    assert loss_of.center.norm() > 0.01


def test_limits() -> None:
    prototypes = 16
    uniform = torch.zeros(2, 4, prototypes, dtype=torch.float64)
    sure = uniform.clone()
    sure[..., 3] = 10
    assert DINOLoss(prototypes)(uniform, uniform, 0.04).item() == pytest.approx(math.log(prototypes), abs=1e-12)
    assert DINOLoss(prototypes)(sure, uniform, 0.04).item() == pytest.approx(math.log(prototypes), abs=1e-12)
    assert DINOLoss(prototypes)(sure, sure, 0.04).item() == pytest.approx(0, abs=1e-12)
    # two temperatures: the teacher's is lower, so a student that says the same is less sure
    shared = draw(1)[0].expand(2, -1, -1)
    target, student = F.softmax(shared / 0.04, dim=-1), F.log_softmax(shared / 0.1, dim=-1)
    expected = -(target * student).sum(dim=-1).mean().item()
    assert DINOLoss(6)(shared, shared, 0.04).item() == pytest.approx(expected, rel=CLOSE)


def test_the_same_view_is_not_compared() -> None:
    """With two views, each view's student has to do with the other view's teacher only."""
    teacher, student = draw()
    student.requires_grad_()
    DINOLoss(6)(teacher, student, 0.04).backward()
    changed, first = teacher.clone(), student.grad[0].clone()
    changed[0] *= -3
    student.grad = None
    DINOLoss(6)(changed, student, 0.04).backward()
    torch.testing.assert_close(student.grad[0], first, rtol=0, atol=0)


def test_gradient_reaches_the_student_only() -> None:
    teacher, student = (part.requires_grad_() for part in draw())
    DINOLoss(6)(teacher, student, 0.04).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


def test_the_centre_is_saved() -> None:
    first, second = DINOLoss(6).double(), DINOLoss(6).double()
    first(*draw(), 0.04)
    assert sum(tensor.numel() for tensor in first.state_dict().values()) == 6
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.center, second.center)
    assert first.center.abs().sum() > 0


def test_half_precision_is_computed_in_float32() -> None:
    teacher, student = (part.bfloat16() for part in draw(batch=64, prototypes=32))
    with torch.autocast('cpu', torch.bfloat16):
        loss = DINOLoss(32)(teacher, student, 0.04)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(DINOLoss(32)(teacher.double(), student.double(), 0.04).item(), rel=1e-5)


def test_nan_stays_nan() -> None:
    teacher, student = draw()
    student[0, 0, 0] = torch.nan
    assert DINOLoss(6)(teacher, student, 0.04).isnan()


def loss_on_rank(rank: int, teacher: Tensor, inputs: Tensor, weight: Tensor) -> list[Tensor]:
    """Loss of a second step, gradient of a linear layer before it as DDP takes it, and the centre."""
    weight, criterion = weight.clone().requires_grad_(), DINOLoss(6).double()
    mine, theirs = teacher.chunk(RANKS, dim=1)[rank], inputs.chunk(RANKS, dim=1)[rank]
    criterion(mine, theirs, 0.04)
    loss = criterion(mine, theirs @ weight, 0.04)
    loss.backward()
    return [mean_over_ranks(loss), mean_over_ranks(weight.grad), criterion.center]


def test_two_ranks_are_one_process_on_the_whole_batch() -> None:
    teacher, inputs = draw(views=3, local_views=2)
    teacher = teacher + torch.arange(8.0).view(1, -1, 1) * torch.eye(6)[0] / 10  # ranks of different means
    weight = torch.eye(6, dtype=torch.float64).add(0.1).requires_grad_()
    criterion = DINOLoss(6).double()
    criterion(teacher, inputs, 0.04)
    loss = criterion(teacher, inputs @ weight, 0.04)
    loss.backward()
    for parts in run_two_ranks(loss_on_rank, teacher, inputs, weight.detach()):
        for part, expected in zip(parts, (loss.detach(), weight.grad, criterion.center), strict=True):
            torch.testing.assert_close(part, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(('step', 'expected'), [(0, 0.04), (5, 0.055), (10, 0.07), (99, 0.07)])
def test_temperature_rises_linearly(step: int, expected: float) -> None:
    assert temperature_at(step, 10, 0.04, 0.07) == pytest.approx(expected, abs=1e-12)


def test_temperature_without_warmup() -> None:
    assert temperature_at(0, 0, 0.01, 0.07) == 0.07


def test_refusals() -> None:
    teacher, student = draw(views=3)
    for bad in (slice(0, 1), 0):
        with pytest.raises(ConfigurationError, match='2 views and 2 samples or more'):
            DINOLoss(6)(teacher[bad], student[bad], 0.04)
    for bad in (student[:2], student[:, :3]):
        with pytest.raises(ConfigurationError, match='same views'):
            DINOLoss(6)(teacher, bad, 0.04)
    with pytest.raises(ConfigurationError, match='student_temperature'):
        DINOLoss(6, student_temperature=0)
    with pytest.raises(ConfigurationError, match='center_momentum'):
        DINOLoss(6, center_momentum=1.1)
