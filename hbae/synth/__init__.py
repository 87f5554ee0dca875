# SPDX-License-Identifier: MIT
"""Made-up scientific data of any size, seeded, streamed to disk: S3D, XGC and E3SM look-alikes, a real 2-D ignition."""

from hbae.synth.s3d import S3DConfig, s3d_stream
from hbae.synth.stream import Stream, StreamVariable, write_stream

__all__ = ["S3DConfig", "Stream", "StreamVariable", "s3d_stream", "write_stream"]
