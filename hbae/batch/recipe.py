# SPDX-License-Identifier: MIT
"""What a batch does: a YAML file with the options of ``hbae compress``, checked key by key."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from hbae.config import METHODS, Budget, parse_rules
from hbae.errors import ConfigError, told_as_input
from hbae.pipeline.likeness import Earlier
from hbae.pipeline.options import CompressOptions

DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _names(value: Any) -> Any:
    return [p.strip() for p in value.split(",") if p.strip()] if isinstance(value, str) else value


def _shape(value: Any) -> Any:
    return re.split(r"[x,]", value) if isinstance(value, str) else value


Words = Annotated[list[str], BeforeValidator(_listed)]
Names = Annotated[list[str], BeforeValidator(_names)]
Shape = Annotated[list[Annotated[int, Field(gt=0)]], BeforeValidator(_shape)]


class Recipe(BaseModel):
    """One batch; paths are relative to the recipe's folder, keys as the options of ``hbae compress``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    inputs: Annotated[Words, Field(min_length=1)]
    output: str
    bound: str | list[str] | dict[str, str | list[str]]
    vars: Names = []
    model: str | None = None
    budget: str | None = None
    method: str = "auto"
    preset: str = "auto"
    device: str = "auto"
    threads: Annotated[int, Field(ge=1)] | None = None
    seed: int = 0
    block: Shape | None = None
    chunk: Annotated[float, Field(ge=0.0625, le=128)] = 32.0
    range: dict[str, tuple[float, float]] = {}
    embed: bool = True
    redundant: bool = False
    fast: bool = False
    like: str | None = None
    scratch: str | None = None

    @field_validator("bound")
    @classmethod
    def _bound(cls, value: Any) -> Any:
        parts = value.items() if isinstance(value, dict) else enumerate(_listed(value))
        for key, part in parts:
            try:
                parse_rules({key: part} if isinstance(value, dict) else part)
            except ConfigError as e:
                at = [] if isinstance(value, str) else [key]
                raise PydanticCustomError("bound", "{text}", {"text": str(e), "at": at}) from e
        if not value:
            raise PydanticCustomError("bound", "no bound is given")
        return value

    @field_validator("method")
    @classmethod
    def _method(cls, value: str) -> str:
        if value not in METHODS:
            raise ValueError(f"unknown {value!r}; known: {', '.join(METHODS)}")
        return value

    @field_validator("budget")
    @classmethod
    def _budget(cls, value: str | None) -> str | None:
        if value is not None:
            Budget.parse(value)
        return value

    @field_validator("device")
    @classmethod
    def _device(cls, value: str) -> str:
        if not DEVICE.fullmatch(value):
            raise ValueError(f"unknown {value!r}; known: auto, cpu, cuda, cuda:N")
        return value

    @model_validator(mode="after")
    def _together(self) -> Recipe:
        CompressOptions(model=self.model, budget=self.budget, method=self.method, ranges=self.range, like=self.like)
        return self

    @property
    def needs_torch(self) -> bool:
        """Tell whether a model takes part, so that a GPU is of use."""
        return self.model is not None or self.budget is not None


@dataclass(frozen=True)
class Campaign:
    """A recipe with its paths resolved; ``digest`` stands for everything that decides the archives' bytes.

    Devices, threads and scratch are not part of it: archives of either device hold the same bounds.
    """

    recipe: Recipe
    path: Path
    model: Path | None
    digest: str
    like: Path | None = None

    @property
    def output(self) -> Path:
        """The folder of the archives."""
        return self.resolve(self.recipe.output)

    def resolve(self, text: str) -> Path:
        """Give a path of the recipe as an absolute one."""
        return self.path.parent / Path(text).expanduser()

    def options(self, device: str, threads: int) -> dict[str, Any]:
        """Give the options of compress for a rank."""
        r = self.recipe
        return {
            "variables": tuple(r.vars),
            "model": self.model,
            "budget": r.budget,
            "method": r.method,
            "preset": r.preset,
            "device": device,
            "threads": threads,
            "seed": r.seed,
            "block": tuple(r.block) if r.block else None,
            "chunk": r.chunk,
            "ranges": dict(r.range),
            "embed": r.embed,
            "redundant": r.redundant,
            "fast": r.fast,
            "like": self.like,
            "scratch": self.resolve(r.scratch) if r.scratch else None,
        }


def load_recipe(path: Path) -> Campaign:
    """Read and check a recipe; nothing else is read but its model file, and the plans of the archive to be like.

    Raises
    ------
    ConfigError
        With the path of every key that makes no sense.
    FormatError, ModelMismatchError
        When the model file, or the archive to be like, is damaged.
    InputError
        When recipe, model file or archive is missing.
    """
    path = path.absolute()
    try:
        with told_as_input(path):
            text = path.read_text("utf-8")
        doc = yaml.load(text, _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise ConfigError(f"{path}: no YAML: {' '.join(str(e).split())}") from e
    if not isinstance(doc, dict):
        raise ConfigError(f"{path}: a recipe is a mapping with the keys inputs, output, bound")
    try:
        recipe = Recipe.model_validate(doc)
    except ValidationError as e:
        raise ConfigError(f"{path}: " + "; ".join(_told(error) for error in e.errors())) from e
    model, like = (None if p is None else path.parent / Path(p).expanduser() for p in (recipe.model, recipe.like))
    if like is not None and (path.parent / Path(recipe.output).expanduser()).resolve() in like.resolve().parents:
        # It would change while other files are made like it.
        raise ConfigError(f"{path}: like: lies in the output folder")
    plans = None if like is None else Earlier.of(like).digest
    return Campaign(recipe, path, model, _digest(recipe, _checked(model), plans), like)


def _checked(model: Path | None) -> str | None:
    if model is None:
        return None
    from importlib.util import find_spec

    from hbae.errors import MissingExtraError

    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    if find_spec("torch") is None:
        raise MissingExtraError("torch", "torch")
    from hbae.train.model_file import load_model

    load_model(model)
    return digest


def _digest(recipe: Recipe, model: str | None, plans: str | None) -> str:
    doc = recipe.model_dump(exclude={"inputs", "output", "device", "threads", "scratch", "like"}) | {"model": model}
    if plans is not None:
        doc["like"] = plans
    return hashlib.sha256(json.dumps(doc, sort_keys=True).encode()).hexdigest()


def _told(error: Mapping[str, Any]) -> str:
    where = ""
    for part in (*error["loc"], *error.get("ctx", {}).get("at", ())):
        where += f"[{part}]" if isinstance(part, int) else f".{part}" if where else str(part)
    text = str(error["msg"]).removeprefix("Value error, ")
    return f"{where}: {text}" if where else text


class _Loader(yaml.SafeLoader):
    """Refuses keys that stand twice, of which YAML readers take the last without a word."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} stands twice", key.start_mark)
            seen.add(key.value)
        return dict(super().construct_mapping(node, deep))
