# SPDX-License-Identifier: MIT
"""Option values of more than one part, read and checked."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from typer.core import TyperCommand

from hbae.errors import ConfigError, MissingFileError

LISTS = ("--bound", "--vars", "--range", "--qoi")


class ListCommand(TyperCommand):
    """A command whose list options may take several values at once (``--vars T U``) once the file has been named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat the option before each further value, then parse as usual."""
        return super().parse_args(ctx, self.spread(args))

    def spread(self, args: list[str]) -> list[str]:
        """Give the arguments with one value behind each option."""
        own = [p for p in self.params if p.param_type_name == "option"]
        flags = {o for p in own if getattr(p, "is_flag", False) for o in (*p.opts, *p.secondary_opts)} | {"--help"}
        out: list[str] = []
        named, last, value = False, "", False
        for i, a in enumerate(args):
            if a == "--":
                return out + args[i:]
            if value:
                value = False
            elif len(a) > 1 and a.startswith("-"):
                last = a if a in LISTS else ""
                value = a not in flags and "=" not in a and (a.startswith("--") or len(a) == 2)
            elif last and named:
                out.append(last)
            else:
                named, last = True, ""
            out.append(a)
        return out


def split_list(values: Iterable[str] | None) -> tuple[str, ...]:
    """Give the values of an option that may be repeated; commas separate too.

    Raises
    ------
    ConfigError
        When one is empty, as an unset variable of a shell makes it: that would mean everything.
    """
    parts = tuple(part.strip() for v in values or () for part in v.split(","))
    if not all(parts):
        raise ConfigError("an option's value is empty (--vars, --window and the like want at least one name)")
    return parts


def parse_block(text: str | None) -> tuple[int, ...] | None:
    """Read a block shape: ``8x8x4`` or ``8,8,4``.

    Raises
    ------
    ConfigError
        When it is not a list of positive integers.
    """
    if text is None:
        return None
    parts = re.split(r"[x,]", text.strip("() "))
    if not all(p.strip().isdecimal() and int(p) > 0 for p in parts):
        raise ConfigError(f"block {text!r}: expected positive integers, for example 8x8x4")
    return tuple(int(p) for p in parts)


def parse_ranges(values: Iterable[str] | None) -> dict[str, tuple[float, float]]:
    """Read ``VAR=LO:HI`` for each variable.

    Raises
    ------
    ConfigError
        When a text does not have that form.
    """
    out: dict[str, tuple[float, float]] = {}
    for text in values or ():
        name, eq, span = text.partition("=")
        low, colon, high = span.partition(":")
        try:
            if not (name and eq and colon) or name in out:
                raise ValueError
            out[name] = (float(low), float(high))
        except ValueError:
            raise ConfigError(f"range {text!r}: expected VAR=LO:HI, once for each variable") from None
    return out


def parse_window(values: Iterable[str] | None) -> dict[str, tuple[int, int]]:
    """Read half-open index ranges by dimension: ``time=0:10,lat=3:40``.

    Raises
    ------
    ConfigError
        When a text does not have that form.
    """
    out: dict[str, tuple[int, int]] = {}
    for text in split_list(values):
        m = re.fullmatch(r"([^=]+)=(\d+):(\d+)", text)
        if m is None or m[1] in out:
            raise ConfigError(f"window {text!r}: expected DIM=START:STOP, once for each dimension")
        out[m[1]] = (int(m[2]), int(m[3]))
    return out


def parse_numbers(text: str, name: str) -> tuple[float, ...]:
    """Read numbers between commas: ``1e-2,1e-3``.

    Raises
    ------
    ConfigError
        When one is not a number.
    """
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise ConfigError(f"{name} {text!r}: expected numbers, for example 1e-2,1e-3") from None


def check_device(device: str) -> str:
    """Give the device back if torch can use it; without torch only ``cpu`` is let through.

    Raises
    ------
    ConfigError
        When it is unknown or absent.
    """
    if device not in ("cpu", "cuda") and not re.fullmatch(r"cuda:\d+", device):
        raise ConfigError(f"device: unknown {device!r}; known: cpu, cuda")
    if device != "cpu" and find_spec("torch") is not None:
        from hbae.exact.backend import find_device

        find_device(device)
    return device


def reading_backend(device: str) -> str:
    """Name the backend that decodes for ``--device``: ``auto`` and ``cpu`` are this machine's processor.

    Raises
    ------
    ConfigError
        When the device is unknown or absent.
    """
    return "auto" if device == "auto" or check_device(device) == "cpu" else device


def check_paths(source: Path, out: Path | None) -> None:
    """Refuse to write over what is being read, ``-f`` or not, or into a folder that is not there.

    Without an output only the input is looked at.

    Raises
    ------
    ConfigError
        When both are the same file.
    MissingFileError
        When input or folder is missing.
    """
    if not source.exists():
        raise MissingFileError(f"{source}: there is no such file")
    if out is None:
        return
    if not out.absolute().parent.is_dir():
        raise MissingFileError(f"{out.parent}: there is no such folder")
    if out.exists() and source.samefile(out):
        raise ConfigError(f"{out}: output and input are the same file")
