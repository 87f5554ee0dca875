# SPDX-License-Identifier: MIT
"""The model file: encoder tensors, description, and the decoder section byte for byte as archives embed it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hbae.container import decode_decoder, encode_decoder, read_section
from hbae.errors import ConfigError, FormatError, ModelMismatchError
from hbae.models.autoencoder import Autoencoder
from hbae.models.config import ModelConfig
from hbae.models.trained import EncodingModel
from hbae.train.blocks import TrainedModel
from hbae.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from hbae.train.config import TrainConfig

FORMAT = "hbae-model"
VERSION = 1
ENCODERS = ("hyper_encoder.", "block_encoder.")


def decoder_id(section: bytes) -> str:
    """Give the id of a decoder section: SHA-256, hexadecimal."""
    return hashlib.sha256(section).hexdigest()


def save_model(path: Path, model: TrainedModel) -> str:
    """Write a model file, whole or not at all; gives the id of its decoder."""
    section = encode_decoder(model.decoder)
    net = model.encoder.net
    tensors = {k: v for k, v in net.state_dict().items() if k.startswith(ENCODERS)}
    tensors["decoder"] = torch.from_numpy(np.frombuffer(section, np.uint8).copy())
    doc = {
        "format": FORMAT,
        "version": VERSION,
        "names": list(model.names),
        "geometry": dict(model.geometry),
        "config": model.config.to_json(),
        "seed": model.seed,
        "offset": [float(v).hex() for v in net.offset.tolist()],
        "scale": [float(v).hex() for v in net.scale.tolist()],
        "decoder_id": decoder_id(section),
    }
    save_checkpoint(path, Checkpoint(doc, tensors))
    return decoder_id(section)


def load_model(path: Path, device: str = "cpu") -> TrainedModel:
    """Read a model file.

    Raises
    ------
    FormatError
        When the file is damaged or is no model.
    ModelMismatchError
        When its parts do not fit each other or the decoder is not the one it names.
    """
    section = read_section(path)
    saved = load_checkpoint(path)
    doc = saved.doc
    if doc.get("format") != FORMAT or doc.get("version") != VERSION:
        raise FormatError(f"{path.name}: not a model file of version {VERSION}")
    if decoder_id(section) != doc.get("decoder_id"):
        raise ModelMismatchError(f"{path.name}: the decoder's SHA-256 is not the one the file names")
    decoder = decode_decoder(section)
    try:
        config = TrainConfig.from_json(doc["config"])
        names = tuple(str(n) for n in doc["names"])
        if len(set(names)) < len(names):
            raise FormatError("malformed model: a variable is named twice")
        geometry = _geometry(doc, config.model)
        net = _network(config, doc, saved.tensors)
        seed = int(doc["seed"])
    except (ConfigError, KeyError, TypeError, ValueError, RuntimeError) as e:
        raise FormatError(f"{path.name}: malformed model: {e}") from e
    encoder = EncodingModel(net.to(device), names, decoder)
    return TrainedModel(encoder=encoder, geometry=geometry, config=config, seed=seed)


def _geometry(doc: Mapping[str, Any], model: ModelConfig) -> dict[str, Any]:
    """Give the geometry of a description: block and hyper-block hold the points and blocks of the networks."""
    geometry = dict(doc["geometry"])
    block, hyper = geometry["block"], geometry["hyper"]
    for lengths, count in ((block, model.points), (hyper, model.num_blocks)):
        if not isinstance(lengths, list) or not all(type(n) is int and 1 <= n <= count for n in lengths):
            raise FormatError("malformed model: lengths of blocks must be a list of positive integers")
        if math.prod(lengths) != count or len(lengths) != len(block):
            raise FormatError("malformed model: blocks and networks do not fit")
    return geometry


def _network(config: TrainConfig, doc: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Autoencoder:
    shape = (config.model.num_variables,)
    offset, scale = (np.array([float.fromhex(v) for v in doc[key]]) for key in ("offset", "scale"))
    if offset.shape != shape or scale.shape != shape or not (np.isfinite([offset, scale]).all() and (scale > 0).all()):
        raise FormatError("malformed model: bad offset or scale")
    given = sum(t.numel() for k, t in tensors.items() if k.startswith(ENCODERS))
    if config.model.largest_layer > max(4 * given, 1 << 16):
        raise FormatError("malformed model: sizes and tensors do not fit")
    net = Autoencoder(config.model, offset, scale)
    own = {k for k in net.state_dict() if k.startswith(ENCODERS)}
    state = {k: v for k, v in tensors.items() if k != "decoder"}
    if set(state) != own:
        raise FormatError("malformed model: encoder tensors are missing or unknown")
    net.load_state_dict(state, strict=False)
    return net
