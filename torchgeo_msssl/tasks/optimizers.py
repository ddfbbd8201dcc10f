"""Optimizers, parameter groups and the cosine schedule with warm-up.

Weight decay exempts biases, normalization layers and other one-dimensional parameters, as in SimCLR
(https://arxiv.org/abs/2002.05709, B.6) and BYOL (https://arxiv.org/abs/2006.07733, 3.3).
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

from lightly.utils.lars import LARS
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.validation import check_at_least, check_choice, check_positive, check_probability

OptimizerName = Literal['sgd', 'adam', 'adamw', 'lars']

#: A parameter group of torch's optimizers: ``params``, ``weight_decay`` and our ``constant_lr``.
ParameterGroup = dict[str, Any]

# by type, since a layer norm may have parameters of several dimensions
_NORMS = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
)


def parameter_groups(
    modules: Iterable[nn.Module], weight_decay: float, constant_lr: bool = False
) -> list[ParameterGroup]:
    """Split trainable parameters into those that decay and those that do not.

    Exempt are biases, parameters of normalization layers, one-dimensional parameters (layer scale, class tokens
    of one dimension, …) and the names in a timm model's ``no_weight_decay()`` (position embeddings, relative
    position biases). Frozen parameters are omitted; a shared one is included once.

    Lists of several calls can be concatenated: SimSiam's are ``parameter_groups([encoder, projector], 1e-4) +
    parameter_groups([predictor], 1e-4, constant_lr=True)``.

    Args:
        modules: Modules to train.
        weight_decay: Decay of the parameters that are not exempt.
        constant_lr: Whether to keep these parameters' learning rate constant.

    Returns:
        At most two groups, the decaying one first; empty ones are omitted.

    Raises:
        ConfigurationError: If ``weight_decay`` is negative.
    """
    check_at_least(0, weight_decay=weight_decay)
    decaying: list[nn.Parameter] = []
    exempt: list[nn.Parameter] = []
    seen: set[int] = set()
    for module in modules:
        exempt_ids = set(map(id, _exempt_parameters(module)))
        for parameter in module.parameters():
            if not parameter.requires_grad or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            (exempt if id(parameter) in exempt_ids else decaying).append(parameter)
    groups = ((decaying, weight_decay), (exempt, 0.0))
    return [
        {'params': parameters, 'weight_decay': decay, 'constant_lr': constant_lr}
        for parameters, decay in groups
        if parameters
    ]


def _exempt_parameters(root: nn.Module) -> Iterator[nn.Parameter]:
    """Yield the parameters below a module that must not decay, possibly some twice."""
    for module in root.modules():
        own_names = getattr(module, 'no_weight_decay', None)
        named = own_names() if callable(own_names) else ()
        # timm's names are relative to the model that names them, which may be nested in `root`
        yield from (parameter for name, parameter in module.named_parameters() if name in named)
        for name, parameter in module.named_parameters(recurse=False):
            if name == 'bias' or parameter.ndim <= 1 or isinstance(module, _NORMS):
                yield parameter


def create_optimizer(
    name: OptimizerName,
    groups: Iterable[ParameterGroup],
    lr: float,
    momentum: float = 0.9,
    betas: tuple[float, float] = (0.9, 0.999),
) -> Optimizer:
    """Build an optimizer by name.

    LARS (https://arxiv.org/abs/1708.03888) scales the steps of decaying groups only; groups without weight decay
    take plain SGD steps, as SimCLR and BYOL require.

    Args:
        name: One of ``sgd``, ``adam``, ``adamw``, ``lars``.
        groups: Parameter groups, each with its own ``weight_decay`` (see :func:`parameter_groups`).
        lr: Learning rate, before the schedule.
        momentum: Momentum of SGD and LARS.
        betas: Coefficients of Adam and AdamW.

    Returns:
        The optimizer.

    Raises:
        ConfigurationError: If the name is unknown, ``lr`` is not positive, there is nothing to train, or LARS
            has no weight decay, with which it would be SGD.
    """
    groups = list(groups)
    if not groups:
        raise ConfigurationError('optimizer: there is no trainable parameter; unfreeze a module.')
    check_positive(lr=lr)
    check_choice('optimizer', name, OptimizerName)
    match name:
        case 'sgd':
            return SGD(groups, lr=lr, momentum=momentum)
        case 'adam':
            return Adam(groups, lr=lr, betas=betas)
        case 'adamw':
            return AdamW(groups, lr=lr, betas=betas)
        case 'lars':
            if not any(group.get('weight_decay', 0) > 0 for group in groups):
                raise ConfigurationError(
                    'optimizer: lars scales decaying parameters only; set weight_decay above 0 (SimCLR uses 1e-6), or '
                    'use sgd.'
                )
            return LARS(groups, lr=lr, momentum=momentum)


def cosine_factor(step: int, total_steps: int, warmup_steps: int, final_lr_factor: float = 0.0) -> float:
    """Factor of the learning rate at a step: a linear rise, then half a cosine.

    It is ``step / warmup_steps`` during the warm-up, hence 0 at step 0 (1 without warm-up) and 1 at
    ``warmup_steps``; ``final_lr_factor`` at ``total_steps`` and after. This is the schedule of MoCo v3 and MAE
    (https://arxiv.org/abs/2104.02057, https://arxiv.org/abs/2111.06377), and without warm-up that of SimSiam and
    FastSiam (https://arxiv.org/abs/1608.03983), taken per step.

    Args:
        step: Optimizer steps so far, the trainer's ``global_step``.
        total_steps: Steps of the whole run.
        warmup_steps: Steps of the rise, fewer than ``total_steps``.
        final_lr_factor: Factor at the end.

    Returns:
        Factor between 0 and 1.
    """
    if step < warmup_steps:
        return step / warmup_steps
    if step >= total_steps:
        return final_lr_factor
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    return final_lr_factor + (1 - final_lr_factor) * 0.5 * (1 + math.cos(math.pi * progress))


def cosine_with_warmup(
    optimizer: Optimizer, total_steps: int, warmup_steps: int = 0, final_lr_factor: float = 0.0
) -> LambdaLR:
    """Schedule an optimizer by :func:`cosine_factor`, to be stepped once per optimizer step.

    In Lightning that is ``{'scheduler': cosine_with_warmup(…), 'interval': 'step'}``. Groups with ``constant_lr``
    keep their learning rate.

    Args:
        optimizer: Its groups may carry ``constant_lr``.
        total_steps: Steps of the whole run.
        warmup_steps: Steps of the linear rise.
        final_lr_factor: Factor at the end.

    Returns:
        The scheduler; its state consists of plain numbers.

    Raises:
        ConfigurationError: If the warm-up does not end before the run, or ``final_lr_factor`` lies outside 0…1.
    """
    if not 0 <= warmup_steps < total_steps:
        raise ConfigurationError(
            f'warmup_steps: expected 0 or more and fewer than the {total_steps} steps of the run, got {warmup_steps}.'
        )
    check_probability('final_lr_factor', final_lr_factor)

    # plain functions: LambdaLR keeps them out of its state, which remains loadable with `weights_only`
    def scheduled(step: int) -> float:
        return cosine_factor(step, total_steps, warmup_steps, final_lr_factor)

    def constant(step: int) -> float:
        return 1.0

    factors: list[Callable[[int], float]] = [
        constant if group.get('constant_lr', False) else scheduled for group in optimizer.param_groups
    ]
    return LambdaLR(optimizer, factors)
