# SPDX-License-Identifier: MIT
"""Orthogonalised momentum for weight matrices, and state of optimisers as plain tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


class OrthogonalMomentum(torch.optim.Optimizer):
    """Steps along the momentum matrix made nearly orthogonal by five Newton-Schulz iterations (Muon, Jordan 2024)."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step from the gradients."""
        for group in self.param_groups:
            mu = group["momentum"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(p)
                buffer = state["momentum_buffer"].lerp_(p.grad, 1 - mu)
                update = orthogonalise(p.grad.lerp(buffer, mu))
                p.add_(update, alpha=-group["lr"] * max(1.0, p.shape[0] / p.shape[1]) ** 0.5)


def orthogonalise(g: Tensor) -> Tensor:
    """Give a matrix with the singular vectors of g and singular values near 1.

    The five Newton-Schulz polynomials are multiplied up on the smaller Gram matrix and meet g once.
    """
    tall = g.shape[0] > g.shape[1]
    x = g.T if tall else g
    x = x / (x.norm() + 1e-12)
    gram = x @ x.T
    product: Tensor | None = None
    for left in reversed(range(5)):
        factor = 2.0315 * (gram @ gram) - 4.775 * gram
        factor.diagonal().add_(3.4445)
        product = factor if product is None else product @ factor
        if left:
            gram = factor @ gram @ factor
    out: Tensor = x if product is None else product @ x
    return out.T if tall else out


def make_optimisers(net: nn.Module, lr: float, matrix_lr: float) -> list[torch.optim.Optimizer]:
    """Give Adam for vectors and, unless ``matrix_lr`` is 0, orthogonalised momentum for the weight matrices."""
    named = [(n, p) for n, p in net.named_parameters() if p.requires_grad]
    matrices = [p for n, p in named if matrix_lr and p.ndim == 2 and n.endswith(".weight")]
    ids = {id(p) for p in matrices}
    adam = torch.optim.Adam([p for _, p in named if id(p) not in ids], lr=lr, betas=(0.9, 0.95))
    return [adam, OrthogonalMomentum(matrices, matrix_lr)] if matrices else [adam]


def state_tensors(optimiser: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """Give an optimiser's state as tensors by name ``prefix.index.key``."""
    state: Mapping[int, Mapping[str, Any]] = optimiser.state_dict()["state"]
    return {f"{prefix}.{i}.{k}": torch.as_tensor(v) for i, entry in state.items() for k, v in entry.items()}


def load_state_tensors(optimiser: torch.optim.Optimizer, prefix: str, tensors: Mapping[str, Tensor]) -> None:
    """Undo :func:`state_tensors`."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith(prefix + "."):
            index, key = name[len(prefix) + 1 :].split(".")
            state.setdefault(int(index), {})[key] = value
    doc = optimiser.state_dict()
    doc["state"] = state
    optimiser.load_state_dict(doc)
