# SPDX-License-Identifier: MIT
"""The learned models: HBAE with self-attention and BAE, trained as the integer decoders that archives carry.

Only the protocol is imported here; :mod:`hbae.models.autoencoder` and :mod:`hbae.models.trained` need torch.
"""

from hbae.models.base import BlockModel

__all__ = ["BlockModel"]
