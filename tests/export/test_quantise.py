"""Eight bits: the same file format, nearly the same answers, ranges from images that were given."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from s5mars.evaluation.protocols import centre
from s5mars.export.graph import write_onnx
from s5mars.export.parity import onnx_probabilities, parity, seconds_per_megapixel
from s5mars.export.quantise import _quiet, quantise

from .networks import THREE, network, picture

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def test_every_convolution_has_eight_bits_and_answers_stay_near(tmp_path: Path) -> None:
    single, eight = tmp_path / "single.onnx", tmp_path / "eight.onnx"
    write_onnx(single, network(), THREE, facts={"format": 1})
    images = [picture(seed, 96, 96) for seed in range(6)]
    quantise(single, eight, images)
    proto = onnx.load(eight)
    made_by = {name: node.op_type for node in proto.graph.node for name in node.output}
    convolutions = [node for node in proto.graph.node if node.op_type == "Conv"]
    assert len(convolutions) > 30
    assert {made_by.get(node.input[1]) for node in convolutions} == {"DequantizeLinear"}
    int8 = [w for w in proto.graph.initializer if w.data_type == onnx.TensorProto.INT8]
    assert len(int8) >= len(convolutions)
    assert eight.stat().st_size < 0.5 * single.stat().st_size
    assert proto.metadata_props == onnx.load(single).metadata_props
    assert proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value == len(THREE)
    one, other = onnx_probabilities(single), onnx_probabilities(eight)
    found = parity(one, other, [picture(9, 70, 101), *images[:2]])
    assert found.equal > 0.6 and 0 < found.mean < 0.2
    assert len(seconds_per_megapixel([one, other], images[0], rounds=1)) == 2


def test_no_image_is_refused_and_large_ones_are_cut(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs calibration images"):
        quantise(tmp_path / "a.onnx", tmp_path / "b.onnx", [])
    image = picture(0, 100, 40)
    assert np.array_equal(centre(image, 50), image[25:75])
    assert centre(image, 200).shape == image.shape


def test_advice_of_onnxruntime_leaves_no_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    """It printed the later warnings of the command as ``WARNING:s5mars:...``."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # as in a program, without pytest's
    with _quiet():
        logging.warning("Please consider to run pre-processing before quantization.")
    assert logging.getLogger().handlers == []
