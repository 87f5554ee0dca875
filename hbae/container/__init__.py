# SPDX-License-Identifier: MIT
"""The ``.hbae`` file: frames with checksums, an index at the end, a lazy reader and an atomic writer."""

from hbae.container.frames import FORMAT_VERSION, MAGIC, MAX_CHUNKS
from hbae.container.layout import publish
from hbae.container.models import check_header, read_section
from hbae.container.reader import ArchiveReader
from hbae.container.sections import decode_decoder, decode_transform, encode_decoder, encode_transform
from hbae.container.shared import SharedWriter
from hbae.container.writer import ArchiveWriter, Writer

__all__ = [
    "FORMAT_VERSION",
    "MAGIC",
    "MAX_CHUNKS",
    "ArchiveReader",
    "ArchiveWriter",
    "SharedWriter",
    "Writer",
    "check_header",
    "decode_decoder",
    "decode_transform",
    "encode_decoder",
    "encode_transform",
    "publish",
    "read_section",
]
