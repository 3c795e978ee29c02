"""Licences of encoders are shown, agreed to where they must be, and passed on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tinyvit
from s5mars.classes import Class, Taxonomy
from s5mars.export.push import write_folder
from s5mars.models.build import build_segmenter
from s5mars.models.checkpoint import save_model
from s5mars.models.licences import (
    DINOV3,
    Licence,
    as_facts,
    from_facts,
    licence_of,
    require_agreement,
)

assert tinyvit.VITS


@pytest.mark.parametrize(
    ("model", "weights", "identifier"),
    [
        ("vit_small_patch14_dinov2", "auto", "apache-2.0"),
        ("vit_small_patch14_dinov2", "facebook/dinov2-small", "apache-2.0"),
        ("vit_small_patch14_dinov2", "none", None),
        ("vit_small_patch16_dinov3", "auto", DINOV3),
        ("vit_small_patch16_dinov3", "a.safetensors", DINOV3),
        ("vit_small_patch16_dinov3", "none", None),
        ("convnext_tiny", "convnext_tiny.dinov3_lvd1689m", DINOV3),
        ("convnext_tiny", "facebook/dinov3-convnext-tiny-pretrain-lvd1689m", DINOV3),
        ("convnext_tiny", "a.safetensors", None),  # its weights have several
        ("vit_base_patch16_224", "vit_base_patch16_224.mae", "cc-by-nc-4.0"),
        ("tf_efficientnet_lite0", "auto", None),
    ],
)
def test_the_licence_of_weights(model: str, weights: str, identifier: str | None) -> None:
    found = licence_of(model, weights)
    assert (found and found.identifier) == identifier
    assert bool(found and found.terms) == (identifier == DINOV3)


def test_a_folder_of_dinov3_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "dinov3_convnext"}')
    found = licence_of("convnext_tiny", str(tmp_path))
    assert found is not None and found.passes_on


def test_what_must_be_agreed_to_is_asked_for() -> None:
    dinov3 = licence_of("vit_small_patch16_dinov3", "auto")
    with pytest.raises(ValueError, match=f"ITAR.*same licence.*--accept-licence {DINOV3}") as said:
        require_agreement(dinov3, "")
    assert "\n" not in str(said.value)
    with pytest.raises(ValueError, match=DINOV3):
        require_agreement(dinov3, "yes")
    require_agreement(dinov3, DINOV3)
    require_agreement(Licence("apache-2.0"), "")
    for other in (None, Licence("apache-2.0")):
        with pytest.raises(ValueError, match="need no agreement; leave it out"):
            require_agreement(other, DINOV3)


def test_the_words_for_the_user() -> None:
    assert str(Licence("apache-2.0")) == "encoder licence: apache-2.0"
    assert "forbids commercial use" in str(Licence("cc-by-nc-4.0"))
    assert "ITAR" in str(licence_of("vit_small_patch16_dinov3", "auto"))


TWO = Taxonomy("two", (Class("soil", (0, 0, 0)), Class("rock", (9, 9, 9))))


def run_from(folder: Path, licence: Licence | None) -> Path:
    """The folder of a run whose encoder had weights under a licence."""
    facts = {"encoder_licence": json.loads(json.dumps(as_facts(licence)))}
    network = build_segmenter("tiny_patch16_dinov3", 2, head="linear")
    save_model(folder / "best.safetensors", {"student": network}, taxonomy=TWO, training=facts)
    return folder


def test_the_terms_go_into_the_card_and_the_text_goes_along(tmp_path: Path) -> None:
    run = run_from(tmp_path / "run", licence_of("tiny_patch16_dinov3", "a.safetensors"))
    assert json.loads((run / "best.json").read_text())["training"]["encoder_licence"]
    text = tmp_path / "terms.txt"
    text.write_text("what Meta wrote")
    with pytest.raises(ValueError, match="allows no other licence"):
        write_folder(run, "me/mars", tmp_path / "a", licence="apache-2.0", licence_file=text)
    with pytest.raises(ValueError, match=r"must be shared with the weights; give --licence-file"):
        write_folder(run, "me/mars", tmp_path / "a")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.md: no such file"):
        write_folder(run, "me/mars", tmp_path / "a", licence_file=tmp_path / "nowhere.md")
    assert not (tmp_path / "a").exists()
    write_folder(run, "me/mars", tmp_path / "a", licence_file=text)
    assert (tmp_path / "a" / "LICENSE.md").read_text() == "what Meta wrote"
    card = (tmp_path / "a" / "README.md").read_text()
    assert f"license: other\nlicense_name: {DINOV3}\nlicense_link: LICENSE.md\n" in card
    assert "ITAR" in card and "under the same licence only" in card


@pytest.mark.parametrize(
    ("licence", "words"),
    [(None, ""), (Licence("cc-by-nc-4.0"), "cc-by-nc-4.0, which forbids commercial use")],
)
def test_other_licences_are_told(tmp_path: Path, licence: Licence | None, words: str) -> None:
    write_folder(run_from(tmp_path / "run", licence), "me/mars", tmp_path / "a", licence="mit")
    card = (tmp_path / "a" / "README.md").read_text()
    assert "license: mit\n" in card and words in card
    assert ("The encoder was initialised with" in card) == bool(words)
    assert from_facts({"encoder_licence": as_facts(licence)}) == licence
