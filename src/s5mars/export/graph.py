"""Write a network as an ONNX file, with any image size and calibrated probabilities.

The file is made by tracing (``torch.onnx.export(dynamo=False)``), because a trace records sizes as
tensors. Some encoders pad according to the size of their input (TensorFlow's "same"); the newer
exporter, with symbolic sizes, needs minutes for such a network and one more package, and does not
fold batch normalisation. Here this padding becomes ONNX's ``SAME_UPPER``.
"""

from __future__ import annotations

import copy
import io
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import pad_same
from torch import Tensor, nn

from s5mars.classes import Taxonomy
from s5mars.errors import UserError, first_line, needed
from s5mars.export.parity import deviation, onnx_probabilities, torch_probabilities
from s5mars.export.tracing import traceable
from s5mars.files import replacing
from s5mars.models.onnx_network import INPUT, METADATA_KEY, OUTPUT
from s5mars.models.segmenter import Segmenter
from s5mars.randomness import generator

CHECKED_SIZES = ((64, 96), (150, 117), (193, 130))
"""Sizes at which a file is compared with torch: even ones, odd ones, below and above the traced."""

LARGEST_DEVIATION = 0.01
"""Largest accepted ``deviation``; correct files of more than 30 encoders have at most 1e-4."""

OPSET = 17
"""Operator set of ONNX 1.12 (2022), supported by runtimes of small devices."""


class Deployed(nn.Module):
    """The exported computation: normalisation, network, class biases, temperature, softmax."""

    scale: Tensor
    shift: Tensor
    biases: Tensor | None

    def __init__(
        self, model: Segmenter, *, temperature: float, class_biases: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.temperature = temperature
        # (x / 255 - mean) / std as one multiplication and one addition.
        self.register_buffer("scale", 1 / (255 * model.std))
        self.register_buffer("shift", -model.mean / model.std)
        biases = None if class_biases is None else torch.tensor(class_biases).view(1, -1, 1, 1)
        self.register_buffer("biases", biases)

    def forward(self, image: Tensor) -> Tensor:
        """(N, H, W, 3) uint8 → (N, C, H, W) float32 probabilities."""
        scaled = image.permute(0, 3, 1, 2).float() * self.scale + self.shift
        size = (image.shape[1], image.shape[2])
        logits = self.model.decode(*self.model.encode(scaled), size=size)
        if self.biases is not None:
            logits = logits + self.biases
        # Not the softmax operator: runtimes transpose the second of four axes for it, and it
        # took as long as half of a light network.
        powers = ((logits - logits.amax(1, keepdim=True)) / self.temperature).exp()
        return powers / powers.sum(1, keepdim=True)


def write_onnx(
    path: Path,
    model: Segmenter,
    taxonomy: Taxonomy,
    *,
    temperature: float = 1.0,
    class_biases: Sequence[float] | None = None,
    facts: Mapping[str, Any],
) -> None:
    """Write the file atomically, with facts about the model in its metadata.

    The file is compared with torch at other sizes than the traced one before it gets its name.

    Input ``image``: (N, H, W, 3) uint8 RGB, H and W at least 32. Output
    ``probabilities``: (N, C, H, W) float32. The metadata entry ``s5mars`` is JSON.

    Args:
        path: such as ``model.onnx``.

    Raises:
        UserError: if onnx or onnxruntime is not installed, ONNX lacks what the encoder computes,
            or the file differs from torch.
    """
    onnx = needed("onnx", extra="export")
    needed("onnxruntime", extra="export")
    deployed = Deployed(_same_upper(model), temperature=temperature, class_biases=class_biases)
    deployed = deployed.cpu().eval()
    example = torch.zeros(2, 97, 131, 3, dtype=torch.uint8)  # sizes that no stride divides
    axes = {0: "images", 1: "height", 2: "width"}
    written = io.BytesIO()  # in memory, because the exporter does not report a full disk
    with warnings.catch_warnings(), traceable():
        warnings.simplefilter("ignore")  # about the old exporter and traced sizes
        try:
            torch.onnx.export(
                deployed,
                (example,),
                written,  # type: ignore[arg-type]
                dynamo=False,
                autograd_inlining=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_axes={INPUT: axes, OUTPUT: {0: "images", 2: "height", 3: "width"}},
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise UserError(
                f"{model.description['encoder']} cannot be exported to ONNX ({first_line(error)})"
            ) from error
    proto = onnx.load_from_string(written.getvalue())
    _without_aliases(proto.graph)
    # Tracing loses the number of classes, as the last step takes its size from the image.
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = len(taxonomy)
    about = {**facts, "taxonomy": taxonomy.to_dict(), "temperature": temperature}
    onnx.helper.set_model_props(proto, {METADATA_KEY: json.dumps(about, ensure_ascii=False)})
    with replacing(path) as temporary:
        onnx.save(proto, temporary)
        _check(temporary, model, temperature=temperature, class_biases=class_biases)


def _check(path: Path, model: Segmenter, **calibration: Any) -> None:
    """Compare a file with torch, because the encoder may choose by the size what it computes."""
    encoder = model.description["encoder"]
    # A copy, because the model may be on a GPU.
    ours = torch_probabilities(copy.deepcopy(model), **calibration)
    draw = generator(0, "export")
    images = [draw.integers(0, 256, (*size, 3), np.uint8) for size in CHECKED_SIZES]
    try:
        theirs = onnx_probabilities(path)
        found = [deviation(ours, theirs, image) for image in images]
    except UserError as error:
        raise UserError(
            f"{encoder} cannot be exported to ONNX, because onnxruntime fails on the file "
            f"({first_line(error.__cause__ or error)}); use another encoder, or predict with torch"
        ) from error
    if not all(each <= LARGEST_DEVIATION for each in found):  # also for NaN
        raise UserError(
            f"{encoder} cannot be exported to ONNX, because the file differs from torch at some "
            "image sizes; use another encoder, or predict with torch"
        )


def _without_aliases(graph: Any) -> None:
    """Replace aliases of equal weights by the weights themselves.

    Quantisation would leave a convolution whose bias is an alias, a computed value, in float.
    """
    weights = {weight.name for weight in graph.initializer}
    aliases = [n for n in graph.node if n.op_type == "Identity" and n.input[0] in weights]
    meant = {node.output[0]: node.input[0] for node in aliases}
    for node in aliases:
        graph.node.remove(node)
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = meant.get(name, name)


class _SameUpper(torch.autograd.Function):
    """A convolution with "same" padding as one ONNX operator."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, *how: Any) -> Tensor:
        stride, groups = how
        padded = pad_same(x, list(weight.shape[-2:]), stride)
        return F.conv2d(padded, weight, bias, stride, 0, 1, groups)

    @staticmethod
    def symbolic(graph: Any, x: Any, weight: Any, bias: Any, *how: Any) -> Any:
        stride, groups = how
        return graph.op(
            "Conv", x, weight, bias, auto_pad_s="SAME_UPPER", strides_i=stride, group_i=groups
        )


class _SameUpperConv(nn.Module):
    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, x: Tensor) -> Tensor:
        c = self.convolution
        bias = c.weight.new_zeros(len(c.weight)) if c.bias is None else c.bias
        convolved: Tensor = _SameUpper.apply(x, c.weight, bias, list(c.stride), c.groups)
        return convolved


def _same_upper(model: Segmenter) -> Segmenter:
    """Copy a model and make its "same" padding visible to the exporter."""
    copied = copy.deepcopy(model)
    for module in list(copied.modules()):
        for name, child in module.named_children():
            if isinstance(child, Conv2dSame) and tuple(child.dilation) == (1, 1):
                setattr(module, name, _SameUpperConv(child))
    return copied
