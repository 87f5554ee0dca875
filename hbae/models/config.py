# SPDX-License-Identifier: MIT
"""Sizes of the networks, and how they follow from the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from hbae.errors import ConfigError
from hbae.exact import MAX_NUMBERS
from hbae.models.quant import LayerSpec

DIRECT_HEAD_BELOW = 4
MAX_SIZE = 1 << 20
MAX_LAYER = 1 << 26


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Sizes of HBAE and BAE: K blocks of P points of V variables; see ``docs/method.md`` for the others.

    ``latents``: L per hyper-block. ``embed``: E per block. ``hidden``: H of a block. ``channels``: C values per point
    between block and head. ``head``: width of the pointwise head. ``block_latents``: L_b per block, 0 for no BAE.
    ``attention``: self-attention over the K blocks. ``weight_bits``, ``act_bits``: of the integer decoder.

    Raises
    ------
    ConfigError
        For sizes that make no network.
    """

    num_blocks: int
    points: int
    num_variables: int
    latents: int = 96
    embed: int = 64
    hidden: int = 128
    channels: int = 8
    head: int = 64
    block_latents: int = 0
    block_hidden: int = 32
    block_channels: int = 4
    heads: int = 4
    attention: bool = True
    act: str = "leaky"
    weight_bits: int = 8
    act_bits: int = 12

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            least = 0 if f.name == "block_latents" else 1
            if f.type == "int" and not (type(value) is int and least <= value <= MAX_SIZE):
                raise ConfigError(f"model: {f.name} must be an integer of at least {least}, not {value!r}")
        if type(self.attention) is not bool or self.act not in ("relu", "leaky"):
            raise ConfigError("model: attention must be true or false, act relu or leaky")
        if self.embed % self.heads:
            raise ConfigError("model: embed must be a multiple of heads")
        if not (3 <= self.weight_bits <= 12 and 6 <= self.act_bits <= 14):
            raise ConfigError("model: weight_bits must be 3 to 12, act_bits 6 to 14")
        if self.largest_layer > MAX_LAYER:
            raise ConfigError("model: a layer has more than 2**26 weights")
        if self.decoder_weights > MAX_NUMBERS or self.widest > MAX_NUMBERS:
            raise ConfigError("model: the decoder has more than 2**24 weights, or so many values between two layers")

    @property
    def direct(self) -> bool:
        """Tell whether the last block layer gives the values itself (few variables)."""
        return self.num_variables < DIRECT_HEAD_BELOW

    @property
    def largest_layer(self) -> int:
        """Weights of the largest layer that this config makes, encoder included."""
        width = self.points * max(self.num_variables, self.channels, self.block_channels)
        tall = max(self.hidden, self.block_hidden)
        return max(
            width * tall if self.direct else self.points * self.channels * tall,
            self.num_blocks * self.embed * 4 * max(self.latents, self.embed),
            self.num_variables * self.head,
        )

    def hyper_specs(self) -> tuple[LayerSpec, ...]:
        """Layers of the hyper-block decoder: z -> K*E -> split K -> H -> P*C -> split P -> head -> V."""
        stem = (LayerSpec(self.num_blocks * self.embed, self.act, self.num_blocks), LayerSpec(self.hidden, self.act))
        if self.direct:
            return (*stem, LayerSpec(self.points * self.num_variables, "none"))
        return (
            *stem,
            LayerSpec(self.points * self.channels, self.act, self.points),
            LayerSpec(self.head, self.act),
            LayerSpec(self.num_variables, "none"),
        )

    def block_specs(self) -> tuple[LayerSpec, ...]:
        """Layers of the block decoder: z_b -> H_b -> P*C_b -> split P -> V."""
        stem = (LayerSpec(self.block_hidden, self.act),)
        if self.direct:
            return (*stem, LayerSpec(self.points * self.num_variables, "none"))
        wide = LayerSpec(self.points * self.block_channels, self.act, self.points)
        return (*stem, wide, LayerSpec(self.num_variables, "none"))

    @property
    def widest(self) -> int:
        """Most values that a hyper-block becomes between two layers of a decoder."""
        pairs = [(self.hidden + self.embed, self.channels), (self.block_hidden, self.block_channels)]
        inner = 0 if self.direct else self.head
        return max(
            self.latents,
            *(
                self.num_blocks * max(h, self.points * max(c, inner, self.num_variables), self.block_latents)
                for h, c in pairs
            ),
        )

    @property
    def decoder_weights(self) -> int:
        """Weights and biases of the stored decoders."""
        total = _count(self.latents, self.hyper_specs())
        return total + (_count(self.block_latents, self.block_specs()) if self.block_latents else 0)

    def to_json(self) -> dict[str, Any]:
        """Give a JSON form."""
        return asdict(self)

    @staticmethod
    def from_json(doc: Mapping[str, Any]) -> ModelConfig:
        """Undo :meth:`to_json`.

        Raises
        ------
        ConfigError
            For missing or unknown keys and bad values.
        """
        try:
            return ModelConfig(**dict(doc))
        except TypeError as e:
            raise ConfigError(f"model config: {e}") from e


def _count(width: int, specs: tuple[LayerSpec, ...]) -> int:
    total = 0
    for spec in specs:
        total += (width + 1) * spec.width
        width = spec.width // spec.parts
    return total
