# SPDX-License-Identifier: MIT
"""Every failure of hbae is a child of :class:`HbaeError`; each is a builtin too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class HbaeError(Exception):
    """Base class of everything that hbae raises on purpose."""

    exit_code = 1


class ConfigError(HbaeError, ValueError):
    """An option, a bound or a recipe makes no sense; the message names the key."""

    exit_code = 2


class FieldError(HbaeError, ValueError):
    """An input holds something that cannot be kept, or a target cannot hold it."""


class UnknownNameError(HbaeError, KeyError):
    """A name or glob matches no variable."""

    exit_code = 2

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class MissingExtraError(HbaeError, ImportError):
    """An optional dependency is absent; the message names the extra to install."""

    def __init__(self, module: str, extra: str) -> None:
        super().__init__(f"{module} is not installed: pip install 'hbae[{extra}]'")
        self.extra = extra


class OutputExistsError(HbaeError, FileExistsError):
    """The output exists and overwriting was not asked for."""

    exit_code = 2


class InputError(HbaeError, OSError):
    """An input that cannot be opened; the message names it."""


class MissingFileError(InputError, FileNotFoundError):
    """An input that is not there."""


class OutputError(HbaeError, OSError):
    """The output cannot be written (a full disk, a folder that is gone); ``errno`` is the system's, where known."""


class BatchError(HbaeError, RuntimeError):
    """Ranks, launcher or output folder do not let a batch run; the message says what to change."""


class FormatError(HbaeError, ValueError):
    """The bytes are not a valid archive: damaged, hostile or truncated."""

    exit_code = 4


class NotHbaeFileError(FormatError):
    """The file does not start with the magic of an archive."""


class UnsupportedVersionError(FormatError):
    """The archive asks for a newer reader."""


class TruncatedError(FormatError):
    """The archive ends before what its header or index promises."""


class ChecksumError(FormatError):
    """A stored checksum or hash does not match; the message names the part."""


class ModelMismatchError(HbaeError, ValueError):
    """A model does not fit the variables, or its hash is not the one asked for."""


class UnfitModelError(ModelMismatchError):
    """A sound model is for other variables, grids or bounds; ``compress`` under ``auto`` leaves it out."""


class DeviceError(HbaeError, RuntimeError):
    """A device that arithmetic was asked for on ran out of memory or failed."""


class TrainingError(HbaeError, RuntimeError):
    """Training cannot go on (a loss that is not finite, no data)."""


class VerificationError(HbaeError, ValueError):
    """An archive does not meet its bounds against the given original."""

    exit_code = 3


class SizeNotMetError(HbaeError, ValueError):
    """No bound makes the file as small as asked; nothing has been written."""

    exit_code = 3


class BoundViolationError(HbaeError, RuntimeError):
    """A bound could not be kept: a bug in hbae; nothing has been written."""

    exit_code = 3


@contextmanager
def told_as_output(path: object, kinds: tuple[type[Exception], ...] = (OSError, RuntimeError)) -> Iterator[None]:
    """Let failures of the system, or of a format's library, name the output that they are about.

    Raises
    ------
    OutputError
        In place of failures of those kinds that are not hbae's own.
    """
    try:
        yield
    except HbaeError:
        raise
    except kinds as e:
        # Libraries tell long stories; their first line is the reason.
        reason = getattr(e, "strerror", None) or str(e).partition("\n")[0]
        error = OutputError(f"{path}: cannot be written: {reason}")
        error.errno = getattr(e, "errno", None)
        raise error from e


@contextmanager
def told_as_input(path: object) -> Iterator[None]:
    """Let failures to open an input name it.

    Raises
    ------
    MissingFileError
        When it is not there.
    InputError
        When the system refuses it for another reason.
    """
    try:
        yield
    except HbaeError:
        raise
    except FileNotFoundError as e:
        raise MissingFileError(f"{path}: there is no such file") from e
    except OSError as e:
        raise InputError(f"{path}: cannot be read: {e.strerror or e}") from e
