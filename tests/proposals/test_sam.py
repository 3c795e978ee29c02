"""SAM through transformers: the true classes and processing, with tiny random weights."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from s5mars.proposals.build import Hardware, build_store
from s5mars.proposals.coco import export_json, import_json
from s5mars.proposals.store import ObjectStore
from s5mars.types import Sample

pytest.importorskip("transformers")

from s5mars.models.pretrained import digest
from s5mars.models.sam_weights import load_sam, weights_folder
from s5mars.proposals.sam import SamProposer, SamSettings

from . import tinysam

# Random masks are all over the image: only boxes that are nearly equal are doubles.
LENIENT = {"points_per_side": 5, "minimum_iou": -99.0, "minimum_stability": 0.02, "duplicate": 1.0}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("weights")
    return {family: tinysam.save(root / family, family) for family in tinysam.FAMILIES}


def settings(folder, **changes):
    return SamSettings(weights=str(folder), **{**LENIENT, **changes})


def alike(ours, others, *, least=0.98):
    """Every mask has its like: of nearly the same score and the same pixels but for rounding."""
    assert len(ours) == len(others) > 3
    for proposal in ours:
        assert any(
            abs(proposal.predicted_iou - score) < 1e-3
            and (proposal.mask & mask).sum() >= least * (proposal.mask | mask).sum()
            for score, mask in others
        )


def pairs(proposals):
    return [(p.predicted_iou, p.mask) for p in proposals]


@pytest.mark.parametrize("duplicate", [1.0, 0.97])
@pytest.mark.parametrize("family", tinysam.FAMILIES)
def test_the_masks_are_those_of_transformers_own_pipeline(folders, family, duplicate):
    from transformers import pipeline

    # For SAM 2 the pipeline has its points right only if the image is square.
    image = tinysam.picture(80, 80 if family == "sam2" else 112)

    ours = SamProposer(settings(folders[family], duplicate=duplicate), Hardware(points=7))(image)

    theirs = pipeline("mask-generation", model=str(folders[family]), device="cpu")(
        Image.fromarray(image),
        points_per_batch=7,
        points_per_crop=LENIENT["points_per_side"],
        pred_iou_thresh=LENIENT["minimum_iou"],
        stability_score_thresh=LENIENT["minimum_stability"],
        crops_nms_thresh=duplicate,
    )
    others = [
        (float(s), np.asarray(m)) for s, m in zip(theirs["scores"], theirs["masks"], strict=True)
    ]
    # The pipeline keeps masks without a pixel.
    others = [(score, mask) for score, mask in others if mask.any()]
    assert len(ours) == len(others) > 0
    np.testing.assert_allclose(
        [p.predicted_iou for p in ours], [score for score, _ in others], atol=1e-3
    )
    if duplicate == 1.0:
        alike(ours, others)


@pytest.mark.parametrize("family", tinysam.FAMILIES)
def test_batched_points_give_what_single_ones_do(folders, family):
    image = tinysam.picture(60, 90, seed=1)
    some = SamProposer(settings(folders[family]), Hardware(points=4))(image)

    alike(some, pairs(SamProposer(settings(folders[family]), Hardware(points=1))(image)))
    alike(some, pairs(SamProposer(settings(folders[family]), Hardware(points=64))(image)))
    confidences = [p.predicted_iou for p in some]
    assert confidences == sorted(confidences, reverse=True)
    assert all(p.size == (60, 90) and 0.02 < p.stability <= 1 for p in some)
    assert {p.proposer for p in some} == {"sam"}


@pytest.mark.parametrize("family", tinysam.FAMILIES)
def test_points_cover_the_whole_input(folders, family):
    proposer = SamProposer(settings(folders[family], points_per_side=8))
    inputs = proposer.processor(images=tinysam.picture(40, 80), return_tensors="pt")

    points = proposer._grid(inputs.get("reshaped_input_sizes"))

    height = tinysam.SIDE if family == "sam2" else tinysam.SIDE / 2  # SAM keeps the aspect
    np.testing.assert_allclose(points.amin(0), [tinysam.SIDE / 16, height / 16])
    np.testing.assert_allclose(points.amax(0), [15 * tinysam.SIDE / 16, 15 * height / 16])


def test_thresholds_only_remove(folders):
    image = tinysam.picture(64, 64)
    everything = SamProposer(settings(folders["sam"]))(image)
    iou = float(np.median([p.predicted_iou for p in everything]))
    stability = float(np.median([p.stability for p in everything]))

    sure = SamProposer(settings(folders["sam"], minimum_iou=iou))(image)
    stable = SamProposer(settings(folders["sam"], minimum_stability=stability))(image)

    assert sure == [p for p in everything if p.predicted_iou > iou]
    assert stable == [p for p in everything if p.stability > stability]


def test_nothing_good_is_no_proposal(folders):
    assert SamProposer(settings(folders["sam2"], minimum_iou=1e6))(tinysam.picture(64, 64)) == []


@pytest.mark.parametrize("family", tinysam.FAMILIES)
def test_the_long_side_changes_the_cost_and_hardly_the_masks(folders, family):
    image = tinysam.picture(150, 200)
    large = SamProposer(settings(folders[family], long_side=0))(image)
    small = SamProposer(settings(folders[family], long_side=100))(image)

    assert all(p.size == (150, 200) for p in small)
    best, again = large[0], small[0]
    overlap = (best.mask & again.mask).sum() / (best.mask | again.mask).sum()
    assert overlap > 0.85  # random weights exaggerate what resizing changes


def test_a_black_border_is_in_no_mask(folders):
    image = tinysam.picture(64, 96)
    image[:, :30] = 0

    found = SamProposer(settings(folders["sam"]))(image)

    assert found
    assert not any(p.mask[:, :30].any() for p in found)


def test_bf16_is_near(folders):
    image = tinysam.picture(64, 64)
    exact = SamProposer(settings(folders["sam"]))(image)
    coarse = SamProposer(settings(folders["sam"], precision="bf16"))(image)

    assert exact[0].predicted_iou == pytest.approx(coarse[0].predicted_iou, rel=0.1)
    overlap = (exact[0].mask & coarse[0].mask).sum() / (exact[0].mask | coarse[0].mask).sum()
    assert overlap > 0.9


def test_the_image_encoder_is_compiled_on_request(folders, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(type(self)))
    SamProposer(settings(folders["sam2"]), Hardware(compile=True))
    assert [kind.__name__ for kind in compiled] == ["Sam2VisionModel"]


def test_sam_2_as_it_is_published(folders, tmp_path):
    """Its config says sam2_video, and its tensors hold the tracker's, too."""
    from safetensors.torch import load_file, save_file

    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((folders["sam2"] / name).read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "sam2_video"}))
    tensors = load_file(folders["sam2"] / "model.safetensors")
    tensors["memory_encoder.projection.weight"] = torch.zeros(3)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})

    image = tinysam.picture(64, 64)
    assert SamProposer(settings(tmp_path))(image) == SamProposer(settings(folders["sam2"]))(image)


@pytest.fixture
def samples(tmp_path):
    found = []
    for k in range(3):
        path = tmp_path / "images" / f"{k}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(tinysam.picture(48, 64, seed=k)).save(path)
        found.append(Sample(name=f"{k}", image=path))
    return found


def build(samples, path, folder, **options):
    return build_store(samples, path, proposer="sam", settings=settings(folder), **options)


def content(store):
    return {name: list(store.proposals(name)) for name in sorted(store.names)}


@pytest.mark.slow
def test_any_number_of_processes_gives_the_same_store(folders, samples, tmp_path):
    one = build(samples, tmp_path / "1", folders["sam"], shard_images=2)
    two = build(samples, tmp_path / "2", folders["sam"], shard_images=2, workers=2)

    assert content(one) == content(two)
    assert one.masks > 3
    assert one.settings["family"] == "sam"
    assert one.settings["weights"] == "sam"
    assert one.settings["points_per_side"] == 5


def test_a_store_goes_on_with_the_same_weights_only(folders, samples, tmp_path):
    path = tmp_path / "store"
    build(samples[:2], path, folders["sam"])
    moved = tmp_path / "sam"
    moved.mkdir()
    for file in folders["sam"].iterdir():
        (moved / file.name).write_bytes(file.read_bytes())

    assert len(build(samples, path, moved)) == 3
    other = tinysam.save(tmp_path / "other" / "sam", "sam", seed=1)
    assert digest(other) != digest(moved)
    with pytest.raises(ValueError, match="choose another --out"):
        build(samples, path, other)


def test_masks_of_sam_survive_json(folders, samples, tmp_path):
    store = build(samples, tmp_path / "store", folders["sam_hq"])

    export_json(store, tmp_path / "json")
    again = import_json(tmp_path / "json", tmp_path / "again.parquet")

    assert content(again) == content(store)


def test_what_sams_own_generator_writes_is_read(tmp_path):
    """Its ``output_mode="coco_rle"``, with the fields that are not needed here."""
    mask = np.zeros((20, 30), bool)
    mask[4:9, 10:22] = True
    entry = {
        "segmentation": {"size": [20, 30], "counts": [204, 5] + [15, 5] * 11 + [600 - 209 - 220]},
        "area": 60, "bbox": [10, 4, 11, 4], "predicted_iou": 1.01, "stability_score": 0.98,
        "point_coords": [[15.5, 6.5]], "crop_box": [0, 0, 30, 20],
    }  # fmt: skip
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "a.json").write_text(json.dumps([entry]))

    (found,) = import_json(tmp_path / "json", tmp_path / "a.parquet").proposals("a")

    np.testing.assert_array_equal(found.mask, mask)
    assert (found.predicted_iou, found.stability, found.area) == (1.01, 0.98, 60)


def test_weights_of_another_family_are_named(folders, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(ValueError, match="weights of 'clip'; supported are sam, sam_hq, sam2"):
        weights_folder(str(tmp_path))
    # Another family's tensors under the right name.
    for name in ("model.safetensors", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((folders["sam2"] / name).read_bytes())
    (tmp_path / "config.json").write_bytes((folders["sam"] / "config.json").read_bytes())
    with pytest.raises(ValueError, match="SamModel") as caught:
        load_sam(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_processor_of_another_size_is_named(folders, tmp_path):
    for file in folders["sam"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "size": {"longest_edge": 1024}}))
    with pytest.raises(ValueError, match="resizes to 1024 pixels, but the model needs 64"):
        load_sam(tmp_path)


def test_damaged_weights_are_one_line(folders, tmp_path):
    for file in folders["sam"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot be loaded as SamModel") as caught:
        load_sam(tmp_path)
    assert "\n" not in str(caught.value)


def test_weights_that_are_no_folder(tmp_path, monkeypatch):
    (tmp_path / "sam_vit_h.pth").write_bytes(b"x")
    with pytest.raises(ValueError, match="a file; --weights needs a folder"):
        weights_folder(str(tmp_path / "sam_vit_h.pth"))
    with pytest.raises(ValueError, match=r"no config\.json"):
        weights_folder(str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no such folder; --weights needs"):
        weights_folder(str(tmp_path / "nothing"))
    (tmp_path / "config.json").write_text('{"model_type": "sam"}')
    with pytest.raises(ValueError, match=r"no \*\.safetensors"):
        weights_folder(str(tmp_path))


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch):
    import huggingface_hub

    def unreachable(*_, **__):
        raise huggingface_hub.errors.LocalEntryNotFoundError("no connection\nand more lines")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(FileNotFoundError, match=r"be downloaded from the hub \(no connection\)"):
        weights_folder("some/sam")


@pytest.mark.parametrize("name", ["some/sam--x", "some/sam..x", "some/sam.git"])
def test_an_id_that_the_hub_cannot_have_is_one_line(name):
    with pytest.raises(FileNotFoundError, match=f"{name}.*check name and network"):
        weights_folder(name)


def test_without_transformers_the_way_to_install_it_is_said(folders, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"pip install 's5mars\[sam\]'"):
        load_sam(folders["sam"])
    with pytest.raises(ValueError, match=r"pip install 's5mars\[sam\]'"):
        weights_folder("some/sam")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points_per_side": 0}, "at least 1"),
        ({"long_side": 20}, "at least 64"),
        ({"duplicate": 0.0}, "in \\(0, 1\\]"),
        ({"precision": "fp8"}, "fp32 or bf16"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(SamSettings(weights="x"), **change)
    with pytest.raises(ValueError, match="at least 1"):
        Hardware(points=0)


def test_sam_needs_weights(tmp_path, samples):
    with pytest.raises(ValueError, match="needs --weights"):
        build_store(samples, tmp_path / "s", proposer="sam")
    assert not (tmp_path / "s").exists()
    assert not list(tmp_path.glob("*.parquet"))
    with pytest.raises(FileNotFoundError):
        ObjectStore(tmp_path / "s")
