"""Build the sdist and the wheel, check their contents, and run the smoke test on the installed wheel.

    python scripts/check_wheel.py                # build into a temporary folder
    python scripts/check_wheel.py --output dist  # keep the files, for a release

The wheel is installed without its dependencies, which the environment must have, into a temporary folder, from which
`scripts/smoke.py` imports it in an empty working folder. Needs the package `build`.
"""

import argparse
import configparser
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = 'torchgeo_msssl'
#: Folders and files of the sdist besides the package.
SDIST = ('configs', 'data_prep', 'docs', 'scripts', 'tests', 'CHANGELOG.md', 'CITATION.cff', 'LICENSE', 'README.md')
ENTRY_POINT = f'{PACKAGE}.__main__:main'


def source_files(folder: str) -> Iterator[str]:
    """Yield the files of a folder of the repository by their paths in it, without caches."""
    for path in sorted((ROOT / folder).rglob('*')):
        if path.is_file() and path.suffix != '.pyc' and '__pycache__' not in path.parts:
            yield path.relative_to(ROOT).as_posix()


def expected_wheel_files() -> set[str]:
    """Return the paths that a wheel must have, apart from its metadata."""
    configs = {f'{PACKAGE}/{path}' for path in source_files('configs')}
    return {*source_files(PACKAGE), *configs, f'{PACKAGE}/py.typed'}


def wheel_faults(names: Collection[str]) -> list[str]:
    """Compare the content of a wheel with the repository.

    Args:
        names: Paths in the wheel.

    Returns:
        One sentence per missing or unexpected file.
    """
    found = {name for name in names if not PurePosixPath(name).parts[0].endswith('.dist-info')}
    expected = expected_wheel_files()
    faults = [f'{name} is missing in the wheel.' for name in sorted(expected - found)]
    faults += [f'{name} is not expected in the wheel.' for name in sorted(found - expected)]
    files = {PurePosixPath(name).name for name in set(names) - found}
    return faults + [f'{name} is missing in the wheel.' for name in ('LICENSE', 'METADATA') if name not in files]


def sdist_faults(names: Collection[str]) -> list[str]:
    """Compare the content of an sdist with the repository.

    Args:
        names: Paths in the archive, below one folder.

    Returns:
        One sentence per missing file.
    """
    found = {'/'.join(PurePosixPath(name).parts[1:]) for name in names}
    expected = {name for part in SDIST for name in (source_files(part) if (ROOT / part).is_dir() else [part])}
    return [f'{name} is missing in the sdist.' for name in sorted({*expected, *source_files(PACKAGE)} - found)]


def build(folder: Path) -> tuple[Path, Path]:
    """Build the sdist, and the wheel from it.

    Args:
        folder: Folder to write into.

    Returns:
        Paths of the sdist and the wheel.
    """
    run([sys.executable, '-m', 'build', '--outdir', str(folder), str(ROOT)], folder)
    version = max(folder.glob(f'{PACKAGE}-*.tar.gz'), key=lambda path: path.stat().st_mtime)
    return version, folder / f'{version.name.removesuffix(".tar.gz")}-py3-none-any.whl'


def check_contents(sdist: Path, wheel: Path) -> list[str]:
    """Return what is wrong with the contents of the sdist and the wheel."""
    with tarfile.open(sdist) as archive:
        faults = sdist_faults([member.name for member in archive if member.isfile()])
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        faults += wheel_faults(names)
        scripts = configparser.ConfigParser()
        scripts.read_string(archive.read(next(name for name in names if name.endswith('entry_points.txt'))).decode())
    if scripts.get('console_scripts', 'torchgeo-msssl', fallback='') != ENTRY_POINT:
        faults.append(f'The command torchgeo-msssl of the wheel does not call {ENTRY_POINT}.')
    return faults


def smoke_test(wheel: Path, folder: Path) -> None:
    """Install the wheel into a folder and run the smoke test there.

    Args:
        wheel: The wheel.
        folder: Temporary folder.
    """
    target, empty = folder / 'installed', folder / 'empty'
    empty.mkdir()
    pip = [sys.executable, '-m', 'pip', 'install', '--disable-pip-version-check', '--quiet', '--no-deps']
    run([*pip, '--target', str(target), str(wheel)], empty)
    # ahead of an editable installation in the environment
    environment = os.environ | {'PYTHONPATH': str(target)}
    where = 'import pathlib, torchgeo_msssl as package; print(pathlib.Path(package.__file__).parents[1])'
    found = subprocess.check_output([sys.executable, '-c', where], cwd=empty, env=environment, text=True).strip()
    if Path(found).resolve() != target.resolve():
        sys.exit(f'error: the package is imported from {found} instead of {target}.')
    run([sys.executable, str(ROOT / 'scripts' / 'smoke.py')], empty, environment)


def run(command: Sequence[str], folder: Path, environment: dict[str, str] | None = None) -> None:
    """Run a command; exit if it fails.

    Args:
        command: The command line.
        folder: Working folder.
        environment: Environment variables; None for those of this process.
    """
    if subprocess.run(command, cwd=folder, env=environment, check=False).returncode != 0:
        sys.exit(f'error: {" ".join(command)} failed, see above.')


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the checks.

    Args:
        arguments: Arguments; None takes those of the process.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--output', metavar='DIR', help='folder to keep the sdist and the wheel in')
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        output = Path(options.output or Path(temporary) / 'dist').resolve()
        output.mkdir(parents=True, exist_ok=True)
        sdist, wheel = build(output)
        if faults := check_contents(sdist, wheel):
            sys.exit('\n'.join(faults))
        print(f'ok: contents of {sdist.name} and {wheel.name}', flush=True)
        smoke_test(wheel, Path(temporary))


if __name__ == '__main__':
    main()
