# SPDX-License-Identifier: MIT
"""What the user asks for: bounds by variable, methods, options. Everything checks itself."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from hbae.errors import ConfigError, UnknownNameError

KINDS = ("l2", "block_nrmse", "nrmse", "psnr", "abs", "rel_range", "pw_rel")
POINTWISE = ("abs", "rel_range", "pw_rel")
METHODS = ("auto", "hbae", "linear", "lossless")


@dataclass(frozen=True)
class ErrorBound:
    """One promise about one variable: a kind of error and the largest value it may take.

    ``l2``: 2-norm of the error of every block, in the variable's units. ``block_nrmse``: RMSE of every block over the
    variable's range. ``nrmse``: RMSE of the variable over its range. ``psnr``: -20 log10(nrmse) at least, in dB.
    ``abs``: error of every point, in the variable's units. ``rel_range``: error of every point over the range.
    ``pw_rel``: error of every point over its own magnitude. With a ``region`` the promise is about the points where
    the variable of that name is not zero and not missing; pointwise kinds only.

    Raises
    ------
    ConfigError
        For an unknown kind, a value that is not positive and finite, or a kind that has no regions.
    """

    kind: str
    value: float
    region: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"bound: unknown kind {self.kind!r}; known: {', '.join(KINDS)}")
        if not (math.isfinite(self.value) and self.value > 0):
            raise ConfigError(f"bound {self.kind}: the value must be positive and finite, not {self.value!r}")
        if self.kind == "pw_rel" and self.value >= 1:
            raise ConfigError("bound pw_rel: the value must be below 1")
        if self.region is not None and (self.kind not in POINTWISE or not self.region):
            what = f"{self.kind} cannot be bounded by region" if self.region else "empty name behind '@'"
            raise ConfigError(f"bound {self.kind}@{self.region}: {what}; kinds that can: {', '.join(POINTWISE)}")

    def __str__(self) -> str:
        return f"{self.kind}={self.value:g}" + (f"@{self.region}" if self.region is not None else "")


@dataclass(frozen=True)
class BoundRule:
    """Bounds for the variables that a pattern names; pattern None is the default rule."""

    pattern: str | None
    bounds: tuple[ErrorBound, ...]

    @property
    def exact(self) -> bool:
        """Tell whether the pattern is a plain name (no wildcard)."""
        return self.pattern is not None and not any(c in self.pattern for c in "*?[")

    def matches(self, path: str) -> bool:
        """Tell whether the rule names that variable; patterns match the path or its last part."""
        if self.pattern is None:
            return True
        return glob_matches(self.pattern, path)


def glob_matches(pattern: str, path: str) -> bool:
    """Match a glob against a variable's path or, without a slash, its last part."""
    return fnmatchcase(path, pattern) or ("/" not in pattern and fnmatchcase(path.rsplit("/", 1)[-1], pattern))


def parse_rule(spec: str) -> BoundRule:
    """Read ``[VARGLOB:]kind=value[@MASKVAR][,kind=value[@MASKVAR]...]``.

    Raises
    ------
    ConfigError
        When the text does not have that form.
    """
    head, sep, tail = spec.rpartition(":")
    pattern, text = (head, tail) if sep else (None, spec)
    if pattern == "":
        raise ConfigError(f"bound {spec!r}: empty name before ':'")
    bounds: list[ErrorBound] = []
    for part in text.split(","):
        kind, eq, value = part.strip().partition("=")
        if not eq:
            raise ConfigError(f"bound {spec!r}: expected kind=value, found {part!r}")
        value, at, region = value.partition("@")
        try:
            number = float(value)
        except ValueError:
            raise ConfigError(f"bound {spec!r}: {value!r} is not a number") from None
        bound = ErrorBound(kind, number, region.strip() if at else None)
        if any((b.kind, b.region) == (kind, bound.region) for b in bounds):
            raise ConfigError(f"bound {spec!r}: {kind} is given twice")
        bounds.append(bound)
    return BoundRule(pattern, tuple(bounds))


BoundLike = str | ErrorBound | BoundRule | Iterable[Any] | Mapping[str, Any]


def parse_rules(spec: BoundLike) -> tuple[BoundRule, ...]:
    """Read bounds in any of the forms that Python callers use.

    A string, an :class:`ErrorBound`, a mapping ``{glob: bounds}`` (key ``""`` or ``"*default"`` is no glob: use a plain
    ErrorBound for the default), or a list of those.
    """
    if isinstance(spec, str):
        return (parse_rule(spec),)
    if isinstance(spec, ErrorBound):
        return (BoundRule(None, (spec,)),)
    if isinstance(spec, BoundRule):
        return (spec,)
    if isinstance(spec, Mapping):
        return tuple(BoundRule(str(k), _bounds(v)) for k, v in spec.items())
    items = list(spec)
    if items and all(isinstance(i, ErrorBound) for i in items):
        return (BoundRule(None, tuple(items)),)
    return tuple(rule for item in items for rule in parse_rules(item))


def _bounds(value: Any) -> tuple[ErrorBound, ...]:
    rules = parse_rules(value)
    if any(r.pattern is not None for r in rules):
        raise ConfigError("bound: a glob inside a mapping's value")
    return tuple(b for r in rules for b in r.bounds)


def resolve_bounds(
    rules: tuple[BoundRule, ...], names: Iterable[str], defaults: Iterable[str]
) -> dict[str, tuple[ErrorBound, ...]]:
    """Give each variable its bounds: an exact name beats a glob, later beats earlier.

    ``names`` are all numeric variables of the file. ``defaults`` are those that rules without an exact name may
    touch (floating-point data variables); the others stay lossless unless named without wildcard.

    Raises
    ------
    UnknownNameError
        When a pattern matches nothing.
    """
    all_names, soft = list(names), set(defaults)
    chosen: dict[str, tuple[bool, tuple[ErrorBound, ...]]] = {}
    for rule in rules:
        hits = [n for n in all_names if rule.matches(n) and (rule.exact or n in soft)]
        if not hits and rule.pattern is not None:
            raise UnknownNameError(f"bound: {rule.pattern!r} matches no variable that can be lossy")
        for n in hits:
            if n not in chosen or rule.exact or not chosen[n][0]:
                chosen[n] = (rule.exact, rule.bounds)
    return {n: b for n, (_, b) in chosen.items()}


_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_UNITS |= {"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40}


def parse_size(size: str | float) -> int:
    """Read a number of bytes: ``1500000``, ``20MB`` (10**6), ``1.5MiB`` (2**20); parts of a byte are dropped.

    Raises
    ------
    ConfigError
        When it has another form or is below one byte.
    """
    m = re.fullmatch(r"\s*([0-9.]+(?:e\+?[0-9]+)?)\s*([kmgt]?i?b)?\s*", str(size), re.IGNORECASE)
    try:
        nbytes = float(m[1]) * _UNITS[(m[2] or "").lower()] if m else 0.0
    except (KeyError, ValueError):
        nbytes = 0.0
    if not 1 <= nbytes < 2.0**63:
        raise ConfigError(f"size {size!r}: expected bytes, for example 1500000, 20MB or 1.5MiB")
    return int(nbytes)


@dataclass(frozen=True)
class Budget:
    """How long training may take: seconds (depends on the machine) or epochs (repeats by seed)."""

    seconds: float | None = None
    epochs: int | None = None

    @staticmethod
    def parse(text: str) -> Budget:
        """Read ``120s``, ``5m`` or ``40ep``.

        Raises
        ------
        ConfigError
            When the text has another form or is not positive.
        """
        for suffix, factor in (("ep", 0.0), ("s", 1.0), ("m", 60.0)):
            if text.endswith(suffix):
                number = text[: -len(suffix)]
                try:
                    value = float(number)
                except ValueError:
                    break
                if value <= 0 or not math.isfinite(value):
                    break
                if suffix == "ep":
                    if value != int(value):
                        break
                    return Budget(epochs=int(value))
                return Budget(seconds=value * factor)
        raise ConfigError(f"budget {text!r}: expected for example 120s, 5m or 40ep")
