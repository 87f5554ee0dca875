# SPDX-License-Identifier: MIT
"""Archives that grow step by step beside a running simulation, and what a kill leaves of them."""
