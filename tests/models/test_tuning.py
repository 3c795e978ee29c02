"""How an encoder is trained: frozen with cached features, adapted, or layer by layer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import tinyvit
from s5mars.classes import Class, Taxonomy
from s5mars.methods.supervised import Supervised
from s5mars.models.build import build_segmenter, check_network
from s5mars.models.checkpoint import load_model, save_model
from s5mars.models.segmenter import Segmenter
from s5mars.models.tuning import add_adapters, check_tuning, describe_network, layer_rates, tune
from s5mars.settings.config import TrainConfig

VIT = "tiny_patch14_dinov2"
TWO = Taxonomy("two", (Class("soil", (0, 0, 0)), Class("rock", (9, 9, 9))))
assert tinyvit.VITS


def image(seed: int, *, batch: int = 2) -> Tensor:
    drawn = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, 3, 30, 41), generator=drawn, dtype=torch.uint8)


def config(**settings: object) -> TrainConfig:
    base = {"data": Path("d"), "out": Path("o"), "steps": 5, "model": VIT, "crop": 42}
    return TrainConfig(**base | settings)  # type: ignore[arg-type]


class Counted:
    """Counts the images that the encoder of a network sees."""

    def __init__(self, network: Segmenter) -> None:
        self.images = 0
        network.encoder.register_forward_pre_hook(self)

    def __call__(self, module: object, inputs: tuple[Tensor]) -> None:
        self.images += len(inputs[0])


@pytest.mark.parametrize("head", ["deeplab", "dpt", "linear"])
def test_features_of_a_frozen_encoder_are_computed_once(tmp_path: Path, head: str) -> None:
    torch.manual_seed(0)
    network = build_segmenter(VIT, 2, head=head).train()
    exact = network.features(image(0))
    network.freeze(cache=tmp_path)
    counted = Counted(network)
    first = network.features(image(0))
    assert counted.images == 2
    again = network.features(image(0))
    single = network.features(image(0)[1:])
    assert counted.images == 2
    for kept, cached, one, plain in zip(first, again, single, exact, strict=True):
        assert torch.equal(kept, cached) and torch.equal(kept[1:], one)  # whatever the batch is
        torch.testing.assert_close(kept, plain, atol=5e-3, rtol=5e-3)  # rounded to half precision
        assert not kept.requires_grad
    network.features(image(0).flip(-1))
    assert counted.images == 4  # flips are images of their own
    # Views that were changed are computed, and nothing of them is stored.
    files = sorted(tmp_path.rglob("*.safetensors"))
    network.features(image(0).float() / 255 * 0.99)
    assert counted.images == 6 and sorted(tmp_path.rglob("*.safetensors")) == files
    assert len(files) == 4
    # A damaged file is computed again.
    files[0].write_bytes(b"")
    network.features(image(0)), network.features(image(0).flip(-1))
    assert counted.images == 7


def test_other_weights_or_another_decoder_have_features_of_their_own(tmp_path: Path) -> None:
    folders = []
    for seed, head in ((0, "dpt"), (1, "dpt"), (0, "linear"), (0, "dpt")):
        torch.manual_seed(seed)
        network = build_segmenter(VIT, 2, head=head)
        network.freeze(cache=tmp_path)
        network.features(image(0))
        folders.append(len(list(tmp_path.iterdir())))
    assert folders == [1, 2, 3, 3]


def test_weights_that_are_loaded_later_count(tmp_path: Path) -> None:
    """A resumed run builds its network with random weights and loads its checkpoint afterwards."""
    torch.manual_seed(0)
    trained, resumed = build_segmenter(VIT, 2), build_segmenter(VIT, 2)
    for network in (trained, resumed):
        network.freeze(cache=tmp_path)
    expected = trained.features(image(0))
    resumed.load_state_dict(trained.state_dict())
    counted = Counted(resumed)
    for ours, theirs in zip(resumed.features(image(0)), expected, strict=True):
        assert torch.equal(ours, theirs)
    assert counted.images == 0


def test_a_network_that_is_frozen_again_uses_the_new_folder(tmp_path: Path) -> None:
    network = build_segmenter(VIT, 2)
    for name in ("first", "second"):
        network.freeze(cache=tmp_path / name)
        network.features(image(0))
    assert len(list((tmp_path / "second").rglob("*.safetensors"))) == 2


def lively(encoder: str, *, biases: float = 0.0) -> Segmenter:
    """A network whose blocks matter, which begin nearly as nothing, and whose biases may, too."""
    pytest.importorskip("peft")
    torch.manual_seed(0)
    network = build_segmenter(encoder, 2, head="linear").eval()
    for name, parameter in network.encoder.named_parameters():
        if "gamma" in name:
            torch.nn.init.ones_(parameter)
        elif "_bias" in name:
            torch.nn.init.normal_(parameter, std=biases)
    return network


@pytest.mark.parametrize("encoder", [VIT, "tiny_patch16_dinov3", "tiny_patch16_dinov3_qkvb"])
def test_adapters_begin_as_nothing_and_are_merged_when_shared(tmp_path: Path, encoder: str) -> None:
    network, given = lively(encoder), image(1)
    with torch.no_grad():
        before = network(given)
        add_adapters(network, 2)
        assert torch.equal(network.eval()(given), before)
    trained = [name for name, p in network.encoder.named_parameters() if p.requires_grad]
    assert trained and all(".lora_" in name for name in trained)
    assert network.classifier.weight.requires_grad  # type: ignore[union-attr]
    with torch.no_grad():
        for name, parameter in network.encoder.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(std=0.5)
        after = network(given)
    assert not torch.allclose(after, before, atol=1e-4)
    save_model(tmp_path / "best.safetensors", {"student": network}, taxonomy=TWO, training={})
    loaded = load_model(tmp_path).model
    assert not any("lora" in key for key in loaded.state_dict())
    torch.testing.assert_close(loaded(given), after, atol=1e-5, rtol=1e-4)
    assert any("lora" in key for key in network.state_dict())  # it goes on training


@pytest.mark.parametrize("encoder", [VIT, "tiny_patch16_dinov3_qkvb", "tiny_swin", "tiny_swinv2"])
def test_every_adapter_learns(encoder: str) -> None:
    network, given = lively(encoder, biases=1.0), image(1)
    with torch.no_grad():
        before = network(given)
        add_adapters(network, 2)
        torch.testing.assert_close(network.eval()(given), before)
    network(given).square().mean().backward()
    adapters = {n: p for n, p in network.encoder.named_parameters() if ".lora_" in n}
    assert adapters and [name for name, p in adapters.items() if p.grad is None] == []


def test_an_attention_that_would_not_call_its_adapters_is_refused() -> None:
    pytest.importorskip("peft")
    network = build_segmenter("tiny_patch16_dinov3_qkvb", 2, head="linear")
    for module in network.encoder.modules():
        vars(module).pop("qkv_bias_separate", None)  # as in early versions of timm
    with pytest.raises(ValueError, match=r"--lora cannot be used with tiny_patch16_dinov3_qkvb"):
        add_adapters(network, 2)


def test_earlier_layers_learn_more_slowly() -> None:
    network = build_segmenter(VIT, 2, head="linear")
    rates = layer_rates(network, 0.1, 0.5)
    model = network.encoder.model
    assert len(rates) == len(list(network.encoder.parameters()))
    of_blocks = [rates[block.norm1.weight] for block in reversed(model.blocks)]
    assert of_blocks == pytest.approx([0.1 * 0.5**k for k in range(4)])
    assert rates[model.norm.weight] == of_blocks[0]
    assert rates[model.pos_embed] == rates[model.patch_embed.proj.weight] < of_blocks[-1]
    plain = layer_rates(build_segmenter("test_resnet", 2), 0.1, 1.0)
    assert set(plain.values()) == {0.1}
    assert layer_rates(torch.nn.Linear(1, 1), 0.1, 0.5) == {}


def test_gradient_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for saving in (False, True):
        torch.manual_seed(0)
        network = build_segmenter(VIT, 2, head="linear")
        tune(network, config(gradient_checkpointing=saving))
        assert network.encoder.model.grad_checkpointing is saving
        network(image(2)).square().mean().backward()
        gradients.append([p.grad for p in network.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_what_a_run_says_of_its_network(tmp_path: Path) -> None:
    network = build_segmenter(VIT, 2)
    lines = describe_network(network, config(crop=50))
    assert lines[0].startswith(f"network: {VIT} with head DPT; 0.0")
    assert "crops of 50 pixels are padded to 56, a multiple of 14; --crop 56" in lines[1]
    frozen = config(freeze="encoder", feature_cache=tmp_path)
    tune(network, frozen)
    said = describe_network(network, frozen)
    assert "0.00 M parameters of the encoder" in said[0] and str(tmp_path) in said[1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"freeze": "encoder", "lora": 4}, "--lora has no effect with --freeze encoder"),
        ({"freeze": "encoder", "drop_path": 0.1}, "--drop-path has no effect"),
        ({"freeze": "encoder", "freeze_norm": True}, "--freeze-norm has no effect"),
        ({"freeze": "encoder", "layer_decay": 0.9}, "--layer-decay has no effect"),
        ({"freeze": "encoder", "encoder_rate": 0.025}, "--encoder-rate has no effect"),
        (
            {"freeze": "encoder", "encoder_rate": 0.5, "recipe": "vit"},
            "--encoder-rate has no effect",
        ),
        ({"freeze": "encoder", "scale": (0.9, 1.1)}, "cannot be combined with tiles"),
        ({"crops": "tiles", "scale": (0.9, 1.1)}, "cannot be combined with tiles"),
        ({"feature_cache": Path("f")}, "--feature-cache requires --freeze encoder"),
        (
            {"feature_cache": Path("f"), "freeze": "encoder", "crops": "random"},
            "--feature-cache cannot be combined with --crops random",
        ),
    ],
)
def test_settings_that_contradict_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_network(config(**settings), Supervised())


def test_a_frozen_encoder_may_have_the_rate_of_its_recipe() -> None:
    check_tuning(config(freeze="encoder", recipe="vit", encoder_rate=0.025))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lora": 2, "model": "test_resnet"}, "--lora needs an encoder with attention"),
        ({"layer_decay": 0.9, "model": "test_resnet"}, "--layer-decay needs an encoder"),
        (
            {"gradient_checkpointing": True, "model": "test_resnet"},
            "update the batch statistics of test_resnet twice",
        ),
        ({"freeze_norm": True, "model": VIT}, f"--freeze-norm has no effect with --model {VIT}"),
    ],
)
def test_encoders_that_do_not_fit_are_named(settings: dict[str, object], message: str) -> None:
    if "lora" in settings:
        pytest.importorskip("peft")
    with pytest.raises(ValueError, match=message):
        tune(build_segmenter(str(settings["model"]), 2), config(**settings))
