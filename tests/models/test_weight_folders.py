"""Weights of ViTs from files and folders of timm, Meta and transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import tinyvit
from s5mars.models.encoders import build_encoder, encode
from s5mars.models.hub import is_hub_id
from s5mars.models.weight_folders import folder_state
from s5mars.models.weights import load_encoder_weights

SIZES = {
    "hidden_size": tinyvit.WIDTH, "num_hidden_layers": tinyvit.DEPTH, "num_attention_heads": 2,
}  # fmt: skip
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "tiny_patch14_dinov2": ("Dinov2", {"image_size": 56, "patch_size": 14}),
    "tiny_patch14_reg4_dinov2": (
        "Dinov2WithRegisters",
        {"image_size": 56, "patch_size": 14, "num_register_tokens": 4},
    ),
    "tiny_patch16_dinov3": (
        "DINOv3ViT",
        {"image_size": 64, "patch_size": 16, "num_register_tokens": 4, "intermediate_size": 128,
         "query_bias": False, "value_bias": False},
    ),
}  # fmt: skip


def of_transformers(name: str, folder: Path, **more: Any) -> Any:
    """A network of transformers' true class with random weights, saved as on the hub."""
    transformers = pytest.importorskip("transformers")
    kind, options = KINDS[name]
    torch.manual_seed(5)
    config = getattr(transformers, f"{kind}Config")(**SIZES, **options | more)
    model = getattr(transformers, f"{kind}Model")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return model


def last_patches(name: str, weights: str, image: Tensor) -> Tensor:
    """(B, N, C): what the loaded encoder says of each patch."""
    encoder, layout = build_encoder(name, levels=1)
    report = load_encoder_weights(encoder, name, weights=weights)
    assert report.matched == report.total
    with torch.no_grad():
        (found,) = encode(encoder.eval(), layout, image)
    return found.flatten(2).transpose(1, 2)


@pytest.mark.parametrize("name", KINDS)
def test_transformers_and_timm_answer_alike(tmp_path: Path, name: str) -> None:
    theirs = of_transformers(name, tmp_path / "theirs")
    side = KINDS[name][1]["image_size"]
    image = torch.randn(2, 3, side, side)
    with torch.no_grad():
        expected = theirs(image).last_hidden_state[:, -16:]  # 4 × 4 patches after other tokens
    found = last_patches(name, str(tmp_path / "theirs"), image)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    # Broken once: another order of query, key and value is not the same network.
    state = load_file(tmp_path / "theirs" / "model.safetensors")
    swapped = {k.replace("query", "key_").replace("q_proj", "k_proj_"): v for k, v in state.items()}
    swapped = {k.replace("key.", "query.").replace("k_proj.", "q_proj."): v
               for k, v in swapped.items()}  # fmt: skip
    swapped = {k.replace("key_.", "key.").replace("k_proj_.", "k_proj."): v
               for k, v in swapped.items()}  # fmt: skip
    save_file(swapped, tmp_path / "theirs" / "model.safetensors")
    assert not torch.allclose(last_patches(name, str(tmp_path / "theirs"), image), found)


def test_gated_layers_of_the_largest_dinov2(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(5)
    options = {**SIZES, "image_size": 56, "patch_size": 14, "use_swiglu_ffn": True}
    theirs = transformers.Dinov2Model(transformers.Dinov2Config(**options)).eval()
    with torch.no_grad():
        theirs.layernorm.weight.normal_()
        for layer in theirs.encoder.layer:
            layer.layer_scale2.lambda1.normal_()
    theirs.save_pretrained(tmp_path)
    from timm.layers import SwiGLUPacked
    from timm.models._features import FeatureGetterNet

    model = timm.create_model(
        "tiny_patch14_dinov2", dynamic_img_size=True, mlp_layer=SwiGLUPacked,
        mlp_ratio=2.75 * 2, act_layer=torch.nn.SiLU,
    )  # fmt: skip
    encoder = FeatureGetterNet(model, out_indices=(3,), norm=True).eval()
    load_encoder_weights(encoder, "tiny_patch14_dinov2", weights=str(tmp_path))
    image = torch.randn(1, 3, 56, 56)
    with torch.no_grad():
        expected = theirs(image).last_hidden_state[:, 1:]
        found = encoder(image)[0].flatten(2).transpose(1, 2)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


def test_biases_that_have_no_place_are_not_lost_in_silence(tmp_path: Path) -> None:
    of_transformers("tiny_patch16_dinov3", tmp_path, query_bias=True, value_bias=True)
    encoder, _ = build_encoder("tiny_patch16_dinov3", levels=1)
    with pytest.raises(ValueError, match=r"has biases, .* ends in _qkvb"):
        load_encoder_weights(encoder, "tiny_patch16_dinov3", weights=str(tmp_path))


@pytest.mark.parametrize("name", tinyvit.VITS)
@pytest.mark.parametrize("wrap", ["", "backbone.", "module."])
def test_files_and_folders_of_timm(tmp_path: Path, name: str, wrap: str) -> None:
    torch.manual_seed(1)
    model = timm.create_model(name, dynamic_img_size=True).eval()
    folder = tmp_path / "weights"
    folder.mkdir()
    state = {f"{wrap}{k}": v.clone() for k, v in model.state_dict().items()}
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"architecture": name}))
    side = 2 * model.patch_embed.patch_size[0]
    image = torch.randn(1, 3, side, side)
    with torch.no_grad():
        expected = model.forward_features(image)[:, model.num_prefix_tokens :]
    for weights in (folder, folder / "model.safetensors"):
        torch.testing.assert_close(last_patches(name, str(weights), image), expected)


def test_a_file_of_meta_with_registers(tmp_path: Path) -> None:
    """Meta embeds the position of the class token; timm adds it to the token."""
    torch.manual_seed(1)
    model = timm.create_model("tiny_patch14_reg4_dinov2", dynamic_img_size=True).eval()
    state = dict(model.state_dict())
    place = torch.randn(1, 1, tinyvit.WIDTH)
    state["register_tokens"] = state.pop("reg_token")
    state["pos_embed"] = torch.cat([place, state["pos_embed"]], dim=1)
    state["cls_token"] = state["cls_token"] - place
    state["mask_token"] = torch.zeros(1, tinyvit.WIDTH)
    torch.save(state, tmp_path / "meta.pth")
    image = torch.randn(1, 3, 56, 56)
    with torch.no_grad():
        expected = model.forward_features(image)[:, 5:]
    found = last_patches("tiny_patch14_reg4_dinov2", str(tmp_path / "meta.pth"), image)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_another_number_of_positions_is_interpolated_but_not_another_patch(tmp_path: Path) -> None:
    larger = timm.create_model("tiny_patch16_mae", img_size=96)
    save_file(larger.state_dict(), tmp_path / "larger.safetensors")
    image = torch.randn(1, 3, 64, 64)
    assert last_patches("tiny_patch16_mae", str(tmp_path / "larger.safetensors"), image).ndim == 3
    encoder, _ = build_encoder("tiny_patch14_dinov2", levels=1)
    with pytest.raises(ValueError, match=r"larger\.safetensors does not fit"):
        load_encoder_weights(
            encoder, "tiny_patch14_dinov2", weights=str(tmp_path / "larger.safetensors")
        )


def test_a_deeper_vit_is_refused(tmp_path: Path) -> None:
    deeper = timm.create_model("tiny_patch16_mae", depth=6)
    save_file(deeper.state_dict(), tmp_path / "deeper.safetensors")
    encoder, _ = build_encoder("tiny_patch16_mae", levels=1)
    with pytest.raises(ValueError, match="belongs to a deeper encoder"):
        load_encoder_weights(
            encoder, "tiny_patch16_mae", weights=str(tmp_path / "deeper.safetensors")
        )


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"contains no \*\.safetensors"):
        folder_state(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "vit_mae"}')
    with pytest.raises(ValueError, match="'vit_mae' in transformers' layout; supported are dinov2"):
        folder_state(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json"):
        folder_state(tmp_path)


def test_a_hub_that_cannot_be_reached_says_what_to_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def download(name: str, **options: Any) -> str:
        asked.append((name, options["allow_patterns"]))
        raise OSError("no network\nhere")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    encoder, _ = build_encoder("tiny_patch14_dinov2", levels=1)
    with pytest.raises(FileNotFoundError) as caught:
        load_encoder_weights(encoder, "tiny_patch14_dinov2", weights="hf-hub:facebook/dinov2-x")
    message = str(caught.value)
    assert asked == [("facebook/dinov2-x", ["config.json", "*.safetensors"])]
    for word in (
        "facebook/dinov2-x: no such file or folder",
        "(no network)",
        "copy config.json and model.safetensors of facebook/dinov2-x",
        "--weights",
    ):
        assert word in message
    assert "\n" not in message
    assert is_hub_id("facebook/dinov2-small") and not is_hub_id("a/b/c") and not is_hub_id("x")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path.parent)
    assert not is_hub_id(f"{tmp_path.name}/here")


def test_a_folder_from_the_hub_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file(timm.create_model("tiny_patch16_mae").state_dict(), tmp_path / "model.safetensors")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path))
    encoder, _ = build_encoder("tiny_patch16_mae", levels=1)
    report = load_encoder_weights(encoder, "tiny_patch16_mae", weights="timm/tiny")
    assert report.source == "timm/tiny" and report.file is None
