"""SAM-CLS: a frozen encoder, images prepared as SAM's own processor does it, features kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from proposals import tinysam
from s5mars.classes import Class, Taxonomy
from s5mars.models.checkpoint import load_model, save_model
from s5mars.models.sam_cls import SamCls, sam_cls
from s5mars.models.sam_weights import load_sam

pytest.importorskip("transformers")
THREE = Taxonomy("three", tuple(Class(name, (i, 0, 0)) for i, name in enumerate("abc")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tinysam.save(tmp_path_factory.mktemp("sam"), "sam")


def pictures(height: int, width: int, *, seeds: tuple[int, ...] = (0, 1)) -> torch.Tensor:
    stack = np.stack([tinysam.picture(height, width, seed=s) for s in seeds])
    return torch.from_numpy(stack).permute(0, 3, 1, 2)


class Counted:
    """How often the encoder ran."""

    def __init__(self, network: SamCls) -> None:
        self.runs = 0
        network.encoder.register_forward_hook(self._add)

    def _add(self, *_: object) -> None:
        self.runs += 1


@pytest.mark.parametrize("size", [(64, 64), (40, 90), (200, 130)])
def test_any_size_gives_logits(folder: Path, size: tuple[int, int]) -> None:
    logits = sam_cls(str(folder), 3)(pictures(*size))
    assert logits.shape == (2, 3, *size) and logits.dtype == torch.float32


def test_logits_lie_where_their_features_do(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """80 of 84 rows: the sixth cell of 14 pixels ends in the padding."""
    network = sam_cls(str(folder), 1)
    row = torch.arange(6.0)[:, None].expand(1, 1, 6, 8)  # its number at each cell
    monkeypatch.setattr(network, "features", lambda image: row)
    network.decoder, network.classifier = torch.nn.Identity(), torch.nn.Identity()  # type: ignore[assignment]
    found = network(torch.zeros(1, 3, 80, 112, dtype=torch.uint8))[0, 0, :, 0]
    expected = ((torch.arange(80) + 0.5) / 14 - 0.5).clamp(0, 5)
    torch.testing.assert_close(found, expected)


def test_features_are_those_of_sams_own_preparation(folder: Path) -> None:
    network, given = sam_cls(str(folder), 3), pictures(80, 112, seeds=(3,))
    model, processor = load_sam(folder)
    pixels = processor(images=given[0].permute(1, 2, 0).numpy(), return_tensors="pt")
    theirs = model.get_image_embeddings(pixels["pixel_values"])[0]
    ours = network.features(given)[0]
    rows = ours.shape[1]
    assert ours.shape[1:] == (6, 8)  # 46 of 64 rows: six patches of eight, without the padding
    # They round the resized bytes; a random network makes much of the last bit.
    difference = (ours - theirs[:, :rows]).norm() / theirs[:, :rows].norm()
    assert difference < 0.1


def test_the_second_time_nothing_is_encoded(folder: Path, tmp_path: Path) -> None:
    given = pictures(64, 80)
    bare, cached = sam_cls(str(folder), 3), sam_cls(str(folder), 3, cache=tmp_path)
    counted = Counted(cached)
    first = cached.features(given)
    assert counted.runs == 2
    assert torch.equal(first, cached.features(given)) and counted.runs == 2
    assert torch.equal(first, bare.features(given))
    assert torch.equal(first[:1], bare.features(given[:1]))  # whatever the batch is
    again = sam_cls(str(folder), 3, cache=tmp_path)
    counted = Counted(again)
    assert torch.equal(first, again.features(given)) and counted.runs == 0
    given[0, 0, 0, 0] ^= 1  # another image
    again.features(given)
    assert counted.runs == 1


def test_a_damaged_file_is_made_anew_and_other_weights_have_their_own(
    folder: Path, tmp_path: Path
) -> None:
    cache, given = tmp_path / "cache", pictures(64, 64)
    first = sam_cls(str(folder), 3, cache=cache).features(given)
    files = sorted(cache.rglob("*.safetensors"))
    assert len(files) == 2
    files[0].write_bytes(b"half a file")
    assert torch.equal(first, sam_cls(str(folder), 3, cache=cache).features(given))
    other = sam_cls(str(tinysam.save(tmp_path / "sam", "sam", seed=1)), 3, cache=cache)
    assert not torch.equal(first, other.features(given))
    assert len(list(cache.iterdir())) == 2


def test_another_preparation_of_images_has_features_of_its_own(
    folder: Path, tmp_path: Path
) -> None:
    cache, given = tmp_path / "cache", pictures(64, 80)
    sam_cls(str(folder), 3, cache=cache).features(given)
    other = Path(shutil.copytree(folder, tmp_path / "sam"))
    processor = other / "preprocessor_config.json"
    facts = json.loads(processor.read_text())
    processor.write_text(json.dumps(facts | {"image_mean": [0.1, 0.2, 0.3]}))
    expected = sam_cls(str(other), 3).features(given)
    assert torch.equal(sam_cls(str(other), 3, cache=cache).features(given), expected)


def test_the_encoder_is_frozen(folder: Path) -> None:
    network = sam_cls(str(folder), 3).train()
    assert not network.encoder.training and network.decoder.training
    assert not any(p.requires_grad for p in network.encoder.parameters())
    network(pictures(64, 64)).sum().backward()
    assert all(p.grad is None for p in network.encoder.parameters())
    assert network.classifier.weight.grad is not None


def test_a_checkpoint_holds_everything(folder: Path, tmp_path: Path) -> None:
    network = sam_cls(str(folder), 3)
    save_model(tmp_path / "best.safetensors", {"student": network}, taxonomy=THREE, training={})
    loaded = load_model(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(pictures(50, 70)), network(pictures(50, 70)))


def test_sam_2_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'sam2'; supported are sam, sam_hq"):
        sam_cls(str(tinysam.save(tmp_path, "sam2")), 3)
