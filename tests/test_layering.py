"""The house of docs/architecture.md, enforced: imports go downward only, and the two columns stay apart."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = 'torchgeo_msssl'
ROOT = Path(__file__).parents[1] / PACKAGE

# Top-level modules and packages by floor, the ground first. Those of one floor do not import each other.
FLOORS: tuple[frozenset[str], ...] = (
    frozenset({'', 'bands', 'errors', 'files', 'progress'}),  # '' is the package's own __init__
    frozenset({'geo'}),
    frozenset({'datasets'}),
    frozenset({'samplers', 'models', 'losses', 'transforms'}),
    frozenset({'datamodules', 'tasks'}),
    frozenset({'evaluation', 'prediction'}),
    frozenset({'cli', 'commands', '__main__'}),
)
GROUND, ROOF = FLOORS[0], FLOORS[-1]
LEFT = frozenset({'geo', 'datasets', 'samplers', 'datamodules'})
RIGHT = frozenset({'models', 'losses', 'transforms', 'tasks'})

# Whatever brings torch along is kept from the ground floor and from geo.
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
WEIGHTS_MODULE = f'{PACKAGE}.models.weights'
WEIGHT_FUNCTIONS = frozenset(
    {'torch.load', 'torch.save', 'torch.hub.load_state_dict_from_url', 'torch.jit.load', 'torch.jit.save'}
)


def module_name(path: Path, root: Path = ROOT) -> str:
    """Dotted name of the module in a file."""
    parts = [root.name, *path.relative_to(root).with_suffix('').parts]
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def imported_names(tree: ast.AST, module: str, is_package: bool = False) -> Iterator[str]:
    """Dotted names that a module imports, wherever in it (functions and TYPE_CHECKING included).

    `from a.b import c` gives `a.b.c`, since c may be a module.
    """
    package = module.split('.') if is_package else module.split('.')[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = '.'.join([*above, *([node.module] if node.module else [])])
            yield from (f'{base}.{alias.name}' for alias in node.names)


def unit(name: str) -> str | None:
    """Top-level part of our package that a dotted name lies in, '' for the package itself, None for others."""
    parts = name.split('.')
    if parts[0] != PACKAGE:
        return None
    units = frozenset().union(*FLOORS)
    # `from torchgeo_msssl import __version__` names an attribute, not a module.
    is_attribute = len(parts) == 2 and parts[1] not in units and not _is_module(parts[1])
    return '' if len(parts) == 1 or is_attribute else parts[1]


def _is_module(name: str) -> bool:
    return (ROOT / name).is_dir() or (ROOT / f'{name}.py').is_file()


def floor(name: str) -> int | None:
    """Number of the floor a top-level part lives on, None where the house has no room for it."""
    return next((number for number, units in enumerate(FLOORS) if name in units), None)


def import_fault(importer: str, imported: str) -> str | None:
    """Say what is wrong with one part of the package importing another, or with geo importing a library."""
    source, target = unit(importer), unit(imported)
    assert source is not None
    if target is None:
        library = imported.split('.')[0]
        if source in GROUND | {'geo'} and library in TORCH_LIBRARIES:
            return f'{importer} imports {imported}: the ground and geo do without torch'
        return None
    for part, module in ((source, importer), (target, imported)):
        if floor(part) is None:
            return f'{module}: {part!r} has no floor in the house; put it where it belongs in FLOORS'
    if source == target or {source, target} <= GROUND or {source, target} <= ROOF:
        return None
    if floor(target) > floor(source):
        return f'{importer} imports {imported}: imports go downward only'
    if floor(target) == floor(source):
        return f'{importer} imports {imported}: parts of one floor do not import each other'
    if {source, target} & LEFT and {source, target} & RIGHT:
        return f'{importer} imports {imported}: the columns of places and of tensors do not import each other'
    return None


def import_faults(code: str, module: str, is_package: bool = False) -> list[str]:
    """All faults in the imports of one module."""
    names = dict.fromkeys(imported_names(ast.parse(code), module, is_package))
    return [fault for name in names if (fault := import_fault(module, name))]


def weight_faults(code: str, module: str) -> list[str]:
    """Places outside models/weights.py that read or write weights, under whatever alias."""
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


MODULES = sorted(ROOT.rglob('*.py'))


@pytest.mark.parametrize('path', MODULES, ids=lambda path: module_name(path))
def test_imports_go_downward(path: Path) -> None:
    faults = import_faults(path.read_text(encoding='utf-8'), module_name(path), path.name == '__init__.py')
    assert not faults, '\n'.join(faults)


@pytest.mark.parametrize('path', MODULES, ids=lambda path: module_name(path))
def test_one_module_reads_and_writes_weights(path: Path) -> None:
    faults = weight_faults(path.read_text(encoding='utf-8'), module_name(path))
    assert not faults, '\n'.join(faults)


def test_every_part_has_a_floor() -> None:
    parts = {unit(module_name(path)) for path in MODULES}
    assert parts, 'no modules found'
    homeless = sorted(part for part in parts if part is None or floor(part) is None)
    assert not homeless, f'{homeless} have no floor in the house; put them where they belong in FLOORS'


@pytest.mark.parametrize(
    ('module', 'code'),
    [
        ('geo.scene', 'import torch'),
        ('geo.scene', 'def f():\n    from torchvision.ops import nms'),
        ('geo.scene', 'import lightning.pytorch as pl'),
        ('geo.scene', 'from torchgeo.datasets import RasterDataset'),
        ('bands', 'import torch.nn as nn'),
        ('bands', 'from torchgeo_msssl.geo import grid'),
        ('errors', 'import torchgeo_msssl.geo.grid'),
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
        ('datamodules.pretraining', 'from torchgeo_msssl.transforms import Normalize'),
        ('evaluation.probes', 'from torchgeo_msssl.prediction import stitch'),
        ('evaluation.probes', 'from torchgeo_msssl.cli import main'),
        ('tasks.base', 'from torchgeo_msssl import cli'),
        ('attic.things', 'import numpy'),
    ],
)
def test_checker_sees_a_fault(module: str, code: str) -> None:
    module = f'{PACKAGE}.{module}'
    # A part without a floor shows when anything of ours meets it.
    code = code if 'attic' not in module else f'{code}\nfrom {PACKAGE} import errors'
    assert len(import_faults(code, module)) == 1


@pytest.mark.parametrize(
    ('module', 'code'),
    [
        ('bands', 'from torchgeo_msssl.errors import BandError'),
        ('geo.scene', 'from .grid import PixelGrid\nfrom torchgeo_msssl.bands import SENSORS\nimport rasterio'),
        ('geo.scene', 'import torchlike'),
        (
            'datasets.scenes',
            'import torch\nfrom torchgeo_msssl import __version__\nfrom torchgeo_msssl.geo import grid',
        ),
        ('tasks.fastsiam', 'from torchgeo_msssl.models import heads\nfrom torchgeo_msssl.tasks.base import Task'),
        ('datamodules.pretraining', 'from ..samplers.random import RandomChipSampler\nfrom ..geo import sample'),
        ('evaluation.probes', 'from torchgeo_msssl.datamodules import A\nfrom torchgeo_msssl.tasks import B'),
        ('prediction.writer', 'from torchgeo_msssl.geo import write\nfrom torchgeo_msssl.models import weights'),
        ('__main__', 'from torchgeo_msssl.cli import main'),
    ],
)
def test_checker_lets_the_rest_pass(module: str, code: str) -> None:
    assert import_faults(code, f'{PACKAGE}.{module}') == []


def test_relative_imports_of_a_package_start_in_it() -> None:
    assert list(imported_names(ast.parse('from . import grid'), 'p.geo', is_package=True)) == ['p.geo.grid']
    assert list(imported_names(ast.parse('from . import grid'), 'p.geo.scene')) == ['p.geo.grid']
    assert list(imported_names(ast.parse('from ..bands import Band'), 'p.geo.scene')) == ['p.bands.Band']


@pytest.mark.parametrize(
    'code',
    [
        'import torch\ntorch.load(path)',
        'import torch as t\nt.save(state, path)',
        'from torch import load',
        'from torch import hub\nhub.load_state_dict_from_url(url)',
        'import torch\nreader = torch.load',
        'from safetensors.torch import load_file',
        'def f():\n    import safetensors',
    ],
)
def test_checker_sees_weights_being_read_or_written(code: str) -> None:
    assert len(weight_faults(code, f'{PACKAGE}.tasks.base')) == 1
    assert weight_faults(code, WEIGHTS_MODULE) == []


def test_checker_knows_other_loads() -> None:
    code = 'import numpy as np\nimport torch\nnp.load(path)\nnp.save(path, x)\ntorch.loads\nself.torch.load'
    assert weight_faults(code, f'{PACKAGE}.geo.cache') == []
