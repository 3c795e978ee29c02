"""The ONNX file answers as the network does, at every size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from s5mars.errors import UserError
from s5mars.export import graph
from s5mars.export.graph import write_onnx
from s5mars.export.parity import deviation, onnx_probabilities, parity, torch_probabilities
from ties import assert_same_labels

from .networks import THREE, TINY, network, picture

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SIZES = ((32, 32), (33, 47), (64, 64), (70, 101), (128, 96), (40, 131))


# The second pads by the size of its input, which a trace with fixed sizes would get wrong.
@pytest.mark.parametrize("encoder", [TINY, "tf_efficientnet_lite0"])
def test_probabilities_are_those_of_torch_at_any_size(tmp_path: Path, encoder: str) -> None:
    model = network(encoder)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    write_onnx(tmp_path / "a.onnx", model, THREE, temperature=1.7, facts={"format": 1})
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    images = [picture(i, *size) for i, size in enumerate(SIZES)]
    theirs = onnx_probabilities(tmp_path / "a.onnx")
    ours = torch_probabilities(model, temperature=1.7)
    found = parity(ours, theirs, images)
    assert found.worst < 5e-3 and found.mean < 1e-5 and found.images == len(SIZES)
    for image in images:
        expected, other = ours(image), theirs(image)
        assert_same_labels(other.argmax(0), expected.argmax(0), expected)
    assert len(np.unique(theirs(images[-1]).argmax(0))) > 1
    np.testing.assert_allclose(theirs(images[0]).sum(0), 1, atol=1e-5)
    graph = onnx.load(tmp_path / "a.onnx").graph
    kinds = {node.op_type for node in graph.node}
    assert not kinds & {"BatchNormalization", "Identity", "Softmax"}
    assert "Pad" not in kinds


# They resize their features to whole patches, if these are not whole.
@pytest.mark.parametrize("encoder", ["mobilevit_xxs", "mobilevitv2_050"])
def test_whole_patches_at_any_size(tmp_path: Path, encoder: str) -> None:
    model = network(encoder)
    write_onnx(tmp_path / "a.onnx", model, THREE, facts={})
    ours, theirs = torch_probabilities(model), onnx_probabilities(tmp_path / "a.onnx")
    assert max(deviation(ours, theirs, picture(0, *size)) for size in ((64, 64), (70, 101))) < 1e-3


def test_a_file_with_nan_at_one_size_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter((0.0, float("nan"), 0.0))
    monkeypatch.setattr(graph, "deviation", lambda *_: next(found))
    with pytest.raises(UserError, match="differs from torch"):
        write_onnx(tmp_path / "a.onnx", network(), THREE, facts={})


def test_a_file_that_is_right_at_one_size_only_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    model = network()
    encode = type(model).encode

    def chosen_by_size(self: Any, x: Tensor) -> Any:
        high, low = encode(self, x)
        return high, low if int(x.shape[-1]) == 131 else low.flip(-1)

    def of_fixed_size(self: Any, x: Tensor) -> Any:
        return encode(self, x + torch.zeros([int(side) for side in x.shape[-2:]]))

    path = tmp_path / "a.onnx"
    path.write_text("an earlier file")
    for computation, why in ((chosen_by_size, "differs from torch"), (of_fixed_size, "Add node")):
        monkeypatch.setattr(type(model), "encode", computation)
        with pytest.raises(UserError, match=rf"{TINY} cannot be exported to ONNX, .*{why}"):
            write_onnx(path, model, THREE, facts={})
        assert [p.name for p in tmp_path.iterdir()] == ["a.onnx"]
        assert path.read_text() == "an earlier file"
    assert "onnxruntime" not in capfd.readouterr().err


def test_several_images_at_once(tmp_path: Path) -> None:
    from s5mars.models.onnx_network import open_session

    model = network()
    write_onnx(tmp_path / "a.onnx", model, THREE, facts={})
    images = np.stack([picture(i, 50, 60) for i in range(3)])
    (found,) = open_session(tmp_path / "a.onnx").run(None, {"image": images})
    for image, one in zip(images, found, strict=True):
        np.testing.assert_allclose(one, torch_probabilities(model)(image), atol=5e-3)


def test_the_file_says_what_it_is(tmp_path: Path) -> None:
    write_onnx(tmp_path / "a.onnx", network(), THREE, temperature=2.0, facts={"seed": 7})
    (entry,) = onnx.load(tmp_path / "a.onnx").metadata_props
    about = json.loads(entry.value)
    assert entry.key == "s5mars" and about["seed"] == 7 and about["temperature"] == 2
    assert about["taxonomy"] == THREE.to_dict()
    assert [p.name for p in tmp_path.iterdir()] == ["a.onnx"]
    (output,) = onnx.load(tmp_path / "a.onnx").graph.output
    shape = [side.dim_param or side.dim_value for side in output.type.tensor_type.shape.dim]
    assert shape == ["images", len(THREE), "height", "width"]


def test_without_the_package_the_message_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ValueError, match=r"onnx is not installed.*s5mars\[export\]"):
        write_onnx(tmp_path / "a.onnx", network(), THREE, facts={})
