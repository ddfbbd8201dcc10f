"""Entry point: ``python -m torchgeo_msssl`` and ``torchgeo-msssl``."""

import errno
import signal
import sys
from collections.abc import Sequence

from torchgeo_msssl.commands import COMMANDS, program, run

_USAGE = """\
usage: {program} COMMAND [options]

Pretrain encoders on multispectral scenes without labels, with TorchGeo.

commands:
  fit        train a task:  fit --config fastsiam_s2 [--data.paths 'scenes/*.tif'] [--ckpt_path last]
  validate   evaluate a task on validation data
  test       evaluate a task on test data
  predict    map or restore scenes:  predict --config FILE.yaml --ckpt_path best --data.predict_paths ortho.tif
{commands}

`COMMAND --help` shows the options of a command, and `fit --config FILE.yaml --help` those of the task and the data that
a configuration names.
"""


def main(args: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        args: Arguments; None for those of the process.

    Returns:
        Exit status: 0, 1 for an error (printed as one sentence), 2 for an unknown command, 130 when interrupted.
    """
    arguments = list(sys.argv[1:] if args is None else args)
    if not arguments or arguments[0] in ('-h', '--help'):
        print(
            _USAGE.format(
                program=program(), commands='\n'.join(f'  {name:<10} {what}' for name, what in COMMANDS.items())
            )
        )
        return 0
    if arguments[0] == '--version':
        from torchgeo_msssl import __version__

        print(__version__)
        return 0
    try:
        # imported here, so that no command waits for the imports of another
        if arguments[0] in COMMANDS:
            return run(arguments)
        if arguments[0] in ('fit', 'validate', 'test', 'predict'):
            from torchgeo_msssl.commands.trainer_help import asks_for_help, trainer_help

            if asks_for_help(arguments):
                print(trainer_help(arguments))
                raise SystemExit(0)  # as the other commands
            from torchgeo_msssl.cli import run_trainer

            if following := run_trainer(arguments).next_commands():
                print('Next:', *(f'  {command}' for command in following), sep='\n')
            return 0
    except KeyboardInterrupt:
        print('Interrupted.', file=sys.stderr)
        return 128 + signal.SIGINT
    except Exception as error:
        sentence = _sentence(error)
        if sentence is None:  # a bug, which needs the traceback
            raise
        print(f'error: {sentence}', file=sys.stderr)
        return 1
    print(f'error: unknown command {arguments[0]!r}; see {program()} --help', file=sys.stderr)
    return 2


def _sentence(error: BaseException) -> str | None:
    """Message of an error that this package raised, however deeply it is wrapped; None for other errors."""
    from torchgeo_msssl.errors import MSSSLError

    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, MSSSLError):
        cause = cause.__cause__
    if cause is None:
        # Lightning writes checkpoints and events itself
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        return f'{error}; free disk space and resume with --ckpt_path last.' if full else None
    # a worker of a data loader puts its traceback into the message
    return str(cause).rsplit(f'{type(cause).__qualname__}: ', 1)[-1].strip()


if __name__ == '__main__':
    sys.exit(main())
