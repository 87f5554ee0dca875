# SPDX-License-Identifier: MIT
"""Compiled kernels; everything else is in pyproject.toml. Where they cannot be built, NumPy does their work."""

from setuptools import Extension, setup

# No fused operations: every bit must be that of the NumPy code. What kernels share is called without a detour.
EXACT = ["-O3", "-ffp-contract=off", "-fvisibility=hidden"]
KERNELS = [
    "hbae/codecs/_hints.c",
    "hbae/codecs/_ints.c",
    "hbae/codecs/_neighbours.c",
    "hbae/codecs/_related.c",
    "hbae/codecs/_symbols.c",
    "hbae/codecs/_sets.c",
    "hbae/codecs/_slabs.c",
    "hbae/codecs/_sums.c",
    "hbae/codecs/_tables.c",
    "hbae/exact/_lifting.c",
    "hbae/exact/_predicting.c",
    "hbae/pipeline/_casting.c",
    "hbae/pipeline/_rounding.c",
]
# What a kernel holds besides its own.
PARTS = {
    "hbae/codecs/_ints.c": ["hbae/codecs/_symbols.c"],
    "hbae/codecs/_sets.c": [f"hbae/codecs/_{part}.c" for part in ("hints", "neighbours", "related", "symbols")],
    "hbae/codecs/_slabs.c": ["hbae/codecs/_neighbours.c", "hbae/codecs/_symbols.c"],
}

setup(
    ext_modules=[
        Extension(
            path.removesuffix(".c").replace("/", "."),
            [path, *PARTS.get(path, [])],
            depends=["hbae/_kernel.h", "hbae/codecs/_sets.h"],
            extra_compile_args=EXACT,
            py_limited_api=True,
            optional=True,
        )
        for path in KERNELS
    ]
)
