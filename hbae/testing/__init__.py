# SPDX-License-Identifier: MIT
"""What a contributor runs on a new part."""
