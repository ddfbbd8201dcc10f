"""Layers of docs/architecture.md: imports go downward only, and the two columns do not import each other."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = 'torchgeo_msssl'
ROOT = Path(__file__).parents[1] / PACKAGE

#: Top-level modules and packages by layer, the lowest first. Units of one layer do not import each other, except in
#: the lowest and the highest one.
LAYERS: dict[str, frozenset[str]] = {
    # '' is the package's own __init__
    'base': frozenset(
        {
            '',
            'bands',
            'contract',
            'errors',
            'files',
            'processes',
            'progress',
            'runs',
            'shards',
            'shipped_configs',
            'validation',
        }
    ),
    'geo': frozenset({'geo'}),
    'datasets': frozenset({'datasets'}),
    'components': frozenset({'samplers', 'models', 'losses', 'transforms'}),
    'modules': frozenset({'datamodules', 'tasks'}),
    'prediction': frozenset({'prediction'}),
    'evaluation': frozenset({'evaluation'}),
    'callbacks': frozenset({'callbacks'}),
    'commands': frozenset({'cli', 'commands', '__main__'}),
}
NUMBERS = {unit: number for number, units in enumerate(LAYERS.values()) for unit in units}
BASE, COMMANDS = LAYERS['base'], LAYERS['commands']
LEFT = frozenset({'geo', 'datasets', 'samplers', 'datamodules'})
RIGHT = frozenset({'models', 'losses', 'transforms', 'tasks'})

#: Libraries that import torch; the lowest layer and geo do without them.
TORCH_LIBRARIES = frozenset(
    {
        'kornia',
        'lightly',
        'lightning',
        'pytorch_lightning',
        'segmentation_models_pytorch',
        'timm',
        'torch',
        'torchgeo',
        'torchmetrics',
        'torchvision',
    }
)
#: Modules that may name types of torch libraries under ``if TYPE_CHECKING``.
TYPED = frozenset({f'{PACKAGE}.contract', f'{PACKAGE}.runs'})
WEIGHTS_MODULE = f'{PACKAGE}.models.weights'
WEIGHT_FUNCTIONS = frozenset(
    {'torch.load', 'torch.save', 'torch.hub.load_state_dict_from_url', 'torch.jit.load', 'torch.jit.save'}
)


def module_name(path: Path, root: Path = ROOT) -> str:
    """Return the dotted name of the module in a file."""
    parts = [root.name, *path.relative_to(root).with_suffix('').parts]
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def imported_names(tree: ast.AST, module: str, is_package: bool = False) -> Iterator[str]:
    """Yield the dotted names that a module imports anywhere, functions and TYPE_CHECKING blocks included.

    `from a.b import c` yields `a.b.c`, since c may be a module.
    """
    package = module.split('.') if is_package else module.split('.')[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = '.'.join([*above, *([node.module] if node.module else [])])
            yield from (f'{base}.{alias.name}' for alias in node.names)


class WithoutTypeChecking(ast.NodeTransformer):
    """Remove the bodies of ``if TYPE_CHECKING``."""

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        if ast.unparse(node.test) in ('TYPE_CHECKING', 'typing.TYPE_CHECKING'):
            return node.orelse
        return self.generic_visit(node)


def unit(name: str) -> str | None:
    """Return the top-level part of our package that a dotted name lies in, '' for the package, None for libraries."""
    parts = name.split('.')
    if parts[0] != PACKAGE:
        return None
    # `from torchgeo_msssl import __version__` names an attribute, not a module.
    is_attribute = len(parts) == 2 and parts[1] not in NUMBERS and not _is_module(parts[1])
    return '' if len(parts) == 1 or is_attribute else parts[1]


def _is_module(name: str) -> bool:
    return (ROOT / name).is_dir() or (ROOT / f'{name}.py').is_file()


def import_fault(importer: str, imported: str) -> str | None:
    """Return a message if one module must not import another, or a torch library."""
    source, target = unit(importer), unit(imported)
    assert source is not None
    if target is None:
        library = imported.split('.')[0]
        if source in BASE | {'geo'} and library in TORCH_LIBRARIES:
            return f'{importer} imports {imported}: the lowest layer and geo do not import torch'
        return None
    for part, module in ((source, importer), (target, imported)):
        if part not in NUMBERS:
            return f'{module}: {part!r} belongs to no layer; add it to LAYERS'
    if source == target or {source, target} <= BASE or {source, target} <= COMMANDS:
        return None
    if NUMBERS[target] > NUMBERS[source]:
        return f'{importer} imports {imported}: imports go downward only'
    if NUMBERS[target] == NUMBERS[source]:
        return f'{importer} imports {imported}: units of one layer do not import each other'
    if {source, target} & LEFT and {source, target} & RIGHT:
        return f'{importer} imports {imported}: the columns of pixels and of tensors do not import each other'
    return None


def import_faults(code: str, module: str, is_package: bool = False) -> list[str]:
    """Return all faults in the imports of one module."""
    tree: ast.AST = ast.parse(code)
    if module in TYPED:
        tree = WithoutTypeChecking().visit(tree)
    names = dict.fromkeys(imported_names(tree, module, is_package))
    return [fault for name in names if (fault := import_fault(module, name))]


def weight_faults(code: str, module: str) -> list[str]:
    """Return the places outside models/weights.py that read or write weights, under any alias."""
    if module == WEIGHTS_MODULE:
        return []
    tree = ast.parse(code)
    aliases = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            # `import torch.hub` binds `torch`, `import torch.hub as hub` binds the whole name.
            for alias in node.names:
                head = alias.name.split('.')[0]
                aliases[alias.asname or head] = alias.name if alias.asname else head
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            aliases |= {alias.asname or alias.name: f'{node.module}.{alias.name}' for alias in node.names}
    faults = [
        f'{module} imports {name}: only models/weights.py reads and writes weights'
        for name in imported_names(tree, module)
        if name in WEIGHT_FUNCTIONS or name.split('.')[0] == 'safetensors'
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            head, _, tail = ast.unparse(node).partition('.')
            if f'{aliases.get(head, head)}.{tail}' in WEIGHT_FUNCTIONS:
                faults.append(f'{module}:{node.lineno} uses {ast.unparse(node)}: only models/weights.py may')
    return faults


MODULES = {path: module_name(path) for path in sorted(ROOT.rglob('*.py'))}


@pytest.mark.parametrize('layer', LAYERS)
def test_imports_go_downward(layer: str) -> None:
    faults = [
        fault
        for path, name in MODULES.items()
        if unit(name) in LAYERS[layer]
        for fault in import_faults(path.read_text(encoding='utf-8'), name, path.name == '__init__.py')
    ]
    assert not faults, '\n'.join(faults)


def test_every_unit_belongs_to_a_layer() -> None:
    units = {unit(name) for name in MODULES.values()}
    assert units >= {'', 'geo', 'datasets', 'tasks', 'commands'}
    unknown = sorted(name for name in units if name not in NUMBERS)
    assert not unknown, f'{unknown} belong to no layer; add them to LAYERS'


def test_one_module_reads_and_writes_weights() -> None:
    faults = [
        fault for path, name in MODULES.items() for fault in weight_faults(path.read_text(encoding='utf-8'), name)
    ]
    assert not faults, '\n'.join(faults)


FORBIDDEN = [
    ('geo.scene', 'import torch'),
    ('geo.scene', 'def f():\n    from torchvision.ops import nms'),
    ('geo.scene', 'import lightning.pytorch as pl'),
    ('geo.scene', 'if TYPE_CHECKING:\n    import torch'),
    ('geo.scene', 'from torchgeo.datasets import RasterDataset'),
    ('bands', 'import torch.nn as nn'),
    ('bands', 'from torchgeo_msssl.geo import grid'),
    ('contract', 'import torch'),
    ('contract', 'from torchgeo_msssl.tasks import FastSiam'),
    ('errors', 'import torchgeo_msssl.geo.grid'),
    ('processes', 'import torchgeo_msssl.geo.grid'),
    ('geo.scene', 'from torchgeo_msssl.datasets.scenes import Scenes'),
    ('geo.scene', 'from ..datasets import scenes'),
    ('datasets.scenes', 'from torchgeo_msssl import samplers'),
    ('datasets.scenes', 'if TYPE_CHECKING:\n    from torchgeo_msssl.samplers import RandomChipSampler'),
    ('models.heads', 'from torchgeo_msssl.losses import fastsiam'),
    ('losses.fastsiam', 'from torchgeo_msssl.transforms import views'),
    ('samplers.random', 'from torchgeo_msssl.models import heads'),
    ('tasks.base', 'from torchgeo_msssl.datamodules import PretrainingDataModule'),
    ('tasks.base', 'from torchgeo_msssl.geo.grid import PixelGrid'),
    ('tasks.base', 'from torchgeo_msssl.datasets import Scenes'),
    ('tasks.base', 'from torchgeo_msssl.samplers import RandomChipSampler'),
    ('tasks.base', 'from torchgeo_msssl.callbacks import FrozenProbe'),
    ('datamodules.pretraining', 'from torchgeo_msssl.transforms import Normalize'),
    ('prediction.class_map', 'from torchgeo_msssl.evaluation import probes'),
    ('evaluation.probes', 'from torchgeo_msssl.callbacks import FrozenProbe'),
    ('evaluation.probes', 'from torchgeo_msssl.cli import main'),
    ('callbacks.frozen_probe', 'from torchgeo_msssl.commands import probe'),
    ('tasks.base', 'from torchgeo_msssl import cli'),
    # A part without a layer is reported when it meets anything of ours.
    ('attic.things', 'import numpy\nfrom torchgeo_msssl import errors'),
]
ALLOWED = [
    ('bands', 'from torchgeo_msssl.errors import BandError'),
    ('contract', 'if TYPE_CHECKING:\n    from torch import Tensor\nfrom torchgeo_msssl.bands import Band'),
    ('geo.scene', 'from .grid import PixelGrid\nfrom torchgeo_msssl.bands import SENSORS\nimport rasterio'),
    ('geo.scene', 'import torchlike'),
    ('geo.chipping.run', 'from torchgeo_msssl.processes import available_cpus'),
    ('datasets.scenes', 'import torch\nfrom torchgeo_msssl import __version__\nfrom torchgeo_msssl.geo import grid'),
    ('tasks.fastsiam', 'from torchgeo_msssl.models import heads\nfrom torchgeo_msssl.tasks.base import Task'),
    ('datamodules.pretraining', 'from ..samplers.random import RandomChipSampler\nfrom ..geo import sample'),
    ('evaluation.probes', 'from torchgeo_msssl.datamodules import A\nfrom torchgeo_msssl.tasks import B'),
    ('prediction.class_map', 'from torchgeo_msssl.geo import write\nfrom torchgeo_msssl.models import weights'),
    ('evaluation.feature_map', 'from torchgeo_msssl.prediction import pipeline'),
    ('callbacks.frozen_probe', 'from torchgeo_msssl.evaluation import probes\nimport lightning'),
    ('__main__', 'from torchgeo_msssl.cli import main'),
]


def test_forbidden_imports_are_reported() -> None:
    for module, code in FORBIDDEN:
        assert len(import_faults(code, f'{PACKAGE}.{module}')) == 1, (module, code)


def test_allowed_imports_pass() -> None:
    for module, code in ALLOWED:
        assert import_faults(code, f'{PACKAGE}.{module}') == [], (module, code)


def test_relative_imports_start_in_the_package() -> None:
    assert list(imported_names(ast.parse('from . import grid'), 'p.geo', is_package=True)) == ['p.geo.grid']
    assert list(imported_names(ast.parse('from . import grid'), 'p.geo.scene')) == ['p.geo.grid']
    assert list(imported_names(ast.parse('from ..bands import Band'), 'p.geo.scene')) == ['p.bands.Band']


def test_reading_and_writing_weights_is_reported() -> None:
    for code in (
        'import torch\ntorch.load(path)',
        'import torch as t\nt.save(state, path)',
        'from torch import load',
        'from torch import hub\nhub.load_state_dict_from_url(url)',
        'import torch\nreader = torch.load',
        'from safetensors.torch import load_file',
        'def f():\n    import safetensors',
    ):
        assert len(weight_faults(code, f'{PACKAGE}.tasks.base')) == 1, code
        assert weight_faults(code, WEIGHTS_MODULE) == []


def test_other_load_functions_pass() -> None:
    code = 'import numpy as np\nimport torch\nnp.load(path)\nnp.save(path, x)\ntorch.loads\nself.torch.load'
    assert weight_faults(code, f'{PACKAGE}.geo.decoded_cache') == []
