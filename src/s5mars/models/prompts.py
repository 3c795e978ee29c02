"""Text embeddings of class names by CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from s5mars.models.pretrained import load_part

TEMPLATES = (
    "a photo of a {}.",
    "This is a photo of a {}",
    "There is a {} in the scene",
    "There is the {} in the scene",
    "a photo of a {} in the scene",
    "a photo of a small {}.",
    "a photo of a medium {}.",
    "a photo of a large {}.",
    "This is a photo of a small {}.",
    "This is a photo of a medium {}.",
    "This is a photo of a large {}.",
    "There is a small {} in the scene.",
    "There is a medium {} in the scene.",
    "There is a large {} in the scene.",
)
"""Prompts of ViLD (Gu et al., ICLR 2022), which SAN uses; written from memory."""


def prompts_of(name: str) -> list[str]:
    """``"big_rock"`` → "a photo of a big rock." and the others."""
    return [template.format(name.replace("_", " ")) for template in TEMPLATES]


@torch.no_grad()
def text_embeddings(clip: Any, folder: Path, names: Sequence[str]) -> Tensor:
    """(C, E) float32 unit vectors: for each class the normalised mean over its prompts.

    ``clip`` is a ``CLIPModel`` of transformers; its folder contains its tokenizer.

    Raises:
        UserError: if the folder has no tokenizer.
    """
    tokenizer = load_part(folder, "AutoTokenizer", "CLIP's tokenizer")
    length = clip.config.text_config.max_position_embeddings
    found = []
    for name in names:
        tokens = tokenizer(
            prompts_of(name),
            padding=True,
            truncation=True,
            max_length=length,
            return_tensors="pt",
        )
        output = clip.get_text_features(**tokens)
        # A tensor before transformers 5, an object since.
        vectors = F.normalize(getattr(output, "pooler_output", output).float(), dim=-1)
        found.append(F.normalize(vectors.mean(0), dim=0))
    return torch.stack(found)
