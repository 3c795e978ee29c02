"""Files that are no export are refused in words."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path

import pytest

import s5mars
from s5mars.errors import DamagedFileError
from s5mars.models.onnx_network import OnnxNetwork, open_session
from s5mars.models.opened import result_path

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def write(path: Path, metadata: dict[str, str]) -> Path:
    """An ONNX file that hands its input on."""
    helper, number = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Identity", ["image"], ["probabilities"])],
        "nothing",
        [helper.make_tensor_value_info("image", number, [1])],
        [helper.make_tensor_value_info("probabilities", number, [1])],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(proto, metadata)
    onnx.save(proto, path)
    return path


def test_what_is_no_export_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.onnx"):
        s5mars.load(tmp_path / "nowhere.onnx")
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.onnx: damaged ONNX file"):
        s5mars.load(tmp_path / "text.onnx")
    with pytest.raises(ValueError, match="not written by `s5mars export`"):
        s5mars.load(write(tmp_path / "other.onnx", {}))
    with pytest.raises(ValueError, match=r"broken\.onnx: damaged description"):
        s5mars.load(write(tmp_path / "broken.onnx", {"s5mars": "{"}))
    with pytest.raises(ValueError, match="format 9, this version reads 1"):
        s5mars.load(write(tmp_path / "newer.onnx", {"s5mars": '{"format": 9}'}))
    facts = {"format": 1, "network": "teacher", "taxonomy": {}, "model": {}, "training": {}}
    for bad in ({"calibration": [1]}, {"calibration": {"teacher": 2}}, {"taxonomy": [1]}):
        hurt = write(tmp_path / "hurt.onnx", {"s5mars": json.dumps(facts | bad)})
        with pytest.raises(DamagedFileError, match=r"hurt\.onnx: damaged"):
            s5mars.load(hurt)
    teacher = write(tmp_path / "teacher.onnx", {"s5mars": json.dumps(facts)})
    with pytest.raises(ValueError, match="--network student"):
        s5mars.load(teacher, network="student")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r"onnxruntime is not installed.*s5mars\[export\]"):
        s5mars.load(teacher)


def test_files_about_a_model_have_their_place(tmp_path: Path) -> None:
    assert result_path(tmp_path, "a.json") == tmp_path / "a.json"
    assert result_path(tmp_path / "best.safetensors", "a.json") == tmp_path / "a.json"
    assert result_path(tmp_path / "m.int8.onnx", "a.json") == tmp_path / "m.int8.a.json"
    assert result_path("hf:me/mars", "a.json") == Path("me_mars.a.json")


def test_a_network_travels_by_its_file_and_says_which_one_it_is(tmp_path: Path) -> None:
    path = write(tmp_path / "a.onnx", {})
    network = OnnxNetwork(path, session=open_session(path), temperature=1.5)
    travelled = pickle.loads(pickle.dumps(network))
    assert (travelled.path, travelled.temperature) == (path, 1.5)
    assert travelled.session.get_inputs()[0].name == "image"
    other = write(tmp_path / "b.onnx", {"s5mars": "{}"})
    assert network.fingerprint == travelled.fingerprint
    assert OnnxNetwork(other, session=None, temperature=1.5).fingerprint != network.fingerprint
