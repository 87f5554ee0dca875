# SPDX-License-Identifier: MIT
"""Made-up scientific data of any size, seeded, streamed to disk: S3D, XGC and E3SM look-alikes, a real 2-D ignition."""

from hbae.synth.e3sm import E3SMConfig, e3sm_stream
from hbae.synth.hcci2d import HCCI2DConfig, hcci2d_stream
from hbae.synth.s3d import S3DConfig, s3d_stream
from hbae.synth.stream import Stream, StreamVariable, write_stream
from hbae.synth.xgc import XGCConfig, xgc_stream

__all__ = [
    "E3SMConfig",
    "HCCI2DConfig",
    "S3DConfig",
    "Stream",
    "StreamVariable",
    "XGCConfig",
    "e3sm_stream",
    "hcci2d_stream",
    "s3d_stream",
    "write_stream",
    "xgc_stream",
]
