"""What the maps of a run depend on: the manifest keeps it, so that no folder mixes two models."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import nn

from s5mars import __version__
from s5mars.errors import UserError
from s5mars.predict.predictor import Predictor


def settings_of(predictor: Predictor, *, write: Sequence[str], opacity: float) -> dict[str, object]:
    """Everything that changes what is written, by name; JSON holds it.

    Left out is what changes nothing but the last bits of a probability, because it may have to
    change when a run goes on: windows in a batch, device, number of workers, engine.
    """
    return {
        "version": __version__,
        "model": model_hash(predictor.model),
        "classes": predictor.taxonomy.to_dict(),
        "window": predictor.window,
        "overlap": predictor.overlap,
        "precision": predictor.precision,
        "temperature": predictor.temperature,
        "tta": predictor.tta,
        "abstain": predictor.abstain,
        "write": sorted(write),
        "opacity": opacity if "overlay" in write else None,
    }


def model_hash(model: object) -> str:
    """16 hexadecimal digits of the SHA-256 of the kind of network and all its numbers.

    A network that is no torch module says it by itself, in an attribute ``fingerprint``.

    Raises:
        UserError: if it has none.
    """
    if not isinstance(model, nn.Module):
        fingerprint = getattr(model, "fingerprint", None)
        if not fingerprint:
            raise UserError(
                f"{type(model).__name__} cannot be told from another network: give it an attribute "
                "`fingerprint`, such as the SHA-256 of its file"
            )
        return str(fingerprint)[:16]
    digest = hashlib.sha256(type(model).__name__.encode())
    for name, value in sorted(model.state_dict().items()):
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
