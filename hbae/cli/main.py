# SPDX-License-Identifier: MIT
"""The command ``hbae``: commands, exit codes and how failures are told.

0 done, 1 failed, 2 usage, 3 a bound or comparison failed, 4 damaged or hostile file, 130 interrupted.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated

import typer

from hbae import __version__
from hbae.cli.batch import batch
from hbae.cli.compare import compare
from hbae.cli.compress import compress
from hbae.cli.decompress import decompress
from hbae.cli.info import info
from hbae.cli.output import fail
from hbae.cli.repair import repair
from hbae.cli.train import train
from hbae.cli.values import ListCommand
from hbae.cli.verify import verify
from hbae.errors import BoundViolationError, HbaeError
from hbae.processes import reuse_memory

INTERRUPTED = 130

app = typer.Typer(
    name="hbae",
    help="Error-bounded compression of scientific fields with hyper-block autoencoders.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for _command in (train, compress, decompress, info, verify, compare, batch, repair):
    app.command(cls=ListCommand)(_command)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"hbae {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Version.")] = False,
) -> None:
    """Error-bounded compression of scientific fields with hyper-block autoencoders."""


def main() -> None:
    """Run the command line and exit with its code."""
    reuse_memory()
    code = run(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    if code == INTERRUPTED:
        # Ctrl-C inside an exec() of text (imports do that) leaves a mark by which the interpreter would end itself
        # with SIGINT instead of the code, though the interrupt was handled.
        os._exit(code)
    sys.exit(code)


def run(args: list[str]) -> int:
    """Run one command and give its exit code; every failure is told in one line, or as JSON after ``--json``."""
    from hbae.io.signals import TurnSignals

    as_json = "--json" in args
    signals = TurnSignals()
    signals.start()
    try:
        code = int(app(args, prog_name="hbae", standalone_mode=False) or 0)
        sys.stdout.flush()
        # Newer releases of typer turn Ctrl-C into this code and say nothing.
        return fail("interrupted", "KeyboardInterrupt", code, as_json=as_json) if code == INTERRUPTED else code
    except SystemExit as e:
        # rich and click end the process themselves where the reader of a pipe has gone.
        if isinstance(e.__context__, BrokenPipeError):
            return _nobody_reads()
        return fail("terminated", "SystemExit", int(e.code or 0), as_json=as_json)
    except (KeyboardInterrupt, typer.Abort):
        return fail("interrupted", "KeyboardInterrupt", INTERRUPTED, as_json=as_json)
    except BrokenPipeError:
        return _nobody_reads()
    except Exception as e:
        return _failure(e, as_json)
    finally:
        signals.stop()


def _nobody_reads() -> int:
    """Go on without output: the interpreter must not try to flush it again. Gives the exit code."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 1


def _failure(e: Exception, as_json: bool) -> int:
    kind = type(e).__name__
    if isinstance(e, HbaeError):
        message, code = str(e), e.exit_code
        if isinstance(e, BoundViolationError):
            message += " (this is a bug in hbae; nothing was written)"
    elif hasattr(e, "format_message"):
        # Usage errors of click, or of the copy of it that newer releases of typer carry.
        context = getattr(e, "ctx", None)
        where = f" (see '{context.command_path} --help')" if context is not None else ""
        message, code = f"{e.format_message()}{where}".strip(), 2
    elif isinstance(e, OSError):
        name = f"{e.filename}: " if e.filename is not None else ""
        message, code = f"{name}{e.strerror or e}", 1
    elif isinstance(e, MemoryError):
        message, code = "not enough memory; try a smaller --chunk", 1
    else:
        logging.getLogger("hbae").info("traceback", exc_info=e)
        message, code = f"internal error: {kind}: {e} (-v shows where)", 1
    return fail(message, kind, code, as_json=as_json)


if __name__ == "__main__":
    main()
