"""ViTs in ONNX: position embeddings follow the size of the image, as in torch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed
from timm.models import vision_transformer

import tinyvit
from s5mars.export.graph import write_onnx
from s5mars.export.parity import onnx_probabilities, parity, torch_probabilities
from s5mars.export.positions import bicubic_weights, resampled
from s5mars.export.tracing import traceable
from s5mars.models.build import build_segmenter
from ties import assert_same_labels

from .networks import THREE, picture

assert tinyvit.VITS
SIZES = ((32, 32), (33, 47), (56, 56), (70, 101))


@pytest.mark.parametrize(("new", "old"), [(3, 7), (7, 7), (13, 7), (4, 37), (50, 37)])
def test_weights_are_those_of_torch(new: int, old: int) -> None:
    units = torch.eye(old)[:, None, :, None].repeat(1, 1, 1, 5)
    expected = F.interpolate(units, size=(new, 5), mode="bicubic", antialias=True)[:, 0, :, 0].T
    torch.testing.assert_close(bicubic_weights(new, old), expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_the_whole_is_what_timm_computes(prefix: int) -> None:
    positions = torch.randn(1, prefix + 16, 6)
    for size in ((4, 4), (3, 7), (9, 2)):
        expected = resample_abs_pos_embed(positions, list(size), num_prefix_tokens=prefix)
        found = resampled(positions, size, num_prefix_tokens=prefix)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    original = vision_transformer.resample_abs_pos_embed
    with traceable():
        assert vision_transformer.resample_abs_pos_embed is resampled
    assert vision_transformer.resample_abs_pos_embed is original


@pytest.mark.parametrize(
    ("encoder", "head"),
    [
        ("tiny_patch14_dinov2", "dpt"),
        ("tiny_patch14_reg4_dinov2", "linear"),
        ("tiny_patch16_siglip", "deeplab"),
        ("tiny_patch16_dinov3", "dpt"),
        ("tiny_patch14_eva02", "dpt"),
        ("tiny_swin", "deeplab"),
        ("test_convnext", "dpt"),
    ],
)
def test_the_file_answers_as_torch_at_any_size(tmp_path: Path, encoder: str, head: str) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    model = build_segmenter(encoder, 3, head=head).eval()
    with torch.no_grad():  # so that positions and blocks matter
        for name, parameter in model.encoder.named_parameters():
            if name.endswith("pos_embed"):
                parameter.normal_()
            elif "gamma" in name:
                parameter.fill_(0.5)
    write_onnx(tmp_path / "a.onnx", model, THREE, temperature=0.5, facts={})
    ours = torch_probabilities(model, temperature=0.5)
    theirs = onnx_probabilities(tmp_path / "a.onnx")
    images = [picture(i, *size) for i, size in enumerate(SIZES)]
    found = parity(ours, theirs, images)
    assert found.worst < 1e-3 and found.mean < 1e-5
    for image in images:
        expected = ours(image)
        assert_same_labels(theirs(image).argmax(0), expected.argmax(0), expected)
    if encoder == "tiny_patch14_dinov2":
        with torch.no_grad():
            model.encoder.model.pos_embed.zero_()
        assert parity(torch_probabilities(model), theirs, images).worst > 1e-3
