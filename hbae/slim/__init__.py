# SPDX-License-Identifier: MIT
"""Fewer and shorter weights: pruning, quantisation, fine-tuning without gradients, and the bytes that they take.

Retraining and scoring are the caller's callables; :func:`hbae.slim.module.slim_module` makes them for a torch module.
"""

from hbae.slim.coded import decode_weights, encode_weights
from hbae.slim.quantise import Quantised, layer_bytes
from hbae.slim.sparsity import magnitude_mask
from hbae.slim.trial import Aim, Rule, Rules, Trial
from hbae.slim.workflow import SlimConfig, Slimmed, SlimReport, slim

__all__ = [
    "Aim",
    "Quantised",
    "Rule",
    "Rules",
    "SlimConfig",
    "SlimReport",
    "Slimmed",
    "Trial",
    "decode_weights",
    "encode_weights",
    "layer_bytes",
    "magnitude_mask",
    "slim",
]
