# SPDX-License-Identifier: MIT
"""Decoder networks that train as the integers they will be stored as.

A :class:`DecoderNet` runs in floats first; after :meth:`DecoderNet.calibrate` its forward pass is the arithmetic of
:mod:`hbae.exact` itself (integers held in float32), with straight-through gradients: the exported net gives the same
bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hbae.arrays import Array
from hbae.errors import ConfigError
from hbae.exact.net import ExactNet, Linear, Split

LATENT_MAX = 2047
LATENT_EXP = 4
OUT_EXP = 14
OUT_MAX = 1 << 15
BIAS_MAX = float(1 << 22)
LEAK = 0.125


@dataclass(frozen=True)
class LayerSpec:
    """One step of a decoder: a linear layer to ``width`` outputs with ``act``, then a split into ``parts``."""

    width: int
    act: str
    parts: int = 1


class _Round(torch.autograd.Function):
    """Round half to even; the gradient passes unchanged."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return torch.round(x)

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        return grad


class _Requantise(torch.autograd.Function):
    """Activation, rounding and clipping at once; the gradient passes rounding, and clipping where nothing is cut."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, act: str, lo: int, hi: int) -> Tensor:
        y = activate(x, act)
        ctx.save_for_backward(y)
        ctx.act, ctx.limits = act, (lo - 0.5, hi + 0.5)
        return torch.round(y).clamp_(lo, hi)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (y,) = ctx.saved_tensors
        grad = torch.ops.aten.hardtanh_backward(grad, y, *ctx.limits)
        if ctx.act == "leaky":
            grad = torch.ops.aten.leaky_relu_backward(grad, y, LEAK, True)
        elif ctx.act == "relu":
            grad = torch.ops.aten.threshold_backward(grad, y, 0)
        return grad, None, None, None


def round_through(x: Tensor) -> Tensor:
    """Give ``round(x)`` with the gradient of ``x``."""
    out: Tensor = _Round.apply(x)  # type: ignore[no-untyped-call]
    return out


def activate(x: Tensor, act: str) -> Tensor:
    """Give ``none``, ``relu`` or ``leaky`` (negative side times 1/8) of x."""
    if act == "relu":
        return torch.relu(x)
    if act == "leaky":
        return nn.functional.leaky_relu(x, LEAK)
    return x


def nearest_through(x: Tensor, levels: Tensor) -> Tensor:
    """Give the nearest of ascending ``levels`` with the gradient of ``x``."""
    near = levels[torch.bucketize(x.detach(), (levels[1:] + levels[:-1]) / 2)]
    return x + (near - x).detach() if x.requires_grad else near


class QuantLinear(nn.Module):
    """A linear layer with integer weights per output scale ``2**w_exp`` and integer output scale ``2**out_exp``.

    ``levels``: the integers that weights may be, ascending, where there are few; set while a net is made small.
    """

    w_exp: Tensor
    exps: Tensor

    def __init__(self, num_in: int, num_out: int, act: str) -> None:
        super().__init__()
        self.act = act
        self.levels: Tensor | None = None
        self.weight = nn.Parameter(torch.empty(num_out, num_in))
        self.bias = nn.Parameter(torch.zeros(num_out))
        nn.init.normal_(self.weight, std=math.sqrt((2.0 if act != "none" else 1.0) / num_in))
        self.register_buffer("w_exp", torch.zeros(num_out))
        self.register_buffer("exps", torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        """Float pass, (R, I) -> (R, O)."""
        return activate(nn.functional.linear(x, self.weight, self.bias), self.act)

    def integers(self, weight_max: int) -> tuple[Tensor, Tensor, Tensor]:
        """Give integer weight (O, I), integer bias (O,) and shift (O,), differentiable by straight-through."""
        scale = torch.exp2(self.w_exp)
        weight = torch.nan_to_num(self.weight) * scale[:, None]
        weight = round_through(weight) if self.levels is None else nearest_through(weight, self.levels)
        weight = weight.clamp(-weight_max, weight_max)
        bias = round_through(torch.nan_to_num(self.bias) * (scale * torch.exp2(self.exps[0])))
        return weight, bias.clamp(-BIAS_MAX, BIAS_MAX), self.exps[0] + self.w_exp - self.exps[1]

    def forward_integer(self, a: Tensor, clip: tuple[int, int], weight_max: int) -> Tensor:
        """Integer pass, the formula of :class:`hbae.exact.net.Linear`."""
        weight, bias, shift = self.integers(weight_max)
        # A power of two commutes with every rounding: scaling the few weights saves a pass over the values.
        scale = torch.exp2(-shift)
        out: Tensor = _Requantise.apply(  # type: ignore[no-untyped-call]
            nn.functional.linear(a, weight * scale[:, None], bias * scale), self.act, *clip
        )
        return out


class DecoderNet(nn.Module):
    """A chain of layers and splits, ``(N, L)`` integer latents -> ``(N, row values)`` in units of the range."""

    quantised: Tensor

    def __init__(self, latents: int, specs: tuple[LayerSpec, ...], *, weight_bits: int = 8, act_bits: int = 12) -> None:
        super().__init__()
        self.latents, self.specs = latents, specs
        self.weight_max = (1 << (weight_bits - 1)) - 1
        self.act_max = (1 << (act_bits - 1)) - 1
        self.layers = nn.ModuleList()
        width = latents
        for spec in specs:
            if spec.width % spec.parts:
                raise ConfigError(f"decoder: width {spec.width} is no multiple of {spec.parts} parts")
            self.layers.append(QuantLinear(width, spec.width, spec.act))
            width = spec.width // spec.parts
        self.register_buffer("quantised", torch.zeros((), dtype=torch.bool))
        self._integer = False

    @property
    def num_weights(self) -> int:
        """Weights and biases that a file carries."""
        return sum(p.numel() for p in self.parameters())

    def forward(self, z: Tensor) -> Tensor:
        """Decode latents; integer arithmetic once :meth:`calibrate` has run."""
        if self._integer:
            return self.forward_integer(z) * 2.0**-OUT_EXP
        x = z * 2.0**-LATENT_EXP
        for layer, spec in zip(self._linears(), self.specs, strict=True):
            x = layer(x)
            x = x.reshape(x.shape[0] * spec.parts, -1)
        return x.reshape(z.shape[0], -1)

    def forward_integer(self, z: Tensor) -> Tensor:
        """Give the integers y that the exported net gives, (N, row values)."""
        a = z.clamp(-LATENT_MAX, LATENT_MAX)
        for i, (layer, spec) in enumerate(zip(self._linears(), self.specs, strict=True)):
            a = layer.forward_integer(a, self._clip(i), self.weight_max)
            a = a.reshape(a.shape[0] * spec.parts, -1)
        return a.reshape(z.shape[0], -1)

    def calibrate(self, z: Tensor) -> None:
        """Fix all scales from the weights and the activations for sample latents (N, L), and go over to integers."""
        with torch.no_grad():
            x, exp_in = z * 2.0**-LATENT_EXP, LATENT_EXP
            for i, (layer, spec) in enumerate(zip(self._linears(), self.specs, strict=True)):
                x = layer(x)
                last = i == len(self.specs) - 1
                exp_out = OUT_EXP if last else _exponent(self.act_max, float(x.abs().max()))
                layer.w_exp.copy_(self._weight_exponents(layer, exp_in))
                layer.exps.copy_(torch.tensor([float(exp_in), float(exp_out)]))
                x, exp_in = x.reshape(x.shape[0] * spec.parts, -1), exp_out
            self.quantised.fill_(True)
        self.sync()

    def sync(self) -> None:
        """Read the mode back from the buffers, after a state was loaded."""
        self._integer = bool(self.quantised.item())

    def export(self) -> ExactNet:
        """Give the exact net whose NumPy output equals :meth:`forward_integer` bit for bit.

        Raises
        ------
        ConfigError
            When the net was not calibrated.
        """
        if not self._integer:
            raise ConfigError("decoder: calibrate the net before exporting it")
        parts: list[Linear | Split] = []
        amax = float(LATENT_MAX)
        for i, (layer, spec) in enumerate(zip(self._linears(), self.specs, strict=True)):
            with torch.no_grad():
                weight, bias, shift = (_int_array(t) for t in layer.integers(self.weight_max))
            lo, hi = self._clip(i)
            linear = Linear(weight=weight, bias=bias, shift=shift, act=spec.act, lo=lo, hi=hi)
            linear = linear.with_cheapest_groups(amax)
            amax = linear.amax
            parts.append(linear)
            if spec.parts > 1:
                parts.append(Split(spec.parts))
        return ExactNet(tuple(parts), -LATENT_MAX, LATENT_MAX)

    def _linears(self) -> list[QuantLinear]:
        return [m for m in self.layers if isinstance(m, QuantLinear)]

    def _weight_exponents(self, layer: QuantLinear, exp_in: int) -> Tensor:
        top = torch.nan_to_num(layer.weight).abs().amax(1).tolist()
        bias = torch.nan_to_num(layer.bias).abs().tolist()
        limits = [(_exponent(self.weight_max + 0.49, w), w) for w in top]
        rooms = [20 if b == 0 else _exponent(BIAS_MAX / 2, b) - exp_in for b in bias]
        return torch.tensor([float(min(e if w else 20, room)) for (e, w), room in zip(limits, rooms, strict=True)])

    def _clip(self, i: int) -> tuple[int, int]:
        if i == len(self.specs) - 1:
            return -OUT_MAX, OUT_MAX
        return (0 if self.specs[i].act == "relu" else -self.act_max), self.act_max


def _exponent(limit: float, top: float) -> int:
    """Largest e in -20..20 with ``top * 2**e <= limit``; 0 for nothing to scale."""
    if not math.isfinite(top) or top <= 0:
        return 0
    return max(-20, min(20, math.floor(math.log2(limit / top))))


def _int_array(t: Tensor) -> Array:
    return np.asarray(t.detach().cpu().numpy()).astype(np.int64)
