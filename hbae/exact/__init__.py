# SPDX-License-Identifier: MIT
"""The decoder's arithmetic: integers in, integers out, the same bits in NumPy and torch on any machine."""

from hbae.exact.backend import Backend, get_backend
from hbae.exact.block_decoder import BlockDecoder
from hbae.exact.net import MAX_NUMBERS, ExactNet, Linear, Split
from hbae.exact.transform import BASIS_BITS, MAX_DCT, AxisBasis, Transform, dct_basis
from hbae.exact.wavelet import Wavelet

__all__ = [
    "BASIS_BITS",
    "MAX_DCT",
    "MAX_NUMBERS",
    "AxisBasis",
    "Backend",
    "BlockDecoder",
    "ExactNet",
    "Linear",
    "Split",
    "Transform",
    "Wavelet",
    "dct_basis",
    "get_backend",
]
