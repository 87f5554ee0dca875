# SPDX-License-Identifier: MIT
"""Many files on many ranks: recipe, work queue, journal, restart."""
