# SPDX-License-Identifier: MIT
"""Compress, decompress, verify, report: the one place that knows the lower rooms together."""
