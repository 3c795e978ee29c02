"""Tiny encoders of the true classes of timm, registered under names of their own.

Only their sizes differ from those of the published models: patches, tokens, position embeddings,
layer scale and normalisation are the same.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import timm
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.eva import Eva
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.vision_transformer import VisionTransformer
from torch import nn

SIDE, WIDTH, DEPTH = 56, 32, 4


def _config(side: int, classifier: str = "head", **more: Any) -> dict[str, Any]:
    return {
        "num_classes": 0, "input_size": (3, side, side), "fixed_input_size": True,
        "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "classifier": classifier,
        **more,
    }  # fmt: skip


default_cfgs = generate_default_cfgs(
    {
        "tiny_patch14_dinov2": _config(SIDE, license="apache-2.0"),
        "tiny_patch14_reg4_dinov2": _config(SIDE, license="apache-2.0"),
        "tiny_patch16_dinov3": _config(64, license="dinov3-license"),
        "tiny_patch16_dinov3_qkvb": _config(64, license="dinov3-license"),
        "tiny_patch14_eva02": _config(SIDE),
        "tiny_patch16_siglip": _config(64),
        "tiny_patch16_mae": _config(64),
        "tiny_swin": _config(64, classifier="head.fc"),
        "tiny_swinv2": _config(64, classifier="head.fc"),
    }
)


def _vit(name: str, **options: Any) -> VisionTransformer:
    options.pop("pretrained", None)
    for unused in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):
        options.pop(unused, None)
    sizes = {"embed_dim": WIDTH, "depth": DEPTH, "num_heads": 2, "num_classes": 0}
    return build_model_with_cfg(  # type: ignore[no-any-return]
        VisionTransformer, name, False, feature_cfg={"out_indices": 3, "feature_cls": "getter"},
        **sizes | options,
    )  # fmt: skip


@register_model
def tiny_patch14_dinov2(pretrained: bool = False, **more: Any) -> VisionTransformer:
    """DINOv2: patch 14, class token, layer scale."""
    return _vit("tiny_patch14_dinov2", **{
        "patch_size": 14, "img_size": SIDE, "init_values": 1e-5,
        "norm_layer": partial(nn.LayerNorm, eps=1e-6), **more,
    })  # fmt: skip


@register_model
def tiny_patch14_reg4_dinov2(pretrained: bool = False, **more: Any) -> VisionTransformer:
    """DINOv2 with registers: their positions and that of the class token are not embedded."""
    return _vit("tiny_patch14_reg4_dinov2", **{
        "patch_size": 14, "img_size": SIDE, "init_values": 1e-5, "reg_tokens": 4,
        "no_embed_class": True, "norm_layer": partial(nn.LayerNorm, eps=1e-6), **more,
    })  # fmt: skip


@register_model
def tiny_patch16_siglip(pretrained: bool = False, **more: Any) -> VisionTransformer:
    """SigLIP: no class token, attention pooling."""
    return _vit("tiny_patch16_siglip", **{
        "patch_size": 16, "img_size": 64, "class_token": False, "global_pool": "map", **more,
    })  # fmt: skip


@register_model
def tiny_patch16_mae(pretrained: bool = False, **more: Any) -> VisionTransformer:
    """MAE: an ordinary ViT."""
    return _vit("tiny_patch16_mae", **{"patch_size": 16, "img_size": 64, **more})


def _dinov3(name: str, **options: Any) -> Eva:
    for unused in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):
        options.pop(unused, None)
    sizes = {
        "patch_size": 16, "img_size": 64, "embed_dim": WIDTH, "depth": DEPTH, "num_heads": 2,
        "init_values": 1e-5, "rope_type": "dinov3", "rope_temperature": 100,
        "use_rot_pos_emb": True, "use_abs_pos_emb": False, "rope_rotate_half": True,
        "num_reg_tokens": 4, "use_fc_norm": False, "num_classes": 0,
        "norm_layer": partial(nn.LayerNorm, eps=1e-5),
    }  # fmt: skip
    return build_model_with_cfg(  # type: ignore[no-any-return]
        Eva, name, False, feature_cfg={"out_indices": 3, "feature_cls": "getter"},
        **sizes | options,
    )  # fmt: skip


@register_model
def tiny_patch16_dinov3(pretrained: bool = False, **more: Any) -> Eva:
    """DINOv3: rotary positions, registers, layer scale."""
    return _dinov3("tiny_patch16_dinov3", **{"qkv_bias": False, **more})


@register_model
def tiny_patch16_dinov3_qkvb(pretrained: bool = False, **more: Any) -> Eva:
    """DINOv3 with biases of queries and values, which are parameters of the attention."""
    return _dinov3("tiny_patch16_dinov3_qkvb", **{"qkv_bias": True, **more})


@register_model
def tiny_patch14_eva02(pretrained: bool = False, **more: Any) -> Eva:
    """EVA-02: positions as in DINOv2, and rotary ones that are interleaved."""
    return _dinov3("tiny_patch14_eva02", **{
        "patch_size": 14, "img_size": SIDE, "rope_type": "cat", "use_abs_pos_emb": True,
        "num_reg_tokens": 0, "rope_rotate_half": False, "ref_feat_shape": (4, 4), **more,
    })  # fmt: skip


def _swin(kind: type[nn.Module], name: str, **options: Any) -> Any:
    for unused in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):
        options.pop(unused, None)
    sizes = {
        "img_size": 64, "embed_dim": 16, "depths": (1, 2, 1, 1), "num_heads": (1, 1, 2, 2),
        "window_size": 4, "num_classes": 0,
    }  # fmt: skip
    return build_model_with_cfg(
        kind, name, False, feature_cfg={"out_indices": (0, 1, 2, 3), "flatten_sequential": True},
        **sizes | options,
    )  # fmt: skip


@register_model
def tiny_swin(pretrained: bool = False, **more: Any) -> SwinTransformer:
    """Swin: four strides, windows, channels last."""
    return _swin(SwinTransformer, "tiny_swin", **more)  # type: ignore[no-any-return]


@register_model
def tiny_swinv2(pretrained: bool = False, **more: Any) -> SwinTransformerV2:
    """Swin V2: cosine attention, biases as parameters of the attention."""
    return _swin(SwinTransformerV2, "tiny_swinv2", **more)  # type: ignore[no-any-return]


VITS = ("tiny_patch14_dinov2", "tiny_patch14_reg4_dinov2", "tiny_patch16_dinov3",
        "tiny_patch16_siglip", "tiny_patch16_mae")  # fmt: skip
assert all(timm.is_model(name) for name in VITS)
