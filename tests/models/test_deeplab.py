"""The network: its size, what it takes and gives, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

from s5mars.models.deeplab import DeepLabV3Plus
from s5mars.models.segmenter import RELEASED_DIVISOR, RELEASED_MEAN

TINY = "mobilenetv3_small_050"


@pytest.fixture(scope="module")
def model() -> DeepLabV3Plus:
    torch.manual_seed(0)
    return DeepLabV3Plus(TINY, 5).eval()


def image(height: int = 64, width: int = 64, *, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(height * 1000 + width)
    return torch.randint(0, 256, (batch, 3, height, width), generator=generator).to(torch.uint8)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(("encoder", "millions"), [("resnet50", 40.349), ("resnet50s", 40.473)])
def test_size_of_the_papers_network(encoder: str, millions: float) -> None:
    with torch.device("meta"):
        count = parameters(DeepLabV3Plus(encoder, 9))
    assert count / 1e6 == pytest.approx(millions, abs=0.0005)
    assert count / 40.47e6 == pytest.approx(1, abs=0.01)


def test_heads_follow_the_encoder() -> None:
    with torch.device("meta"):
        sizes = {head: parameters(DeepLabV3Plus(TINY, 5, head=head)) for head in ("paper", "light")}
        chosen = {
            name: DeepLabV3Plus(name, 5, head="auto").description["head"]
            for name in (TINY, "resnet50")
        }
    assert sizes["paper"] > 5 * sizes["light"]
    assert chosen == {TINY: "light", "resnet50": "paper"}


def test_bytes_and_floats_give_the_same_logits(model: DeepLabV3Plus) -> None:
    with torch.no_grad():
        torch.testing.assert_close(model(image()), model(image().float() / 255))


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (32, 90), (65, 64)])
def test_any_size(model: DeepLabV3Plus, size: tuple[int, int]) -> None:
    with torch.no_grad():
        logits = model(image(*size))
    assert logits.shape == (2, 5, *size) and logits.dtype == torch.float32
    assert logits.isfinite().all()
    assert logits.std() > 0


@pytest.mark.parametrize(("stride", "side"), [(8, 12), (16, 6), (32, 3)])
def test_output_stride(stride: int, side: int) -> None:
    network = DeepLabV3Plus(TINY, 3, output_stride=stride).eval()
    with torch.no_grad():
        low, high = network.features(image(96, 96))
    assert low.shape[-2:] == (24, 24)
    assert high.shape[-2:] == (side, side)


def test_a_frozen_convolutional_encoder_is_cached(tmp_path: Path) -> None:
    torch.manual_seed(0)
    # As in training: the weights of its 1×1 convolutions then have strides of their own.
    network = DeepLabV3Plus(TINY, 3).to(memory_format=torch.channels_last)
    network.freeze(cache=tmp_path)
    first = network.features(image())
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2
    assert all(map(torch.equal, first, network.features(image())))


def test_gradients_reach_every_parameter() -> None:
    torch.manual_seed(0)
    network = DeepLabV3Plus(TINY, 5).train()
    network(image()).square().mean().backward()
    without = [name for name, p in network.named_parameters() if p.grad is None]
    assert not without  # a parameter without one stops distributed training
    for part in (network.encoder, network.pyramid, network.low_level, network.decoder):
        assert any(p.grad.abs().sum() > 0 for p in part.parameters())


def seen_by_the_encoder(network: DeepLabV3Plus, given: Tensor) -> Tensor:
    seen: list[Tensor] = []
    handle = network.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        network(given)
    handle.remove()
    return seen[0]


def test_normalisation_is_inside_and_travels_with_the_weights(model: DeepLabV3Plus) -> None:
    config = timm.get_pretrained_cfg(TINY)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (config.mean, config.std))
    given = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(seen_by_the_encoder(model, given), (given - mean) / std)
    assert {"mean", "std"} <= model.state_dict().keys()


def test_normalisation_as_released() -> None:
    network = DeepLabV3Plus(TINY, 3, normalisation="as_released").eval()
    assert network.mean.flatten().tolist() == pytest.approx(RELEASED_MEAN)
    assert network.std.flatten().tolist() == pytest.approx(RELEASED_DIVISOR)
    mean = torch.tensor(RELEASED_MEAN).view(1, 3, 1, 1).expand(1, 3, 32, 32)
    assert seen_by_the_encoder(network, mean).abs().max() < 1e-6


def test_normalisation_is_that_of_the_named_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """One architecture may have weights of several origins, trained with other statistics."""
    tag = "tf_efficientnet_b0.ap_in1k"
    expected = timm.get_pretrained_cfg(tag).mean
    assert expected != timm.get_pretrained_cfg("tf_efficientnet_b0").mean
    make = timm.create_model
    monkeypatch.setattr(
        timm,
        "create_model",
        lambda name, **keywords: make(name, **{**keywords, "pretrained": False}),
    )
    network = DeepLabV3Plus("tf_efficientnet_b0", 3, weights=tag)
    assert network.mean.flatten().tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("encoder", "stride", "expected"),
    [
        ("resnet50", 8, [4, 8, 16]),
        ("resnet50", 16, [2, 4, 8]),
        ("resnet50s", 16, [2, 4, 8]),  # 1·2, 2·2 and 2·4 in the released code
        ("resnet50", 32, [1, 2, 4]),
    ],
)
def test_multi_grid_multiplies_the_dilation_of_the_stage(
    encoder: str, stride: int, expected: list[int]
) -> None:
    with torch.device("meta"):
        network = DeepLabV3Plus(encoder, 3, output_stride=stride, multi_grid=(1, 2, 4))
    convolutions = [block.conv2 for block in network.encoder.layer4]
    assert [c.dilation for c in convolutions] == [(d, d) for d in expected]
    assert [c.padding for c in convolutions] == [(d, d) for d in expected]


def test_multi_grid_keeps_sizes() -> None:
    network = DeepLabV3Plus("resnet18", 3, multi_grid=(2, 4)).eval()
    with torch.no_grad():
        assert network.features(image(batch=1))[1].shape == (1, 512, 4, 4)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"encoder": "resnet5o"}, "nearest: resnet50"),
        ({"encoder": "qqqq"}, r"not an encoder of timm; nearest: \w"),
        ({"encoder": "resnet18.a1_in1"}, r"available: .*resnet18\.a1_in1k"),
        ({"encoder": "vit_relpos_small_patch16_224"}, "224×224 pixels only.*resnet50"),
        ({"head": "papers"}, "one of auto, paper, light"),
        ({"normalisation": "imagenet"}, "must be encoder or as_released"),
        ({"output_stride": 7}, "must be 8, 16 or 32"),
        ({"multi_grid": (1, 2, 4)}, "needs a ResNet with 3 blocks"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(keywords: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        DeepLabV3Plus(**{"encoder": TINY, "classes": 3, **keywords})
    assert "\n" not in str(caught.value)


def test_the_parts_of_the_network_make_the_whole(model: DeepLabV3Plus) -> None:
    given = image()
    with torch.no_grad():
        low, high = model.features(given)
        fused = model.fuse(low, high)
        assert torch.equal(model.classify(fused, size=(64, 64)), model(given))
        assert torch.equal(model.decode(low, high, size=(64, 64)), model(given))
    with pytest.raises(ValueError, match="representation head"):
        model.represent(fused)


def test_a_representation_head_embeds_every_fourth_pixel() -> None:
    network = DeepLabV3Plus(TINY, 5, representation=16).eval()
    with torch.no_grad():
        embedded = network.represent(network.fuse(*network.features(image())))
    assert embedded.shape == (2, 16, 16, 16) and embedded.dtype == torch.float32
