"""SAMs of each family, of the true classes and with random weights, small enough for a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

SIDE = 64  # of the network's input
GAIN = 2.0
FAMILIES = ("sam", "sam_hq", "sam2")

_VIT = {
    "hidden_size": 32, "output_channels": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "image_size": SIDE, "patch_size": 8, "window_size": 4, "global_attn_indexes": [1],
    "mlp_dim": 64, "num_pos_feats": 16,
}  # fmt: skip
_PROMPT = {"hidden_size": 32, "image_size": SIDE, "patch_size": 8, "mask_input_channels": 8}
_DECODER = {
    "hidden_size": 32, "mlp_dim": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "iou_head_depth": 2, "iou_head_hidden_dim": 16,
}  # fmt: skip
_HIERA = {
    "hidden_size": 8, "num_attention_heads": 1, "image_size": [SIDE, SIDE],
    "blocks_per_stage": [1, 1, 2, 1], "embed_dim_per_stage": [8, 16, 32, 64],
    "num_attention_heads_per_stage": [1, 1, 2, 2], "window_size_per_stage": [8, 4, 8, 4],
    "global_attention_blocks": [3], "window_positional_embedding_background_size": [4, 4],
}  # fmt: skip


def model(family: str, *, seed: int = 0) -> Any:
    import transformers as t

    torch.manual_seed(seed)
    if family == "sam":
        config = t.SamConfig(
            vision_config=t.SamVisionConfig(**_VIT),
            prompt_encoder_config=t.SamPromptEncoderConfig(**_PROMPT, image_embedding_size=8),
            mask_decoder_config=t.SamMaskDecoderConfig(**_DECODER),
        )
        made = t.SamModel(config)
    elif family == "sam_hq":
        config = t.SamHQConfig(
            vision_config=t.SamHQVisionConfig(**_VIT),
            prompt_encoder_config=t.SamHQPromptEncoderConfig(**_PROMPT, image_embedding_size=8),
            mask_decoder_config=t.SamHQMaskDecoderConfig(**_DECODER, vit_dim=32),
        )
        made = t.SamHQModel(config)
    else:
        vision = t.Sam2VisionConfig(
            backbone_config=t.Sam2HieraDetConfig(**_HIERA),
            backbone_channel_list=[64, 32, 16, 8],
            backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
            fpn_hidden_size=32,
        )
        config = t.Sam2Config(
            vision_config=vision,
            prompt_encoder_config=t.Sam2PromptEncoderConfig(**{**_PROMPT, "patch_size": 16}),
            mask_decoder_config=t.Sam2MaskDecoderConfig(**_DECODER),
        )
        made = t.Sam2Model(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, values in made.named_parameters():
            # As transformers initialises it, every point gets nearly the same mask.
            if values.ndim > 1 and "norm" not in name:
                inputs = values[0].numel()
                values.normal_(std=GAIN / inputs**0.5, generator=generator)
    return made.eval()


def save(folder: Path, family: str, *, seed: int = 0) -> Path:
    """A folder as on the hub: config, tensors, processor."""
    import transformers as t

    t.utils.logging.disable_progress_bar()
    model(family, seed=seed).save_pretrained(folder)
    square = {"height": SIDE, "width": SIDE}
    if family == "sam2":
        processor = t.Sam2ImageProcessor(size=square)
    else:
        processor = t.SamImageProcessor(size={"longest_edge": SIDE}, pad_size=square)
    processor.save_pretrained(folder)
    return folder


def picture(height: int, width: int, *, seed: int = 0) -> np.ndarray:
    """Blobs of colour."""
    from PIL import Image

    coarse = np.random.default_rng(seed).integers(30, 255, (6, 8, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
