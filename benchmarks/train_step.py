"""Time of a method's training step, compared with the same networks and loss in a bare loop.

For each method, forward, loss and backward of the task (`compute_loss`) and of a few lines of plain torch run
alternately in one process, on the same images; the median of the ratios is printed. Making the views is timed
separately, since a bare loop on random tensors has none.

    python benchmarks/train_step.py                                       # 12 bands, 224 px, on the CPU
    python benchmarks/train_step.py --device cuda --model resnet50 --batch 64 --precision bf16

With `--shares`, whole steps of FastSiam on chips of a scene: the time that each step waits for data, makes views, runs
forward, backward and the optimizer, while worker processes read.

    python benchmarks/train_step.py --shares                              # 5490 × 5490 pixels, 12 bands, 2 workers
    python benchmarks/train_step.py --shares --device cuda --model resnet50 --batch 64 --precision bf16 --workers 8
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torchgeo_msssl import tasks
from torchgeo_msssl.datamodules import PretrainingDataModule
from torchgeo_msssl.models.mae import encode_visible, patchify
from torchgeo_msssl.tasks.mae import normalized_patches

BANDS = 12


def fastsiam(task: Any, x: Tensor) -> Tensor:
    """Compare each prediction with the mean of the other projections."""
    z = task.projection_head(task.model(x))
    p, z = task.prediction_head(z).unflatten(0, (task.views, -1)), z.detach().unflatten(0, (task.views, -1))
    mean = (z.sum(0) - z) / (task.views - 1)
    return -F.cosine_similarity(p, mean, dim=-1).mean()


def projected(task: Any, x: Tensor) -> Tensor:
    """Compute the loss of projections alone, as in SimCLR, Barlow Twins and VICReg."""
    return task.criterion(task.projection_head(task.model(x)).unflatten(0, (task.views, -1)))


def averaged(task: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return projections of the network and of its moving average."""
    with torch.no_grad():
        average = task.momentum_encoder
        target = average.projection_head(average.encoder(x))
    return task.projection_head(task.model(x)), target.unflatten(0, (task.views, -1))


def moco(task: Any, x: Tensor) -> Tensor:
    """Compare queries with keys and the queue."""
    query, key = averaged(task, x)
    return task.criterion(query.unflatten(0, (task.views, -1)), key)


def byol(task: Any, x: Tensor) -> Tensor:
    """Compare predictions with the target of the other view."""
    online, target = averaged(task, x)
    p = task.prediction_head(online).unflatten(0, (task.views, -1))
    return sum(2 - 2 * F.cosine_similarity(p[i], target[1 - i], dim=-1).mean() for i in range(2))


def dino(task: Any, x: Tensor) -> Tensor:
    """Compare student and teacher."""
    student, teacher = averaged(task, x)
    return task.criterion(teacher, student.unflatten(0, (task.views, -1)), task.teacher_temperature)


def mae(task: Any, x: Tensor) -> Tensor:
    """Predict hidden patches from visible ones."""
    hidden = task.hidden_patches(task.fixed_hidden)
    visible = hidden.int().argsort(dim=1, stable=True)[:, : int((~hidden[0]).sum())]
    side = x.shape[-1] // task.patch[0]
    prediction = task.decoder(encode_visible(task.model, x, visible), visible, (side, side))
    target = patchify(x, task.patch)
    target = normalized_patches(target, torch.ones_like(target, dtype=torch.bool))
    return ((prediction - target).square().mean(-1) * hidden).sum() / hidden.sum()


def reconstruction(task: Any, x: Tensor) -> Tensor:
    """Restore corrupted pixels from the others."""
    maps = [x, *task.model.forward_intermediates(task.fixed_corrupted, intermediates_only=True)]
    restored = task.restoration_head(task.decoder(maps))
    mask = task.fixed_hidden.expand_as(x)
    return (restored - x).abs()[mask].mean() if task.criterion.kind == 'l1' else (restored - x).square()[mask].mean()


METHODS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    'FastSiam': fastsiam,
    'SimSiam': fastsiam,
    'SimCLR': projected,
    'MoCo': moco,
    'BYOL': byol,
    'BarlowTwins': projected,
    'VICReg': projected,
    'DINO': dino,
    'MAE': mae,
    'Reconstruction': reconstruction,
}


def make_task(method: str, model: str, device: str) -> Any:
    """Build a task in training mode."""
    model = 'vit_tiny_patch16_224' if method == 'MAE' and not model.startswith('vit') else model
    task: Any = getattr(tasks, method)(model=model, in_channels=BANDS)
    if method == 'DINO':  # a schedule of the trainer's step
        type(task).teacher_temperature = 0.04
    return task.to(device).train()


def prepare(task: Any, batch: int, size: int, device: str) -> tuple[dict[str, Tensor], Tensor]:
    """Return a batch of chips, and the standardized images of both sides, to which the task's own are fixed."""
    generator = torch.Generator().manual_seed(0)
    chips = {
        'image': torch.randint(1, 4000, (batch, BANDS, size, size), generator=generator).to(torch.uint16).to(device),
        'valid': torch.ones(batch, 1, size, size, dtype=torch.bool, device=device),
    }
    ones = torch.full((BANDS,), 0.2)
    task.normalize.set_statistics(ones.tolist(), (ones / 2).tolist(), (ones / 2000).tolist(), [0.0] * BANDS)
    task.normalize.to(device)
    if isinstance(task, tasks.JointEmbeddingTask):
        views, valid = task.make_views(chips)
        task.make_views = lambda *_: (views, valid)
        return chips, task.normalize.standardize(views.flatten(0, 1), valid.flatten(0, 1))
    image, valid = task.augmented(chips)
    task.fixed_corrupted, task.fixed_hidden = task.corrupt(image, valid)
    task.augmented = lambda _: (image, valid)
    task.corrupt = lambda *_: (task.fixed_corrupted, task.fixed_hidden)
    return chips, image


def seconds(step: Callable[[], Any], device: str) -> float:
    """Measure the time of a step."""
    if device == 'cuda':
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if device == 'cuda':
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(method: str, options: argparse.Namespace) -> str:
    """Return one row of the table."""
    task = make_task(method, options.model, options.device)
    cut = task.make_views if isinstance(task, tasks.JointEmbeddingTask) else task.augmented
    chips, x = prepare(task, options.batch, options.size, options.device)

    def precision() -> AbstractContextManager[Any]:
        return torch.autocast(options.device, torch.bfloat16, enabled=options.precision == 'bf16')

    def ours() -> None:
        with precision():
            loss = task.compute_loss(chips)[0]
        loss.backward()

    def bare() -> None:
        with precision():
            loss = METHODS[method](task, x)
        loss.backward()

    times: dict[str, list[float]] = {'ours': [], 'bare': [], 'views': []}
    for repeat in range(options.repeats + 1):
        for name, step in (('ours', ours), ('bare', bare), ('views', lambda: cut(chips))):
            task.zero_grad(set_to_none=True)
            elapsed = seconds(step, options.device)
            if repeat:  # the first one warms up
                times[name].append(elapsed)
    ratio = statistics.median(a / b for a, b in zip(times['ours'], times['bare'], strict=True))
    mid = {name: statistics.median(values) for name, values in times.items()}
    rate = options.batch / (mid['ours'] + mid['views'])
    return f'| {method} | {mid["ours"]:.3f} | {mid["bare"]:.3f} | {ratio:.3f} | {mid["views"]:.3f} | {rate:.1f} |'


def shares(options: argparse.Namespace) -> str:
    """Return the parts of the time of a training step, while chips are read."""
    data = PretrainingDataModule(
        paths=options.scene,
        chip_size=options.size,
        batch_size=options.batch,
        num_workers=options.workers,
        chips_per_epoch=options.batch * (options.repeats + 3),
    )
    data.setup('fit')
    task: Any = tasks.FastSiam(model=options.model, in_channels=data.in_channels).to(options.device).train()
    task.normalize.set_statistics(data.mean, data.std, data.scale, data.offset)
    if options.channels_last:
        task.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(task.parameters(), lr=0.01, momentum=0.9)
    batches = iter(data.train_dataloader())
    times: dict[str, list[float]] = {name: [] for name in ('data', 'views', 'forward', 'backward', 'optimizer')}
    cut = task.make_views

    def read() -> None:
        batch = {key: value.to(options.device, non_blocking=True) for key, value in next(batches).items()}
        task.batch = data.on_after_batch_transfer(batch, 0)

    def make() -> None:
        views = cut(task.batch)
        task.make_views = lambda *_: views

    def forward() -> None:
        with torch.autocast(options.device, torch.bfloat16, enabled=options.precision == 'bf16'):
            task.loss = task.compute_loss(task.batch)[0]

    def step() -> None:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    for repeat in range(options.repeats + 2):
        for name, part in zip(times, (read, make, forward, lambda: task.loss.backward(), step), strict=True):
            elapsed = seconds(part, options.device)
            if repeat > 1:  # the first ones start the workers and warm up
                times[name].append(elapsed)
    mid = {name: statistics.median(values) for name, values in times.items()}
    total = sum(sum(values) for values in times.values()) / options.repeats
    cells = ' | '.join(f'{mid[name]:.3f} ({sum(times[name]) / options.repeats / total:.1%})' for name in times)
    return f'| {options.batch / total:.1f} | {cells} |'


def main() -> None:
    """Read the options and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--methods', nargs='+', default=list(METHODS), choices=list(METHODS), metavar='METHOD')
    parser.add_argument('--model', default='resnet18')
    parser.add_argument('--batch', type=int, default=8)
    parser.add_argument('--size', type=int, default=224)
    parser.add_argument('--repeats', type=int, default=7)
    parser.add_argument('--device', default='cpu', choices=['cpu', 'cuda'])
    parser.add_argument('--precision', default='32', choices=['32', 'bf16'])
    parser.add_argument('--shares', action='store_true', help='print the parts of the time of a whole step')
    parser.add_argument('--scene', help='for --shares: scene to read (default: a generated one)')
    parser.add_argument('--workers', type=int, default=2, help='for --shares: number of worker processes')
    parser.add_argument('--channels-last', action='store_true', help='for --shares: use the channels-last layout')
    options = parser.parse_args()
    print(
        f'{options.model}, {BANDS} bands, {options.size} px, {options.batch} chips, {options.device}, torch '
        f'{torch.__version__}, {torch.get_num_threads()} threads; seconds'
    )
    if options.shares:
        print('| chips / s | data | views | forward | backward | optimizer |\n|---|---|---|---|---|---|')
        with tempfile.TemporaryDirectory() as folder:
            if options.scene is None:
                from read_chips import LAYOUTS, write_scene  # in this folder

                options.scene = str(Path(folder) / 'scene.tif')
                write_scene(Path(options.scene), LAYOUTS[0], 5490)
            print(shares(options))
        return
    print('| method | ours | bare loop | median ratio | views | chips / s |\n|---|---|---|---|---|---|')
    for method in options.methods:
        print(measure(method, options), flush=True)


if __name__ == '__main__':
    main()
