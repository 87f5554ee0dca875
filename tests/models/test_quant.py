# SPDX-License-Identifier: MIT
"""The training pass in integers and the exported net give the same bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hbae.errors import ConfigError
from hbae.exact.backend import NumpyBackend, get_backend
from hbae.models.quant import LATENT_MAX, DecoderNet, LayerSpec, QuantLinear, activate, round_through

SPECS = {
    "factorised": (LayerSpec(60, "leaky", 5), LayerSpec(40, "leaky"), LayerSpec(48, "relu", 8), LayerSpec(7, "none")),
    "direct": (LayerSpec(64, "relu", 2), LayerSpec(96, "leaky"), LayerSpec(30, "none")),
    "wide": (LayerSpec(1024, "leaky"), LayerSpec(512, "relu"), LayerSpec(16, "none")),
}


def make(name: str, weight_bits: int = 8, act_bits: int = 12) -> DecoderNet:
    torch.manual_seed(3)
    net = DecoderNet(24, SPECS[name], weight_bits=weight_bits, act_bits=act_bits)
    for p in net.parameters():
        if p.ndim == 1:
            torch.nn.init.normal_(p, std=0.1)
    return net


@pytest.mark.parametrize("name", sorted(SPECS))
@pytest.mark.parametrize(("weight_bits", "act_bits"), [(8, 12), (5, 10), (12, 14)])
def test_export_gives_the_bits_of_the_training_pass(name: str, weight_bits: int, act_bits: int) -> None:
    net = make(name, weight_bits, act_bits)
    z = torch.randint(-90, 90, (33, 24)).float()
    net.calibrate(z)
    z[0] = LATENT_MAX
    z[1] = -5000.0
    with torch.no_grad():
        trained = net.forward_integer(z).numpy()
    exact = net.export()
    for backend in (NumpyBackend(), get_backend("cpu")):
        assert np.array_equal(exact.run(z.numpy(), backend), trained)
    weights = [layer.weight for layer in exact.layers if hasattr(layer, "weight")]
    assert max(int(np.abs(w).max()) for w in weights) <= 2 ** (weight_bits - 1) - 1


def test_integer_pass_is_close_to_the_float_pass() -> None:
    net = make("factorised")
    z = torch.randint(-90, 90, (64, 24)).float()
    with torch.no_grad():
        before = net(z)
        net.calibrate(z)
        after = net(z)
    assert float((before.clamp(-2, 2) - after).square().mean().sqrt()) < 0.05


def test_small_weights_with_a_large_bias_keep_it() -> None:
    net = make("direct")
    with torch.no_grad():
        net.layers[2].weight.mul_(1e-4)  # type: ignore[operator]
        net.layers[2].bias.fill_(0.7)  # type: ignore[operator]
    z = torch.randint(-90, 90, (64, 24)).float()
    net.calibrate(z)
    with torch.no_grad():
        assert float((net(z) - 0.7).abs().max()) < 0.01
        assert np.array_equal(net.export().run(z.numpy(), NumpyBackend()), net.forward_integer(z).numpy())


def test_gradients_pass_through_the_integers() -> None:
    net = make("factorised")
    z = (torch.randn(16, 24) * 20).requires_grad_()
    net.calibrate(z.detach())
    net(z).square().mean().backward()
    assert z.grad is not None
    assert float(z.grad.abs().max()) > 0
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in net.parameters())


def test_levels_hold_in_the_training_pass_and_in_the_export() -> None:
    """Weights are the nearest of few integers, and gradients still reach them."""
    net = make("factorised")
    z = torch.randint(-90, 90, (33, 24)).float()
    net.calibrate(z)
    layer = next(m for m in net.layers if isinstance(m, QuantLinear))
    layer.levels = torch.tensor([-60.0, -7.0, 0.0, 21.0, 101.0])
    trained = net.forward_integer(z)
    trained.square().mean().backward()
    assert layer.weight.grad is not None
    assert float(layer.weight.grad.abs().max()) > 0
    exact = net.export()
    assert set(np.unique(exact.layers[0].weight)) == {-60, -7, 0, 21, 101}
    free = (layer.weight.detach() * torch.exp2(layer.w_exp)[:, None]).numpy()
    wanted = layer.levels.numpy()[np.abs(free[..., None] - layer.levels.numpy()).argmin(-1)]
    assert np.array_equal(exact.layers[0].weight, wanted)
    assert np.array_equal(exact.run(z.numpy(), NumpyBackend()), trained.detach().numpy())


def test_export_needs_calibration_and_survives_bad_weights() -> None:
    net = make("direct")
    with pytest.raises(ConfigError, match="calibrate"):
        net.export()
    with torch.no_grad():
        net.layers[0].weight[0, 0] = float("nan")  # type: ignore[index]
        net.layers[1].weight.mul_(0)  # type: ignore[operator,union-attr]
    net.calibrate(torch.zeros(3, 24))
    assert np.isfinite(net.export().run(np.ones((2, 24)), NumpyBackend())).all()


def test_rounding_is_half_to_even() -> None:
    assert round_through(torch.tensor([0.5, 1.5, -2.5])).tolist() == [0.0, 2.0, -2.0]


def test_widths_must_split() -> None:
    with pytest.raises(ConfigError, match="multiple"):
        DecoderNet(4, (LayerSpec(7, "relu", 2),))


@pytest.mark.parametrize("act", ["none", "relu", "leaky"])
def test_gradients_of_the_integer_pass(act: str) -> None:
    """Values and gradients of the fused pass are those of its formula, step by step."""
    torch.manual_seed(1)
    layer = QuantLinear(9, 13, act)
    layer.w_exp.fill_(5.0)
    layer.exps.copy_(torch.tensor([4.0, 6.0]))
    a = torch.randint(-99, 99, (50, 9)).float().requires_grad_()
    pull = torch.randn(50, 13)

    def gradients(y: torch.Tensor) -> list[torch.Tensor]:
        return list(torch.autograd.grad((y * pull).sum(), [a, layer.weight, layer.bias]))

    weight, bias, shift = layer.integers(127)
    plain = round_through(activate(torch.nn.functional.linear(a, weight, bias) * torch.exp2(-shift), act))
    fused = layer.forward_integer(a, (-255, 255), 127)
    assert 0.05 < float((plain.abs() > 255).float().mean()) < 0.9
    assert torch.equal(fused, plain.clamp(-255, 255))
    for one, other in zip(gradients(fused), gradients(plain.clamp(-255, 255)), strict=True):
        assert torch.equal(one, other)
