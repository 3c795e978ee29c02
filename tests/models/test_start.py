"""Starting from a model: what fits is taken, what does not is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from s5mars.classes import Class, Taxonomy
from s5mars.errors import MissingFileError, UserError
from s5mars.methods.supervised import Supervised
from s5mars.models.build import build_segmenter
from s5mars.models.checkpoint import save_model
from s5mars.models.deeplab import DeepLabV3Plus
from s5mars.models.licences import DINOV3, as_facts, licence_of
from s5mars.models.segmenter import Segmenter
from s5mars.models.start import starting_network
from s5mars.models.weights import load_encoder_weights
from s5mars.settings.config import TrainConfig
from s5mars.settings.networks import DeepLabOptions

TINY = "mobilenetv3_small_050"


def taxonomy(*names: str) -> Taxonomy:
    return Taxonomy("some", tuple(Class(name, (i, 0, 0)) for i, name in enumerate(names)))


GIVEN = taxonomy("soil", "Big_rock", "sand")


def network(seed: int) -> DeepLabV3Plus:
    torch.manual_seed(seed)
    made = DeepLabV3Plus(TINY, len(GIVEN), normalisation="as_released")
    made.train()(torch.rand(2, 3, 64, 64))  # running statistics that a new network lacks
    return made.eval()


STUDENT, TEACHER = network(1), network(2)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start") / "a"
    networks = {"student": STUDENT, "teacher": TEACHER}
    save_model(folder / "best.safetensors", networks, taxonomy=GIVEN, training={})
    return folder


def config(run: Path | str, **changes: object) -> TrainConfig:
    made = TrainConfig(
        data=Path("data"), out=Path("out"), method="supervised", steps=1, model=TINY,
        network=DeepLabOptions(normalisation="as_released"), start_from=str(run),
    )  # fmt: skip
    return replace(made, **changes)


def started(run: Path | str, names: Taxonomy = GIVEN, **changes: object) -> DeepLabV3Plus:
    torch.manual_seed(9)
    made = starting_network(config(run, **changes), Supervised(), names)
    assert isinstance(made, DeepLabV3Plus)
    return made.eval()


def equal(one: nn.Module, other: nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(
        torch.equal(ours[key], theirs[key]) for key in ours if "num_batches" not in key
    )


@pytest.mark.parametrize("file", ["", "best.safetensors"])
def test_the_same_classes_give_the_same_network(run: Path, file: str) -> None:
    made = started(run / file)
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(made(image), TEACHER(image))
    assert "copied classes: soil, Big_rock, sand" in str(made.weights_report)
    assert str(run) not in str(made.weights_report)  # shared records name no folder
    assert made.weights_report.details == [f"read from {run / file}"]


def test_rows_of_the_classifier_follow_the_names(run: Path) -> None:
    made = started(run, taxonomy("gravel", "sand", "big rock"))
    for part in ("weight", "bias"):
        ours, theirs = getattr(made.classifier, part), getattr(TEACHER.classifier, part)
        assert torch.equal(ours[[1, 2]], theirs[[2, 1]])
        assert not (ours[0] == theirs[0]).all()
    said = str(made.weights_report)
    assert "copied classes: sand, big rock; random classes: gravel" in said


def test_a_decoder_of_another_shape_stays_at_random(run: Path) -> None:
    made = started(run, network=DeepLabOptions(decoder="paper", normalisation="as_released"))
    assert equal(made.encoder, TEACHER.encoder)
    assert "random: decoder (pyramid, low_level, decoder)" in str(made.weights_report)
    assert "random classes: soil, Big_rock, sand" in str(made.weights_report)


def test_the_normalisation_is_that_of_the_run(run: Path) -> None:
    assert torch.equal(started(run).std, TEACHER.std)
    assert not torch.equal(started(run, network=DeepLabOptions()).std, TEACHER.std)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "test_resnet"}, f"has the encoder {TINY}, but this run has test_resnet"),
        ({"weights": "some.pth"}, "leave out --weights some.pth"),
    ],
)
def test_what_does_not_go_together(run: Path, changes: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        started(run, **changes)


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="nowhere does not exist"):
        started(tmp_path / "nowhere")


def test_weights_takes_the_encoder_out_of_a_checkpoint(run: Path) -> None:
    encoder = DeepLabV3Plus(TINY, 2).encoder
    report = load_encoder_weights(encoder, TINY, weights=str(run / "best.safetensors"))
    assert equal(encoder, TEACHER.encoder)
    assert report.matched == report.total


@pytest.mark.parametrize("head", ["dpt", "linear"])
def test_other_decoders_and_adapters(tmp_path: Path, head: str) -> None:
    pytest.importorskip("peft")
    torch.manual_seed(3)
    given = build_segmenter("test_vit", 3, head=head).eval()
    licence = licence_of("vit_small_patch16_dinov3", "auto")
    save_model(
        tmp_path / "best.safetensors", {"student": given}, taxonomy=GIVEN,
        training={"encoder_licence": as_facts(licence)},
    )  # fmt: skip
    settings = {"model": "test_vit", "head": head, "lora": 2, "network": DeepLabOptions()}
    with pytest.raises(UserError, match=f"--accept-licence {DINOV3}"):
        starting_network(config(tmp_path, **settings), Supervised(), GIVEN)
    agreed = config(tmp_path, **settings, accept_licence=DINOV3)
    made = starting_network(agreed, Supervised(), GIVEN).eval()
    image = torch.rand(1, 3, 40, 50)
    with torch.no_grad():
        assert torch.equal(made(image), given(image))  # adapters begin as nothing
    assert "copied classes: soil, Big_rock, sand" in str(made.weights_report)
    assert isinstance(made, Segmenter) and made.licence == licence
    # Under another decoder only the encoder fits.
    other = replace(agreed, head="deeplab", lora=0)
    report = str(starting_network(other, Supervised(), GIVEN).weights_report)
    assert "random: decoder (pyramid, low_level, decoder)" in report
    assert "random classes: soil, Big_rock, sand" in report
