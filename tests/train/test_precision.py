# SPDX-License-Identifier: MIT
"""Where training may multiply in half precision: floats on a GPU, and nowhere else."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from hbae.config import Budget
from hbae.models.autoencoder import Autoencoder
from hbae.train.batches import Batches, normalisation
from hbae.train.loop import RunOptions, Trainer

from .conftest import make_blocks, make_config


@pytest.mark.filterwarnings("ignore:CUDA is not available")
@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("integer", [False, True])
def test_integers_and_processors_keep_all_bits(*, mixed: bool, device: str, integer: bool) -> None:
    """The integer phase must see the sums that the decoder proves exact. Asking needs no GPU."""
    x = make_blocks()
    net = Autoencoder(make_config().model, *normalisation(x, None))
    batches = Batches(net, x, None, batch=8, seed=0, device="cpu")
    budget, options = Budget(epochs=1), RunOptions(mixed=mixed)
    trainer = Trainer(net, make_config(), batches, seed=0, budget=budget, options=options)
    batches.device, trainer.integer = torch.device(device), integer
    context = trainer._precision()
    if mixed and device == "cuda" and not integer:
        assert isinstance(context, torch.autocast)
        assert (context.device, context.fast_dtype) == ("cuda", torch.bfloat16)
    else:
        assert isinstance(context, nullcontext)
