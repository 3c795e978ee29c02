"""The settings that maps depend on. The manifest stores them: no folder mixes two models."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import torch
from torch import nn

from s5mars import __version__
from s5mars.errors import UserError
from s5mars.models.domain import Domain
from s5mars.predict.overlay import OPACITY
from s5mars.predict.predictor import Predictor


def settings_of(predictor: Predictor, *, write: Sequence[str]) -> dict[str, object]:
    """All settings that change what is written, by name, for JSON.

    Batch size, device, number of workers and engine are left out: they change no more than the last
    bits of a probability, and a resumed run may need other values.
    """
    inference = predictor.inference
    settings: dict[str, object] = {
        "version": __version__,
        "model": model_hash(predictor.model),
        "classes": predictor.taxonomy.to_dict(),
        "window": inference.window,
        "overlap": inference.overlap,
        "precision": inference.precision,
        "temperature": predictor.temperature,
        "resolution": str(predictor.resolution),
        "tta": inference.tta,
        "abstain": inference.abstain,
        "write": sorted(set(write)),
        "opacity": OPACITY if "overlay" in write else None,
    }
    if predictor.class_biases is not None:
        settings["class_biases"] = predictor.class_biases.flatten().tolist()
    if predictor.domain is not None:
        settings["domain"] = domain_hash(predictor.domain)
    return settings


def domain_hash(domain: Domain) -> str:
    """First 16 hexadecimal digits of the SHA-256 of the record that marks products."""
    digest = hashlib.sha256(json.dumps(domain.to_dict(), sort_keys=True).encode())
    for _, array in sorted(domain.arrays().items()):
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def model_hash(model: object) -> str:
    """First 16 hexadecimal digits of the SHA-256 of the type and the weights of a network.

    A network that is not a torch module must have an attribute ``fingerprint``.

    Raises:
        UserError: if it has none.
    """
    if not isinstance(model, nn.Module):
        fingerprint = getattr(model, "fingerprint", None)
        if not fingerprint:
            raise UserError(
                f"{type(model).__name__} needs an attribute `fingerprint` that identifies it, such "
                "as the SHA-256 of its file"
            )
        return str(fingerprint)[:16]
    digest = hashlib.sha256(type(model).__name__.encode())
    for name, value in sorted(model.state_dict().items()):
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
