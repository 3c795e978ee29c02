"""Quantise weights and activations to eight bits, with ranges measured on the user's images.

Static post-training quantisation in QDQ format: int8 weights with one scale per channel, uint8
activations (fastest on x86 processors with VNNI). Normalisation, the last upsampling and the
softmax stay in float: they are few operations, and the probabilities keep their resolution.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s5mars.errors import UserError, needed
from s5mars.files import replacing
from s5mars.models.onnx_network import INPUT, METADATA_KEY

QUANTISED = ("Conv", "Add", "Concat", "Resize", "GlobalAveragePool", "ReduceMean", "MaxPool",
             "Clip", "Relu", "Expand", "Mul", "HardSigmoid", "HardSwish", "Sigmoid")  # fmt: skip
"""Operators that are quantised, before the last upsampling."""


def quantise(source: Path, target: Path, images: Sequence[NDArray[np.uint8]]) -> None:
    """Write an int8 copy of an ONNX file of ``write_onnx``, with its metadata.

    Args:
        source: the float32 file.
        images: each (H, W, 3) uint8 RGB, H and W at least 32, typical of later use.

    Raises:
        UserError: if there is no image, or onnx or onnxruntime is not installed.
    """
    if not images:
        raise UserError("--int8 needs calibration images; give a folder with --images")
    onnx = needed("onnx", extra="export")
    quantization = needed("onnxruntime.quantization", extra="export")
    graph = onnx.load(source).graph
    inputs = ({INPUT: image[None]} for image in images)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, _quiet():
        written = Path(scratch) / "int8.onnx"
        quantization.quantize_static(
            str(source),
            str(written),
            SimpleNamespace(get_next=lambda: next(inputs, None)),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            op_types_to_quantize=list(QUANTISED),
            nodes_to_exclude=_kept_in_float(graph),
        )
        proto = onnx.load(written)
    known = {entry.key: entry.value for entry in onnx.load(source).metadata_props}
    onnx.helper.set_model_props(proto, {METADATA_KEY: known[METADATA_KEY]})
    with replacing(target) as temporary:
        onnx.save(proto, temporary)


def _kept_in_float(graph: Any) -> list[str]:
    """Names of the nodes before the first convolution and from the last upsampling."""
    kinds = [node.op_type for node in graph.node]
    first = kinds.index("Conv")
    last = len(kinds) - 1 - kinds[::-1].index("Resize")
    return [node.name for node in [*graph.node[:first], *graph.node[last:]]]


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the advice to preprocess the file, which files of `write_onnx` do not need.

    onnxruntime gives it with `logging.warning`, which adds a handler to the root logger of a
    program without one; the handler would print every later warning of s5mars in its own format.
    """
    root = logging.getLogger()
    before, handlers = root.level, list(root.handlers)
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)
        root.handlers[:] = handlers
