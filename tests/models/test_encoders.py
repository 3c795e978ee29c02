"""Every kind of timm encoder gives the feature maps that its decoder reads, at any size."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor

import tinyvit
from s5mars.models.build import build_segmenter, rebuild_network
from s5mars.models.deeplab import DeepLabV3Plus
from s5mars.models.dpt import Dpt, decoder_width, level_channels
from s5mars.models.encoders import blocks_of_levels, build_encoder, encode, is_columnar, padded
from s5mars.models.linear import Linear
from s5mars.settings.networks import DeepLabOptions

PYRAMIDS = ("test_convnext", "test_resnet", "test_mambaout", "tiny_swin")


def image(height: int, width: int, *, batch: int = 1) -> Tensor:
    drawn = torch.Generator().manual_seed(height)
    return torch.randint(0, 256, (batch, 3, height, width), generator=drawn, dtype=torch.uint8)


@pytest.mark.parametrize("name", tinyvit.VITS)
def test_levels_of_a_vit_are_normalised_patches_without_other_tokens(name: str) -> None:
    torch.manual_seed(0)
    encoder, layout = build_encoder(name, levels=4)
    assert layout.columnar and layout.multiple == layout.strides[0] in {14, 16}
    given = torch.randn(2, 3, 4 * layout.multiple, 3 * layout.multiple)
    with torch.no_grad():
        found = encode(encoder.eval(), layout, given)
        tokens = encoder.model.forward_features(given)  # as timm's own pass
    assert [tuple(x.shape) for x in found] == [(2, tinyvit.WIDTH, 4, 3)] * 4
    patches = tokens[:, encoder.model.num_prefix_tokens :]
    torch.testing.assert_close(found[-1].flatten(2).transpose(1, 2), patches)
    assert not torch.allclose(found[0], found[1])


@pytest.mark.parametrize("name", PYRAMIDS)
def test_levels_of_a_pyramid_have_its_strides(name: str) -> None:
    encoder, layout = build_encoder(name, levels=4)
    given = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        found = encode(encoder.eval(), layout, given)
    expected = [(c, 64 // s, 96 // s) for c, s in zip(layout.channels, layout.strides, strict=True)]
    assert [tuple(x.shape[1:]) for x in found] == expected
    assert layout.strides[:3] == (4, 8, 16)
    # Some cannot dilate their convolutions, and keep their own stride.
    assert layout.strides[3] == (32 if name in {"test_mambaout", "tiny_swin"} else 16)


@pytest.mark.parametrize("head", ["deeplab", "dpt", "linear"])
@pytest.mark.parametrize("name", [*tinyvit.VITS[:3], *PYRAMIDS])
def test_every_head_over_every_encoder_at_any_size(name: str, head: str) -> None:
    network = build_segmenter(name, 5, head=head, representation=6).eval()
    given = image(45, 67)
    with torch.no_grad():
        logits = network(given)
        features = network.features(given)
        fused = network.fuse(*features)
        assert torch.equal(network.decode(*features, size=(45, 67)), logits)
        assert torch.equal(network.classify(fused, size=(45, 67)), logits)
        embedded = network.represent(fused)
    assert logits.shape == (1, 5, 45, 67) and logits.dtype == torch.float32
    assert embedded.shape[:2] == (1, 6) and embedded.shape[2] >= 2
    again = rebuild_network(network.description)
    state = network.state_dict()
    again.load_state_dict({k: v for k, v in state.items() if not k.startswith("representation")})
    with torch.no_grad():
        assert torch.equal(again.eval()(given), logits)


def test_padding_is_below_and_to_the_right_and_is_cut_off() -> None:
    filled = padded(torch.ones(1, 1, 15, 28), 14)
    assert filled.shape == (1, 1, 28, 28)
    assert filled[..., :15, :].min() == 1 and filled[..., 15:, :].max() == 0
    assert padded(filled, 14).shape == filled.shape
    network = build_segmenter("tiny_patch14_dinov2", 3, head="linear").eval()
    grey = (network.mean * 255).round().to(torch.uint8)
    small = image(28, 20)
    whole = grey.expand(1, 3, 28, 28).clone()
    whole[..., :20] = small
    with torch.no_grad():
        # Padding is the mean colour, but for its rounding to bytes.
        torch.testing.assert_close(network(small), network(whole)[..., :20], atol=0.05, rtol=0)


def test_position_embeddings_follow_the_size_of_the_image() -> None:
    network = build_segmenter("tiny_patch14_dinov2", 3, head="linear").eval()
    model = network.encoder.model  # type: ignore[union-attr]
    with torch.no_grad():
        model.pos_embed.normal_()
        flat = torch.zeros(1, 3, 28, 84)
        (found,) = network.encode(flat)
    # Without content, patches differ by position only, and so along both axes.
    assert not torch.allclose(found[..., 0], found[..., -1])
    assert not torch.allclose(found[..., 0, :], found[..., -1, :])


def test_the_decoder_follows_the_encoder() -> None:
    assert isinstance(build_segmenter("tiny_patch16_mae", 3), Dpt)
    assert isinstance(build_segmenter("test_convnext", 3), DeepLabV3Plus)
    assert isinstance(build_segmenter("tiny_swin", 3), DeepLabV3Plus)
    assert isinstance(build_segmenter("test_convnext", 3, head="linear"), Linear)
    assert is_columnar("vit_small_patch14_dinov2") and not is_columnar("resnet50")


def test_sizes_of_the_dpt_decoder_are_those_of_depth_anything() -> None:
    assert [decoder_width(w) for w in (384, 768, 1024, 1536)] == [64, 128, 256, 384]
    assert level_channels(384) == (48, 96, 192, 384)
    assert level_channels(768) == (96, 192, 384, 768)
    assert level_channels(1024) == (256, 512, 1024, 1024)
    assert level_channels(1536) == (1536,) * 4
    assert blocks_of_levels(12, 4) == (2, 5, 8, 11)
    assert blocks_of_levels(24, 4) == (4, 11, 17, 23)
    assert blocks_of_levels(40, 4) == (9, 19, 29, 39)
    assert blocks_of_levels(12, 2) == (2, 11) and blocks_of_levels(12, 1) == (11,)
    with torch.device("meta"):
        network = build_segmenter("vit_small_patch14_dinov2", 21)
    decoder = sum(p.numel() for p in network.parameters()) - parameters_of(network.encoder)
    assert decoder == pytest.approx(2.7e6, rel=0.02)


def parameters_of(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_drop_path_skips_blocks_in_training_only() -> None:
    network = build_segmenter("tiny_patch16_mae", 3, head="linear", drop_path=0.5)
    given = image(32, 32, batch=4)

    def tokens() -> Tensor:
        with torch.no_grad():
            return network.features(given)[0]

    network.train()
    assert not torch.equal(tokens(), tokens())
    network.eval()
    assert torch.equal(tokens(), tokens())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vit_relpos_small_patch16_224", {}, r"it reads images of 224×224 pixels only.*resnet50"),
        ("tiny_patch14_dinov2", {"output_stride": 32}, "output-stride cannot change that of .*14"),
        ("tiny_swin", {"output_stride": 8}, "output-stride cannot change that of tiny_swin.* 32"),
        ("test_convnext", {"head": "dpt", "decoder": "light"}, "decoder is for --head deeplab"),
        ("tiny_patch16_mae", {"multi_grid": [1, 2, 4]}, "multi-grid is for --head deeplab"),
        ("tiny_patch14_dinov", {}, "not an encoder of timm; nearest: tiny_patch14_dinov2"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    name: str, options: dict[str, object], message: str
) -> None:
    head = str(options.pop("head", "auto"))
    with pytest.raises(ValueError, match=message) as caught:
        build_segmenter(name, 3, head=head, options=DeepLabOptions(**options))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_the_levels_are_those_that_timm_gives_for_these_blocks() -> None:
    torch.manual_seed(0)
    encoder, layout = build_encoder("tiny_patch16_mae", levels=4)
    plain = timm.create_model("tiny_patch16_mae", dynamic_img_size=True)
    plain.load_state_dict(encoder.model.state_dict(), strict=False)
    given = torch.randn(1, 3, 48, 32)
    with torch.no_grad():
        expected = plain.eval().forward_intermediates(
            given, indices=[0, 1, 2, 3], norm=True, intermediates_only=True
        )
        found = encode(encoder.eval(), layout, given)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
