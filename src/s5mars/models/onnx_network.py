"""Run a network from an ONNX file of ``s5mars export`` with onnxruntime."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from s5mars.errors import MissingFileError, UserError, needed
from s5mars.files import file_digest
from s5mars.files.reading import parse_object, reading
from s5mars.models.checkpoint import LoadedModel
from s5mars.models.facts import check_facts, read_domain, read_taxonomy, temperature_of

INPUT, OUTPUT = "image", "probabilities"
METADATA_KEY = "s5mars"
"""Key of the metadata entry that contains the facts as JSON."""


@dataclass(frozen=True)
class OnnxNetwork:
    """Replaces a torch module: (B, 3, h, w) uint8 → (B, C, h, w) float32 logits.

    The file returns calibrated probabilities p; T · log p equals its logits, which include the
    class biases, up to a constant per pixel. onnxruntime runs on the CPU with as many threads as
    torch.
    """

    path: Path
    session: Any
    temperature: float

    def __reduce__(self) -> tuple[Any, ...]:
        """Sessions cannot be pickled: reopen the file in the other process."""
        return _opened, (self.path, self.temperature)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the file."""
        return file_digest(self.path)

    def __call__(self, image: Tensor) -> Tensor:
        """(B, 3, h, w) uint8 on any device → (B, C, h, w) float32 logits on the same."""
        pixels = image.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        (probability,) = self.session.run([OUTPUT], {INPUT: pixels})
        # Replace 0 by the smallest positive float32, whose logarithm is finite.
        logits = torch.from_numpy(probability).clamp_min_(torch.finfo(torch.float32).tiny).log_()
        return logits.mul_(self.temperature).to(image.device)


def load_onnx(path: Path, *, network: str = "teacher") -> LoadedModel[OnnxNetwork]:
    """Open an ONNX file that ``s5mars export`` wrote.

    ``network="teacher"`` accepts either network, ``"student"`` only the student.

    Raises:
        MissingFileError: if the file does not exist.
        UserError: if it is damaged, was not written by ``s5mars export``, has another format or
            contains the other network, or if onnxruntime is not installed.
    """
    if not path.exists():
        raise MissingFileError(f"{path} does not exist")
    session = open_session(path)
    facts = onnx_facts(session, path)
    held = str(facts.get("network"))
    if network == "student" and held != "student":
        raise UserError(f"{path} contains the {held}; export the student with --network student")
    taxonomy = read_taxonomy(facts, path)
    return LoadedModel(
        OnnxNetwork(path.absolute(), session=session, temperature=temperature_of(facts, held)),
        taxonomy,
        facts,
        held,
        read_domain(facts, path, network=held),
    )


def _opened(path: Path, temperature: float) -> OnnxNetwork:
    return OnnxNetwork(path, session=open_session(path), temperature=temperature)


def open_session(path: Path) -> Any:
    """An onnxruntime session on the CPU, with as many threads as torch.

    Raises:
        UserError: if onnxruntime cannot read the file, or is not installed.
    """
    runtime = needed("onnxruntime", extra="export")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    # Nothing but fatal errors: it warns about every constant that it folds, and raises its errors.
    options.log_severity_level = 4
    with reading(path, kind="ONNX file", remedy="export it again"):
        return runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def onnx_facts(session: Any, path: Path) -> dict[str, Any]:
    """Read the facts that ``s5mars export`` wrote into the metadata of a file.

    Raises:
        UserError: if there are none, or they have another format.
    """
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if text is None:
        raise UserError(f"{path} was not written by `s5mars export`: its metadata has no classes")
    with reading(path, kind="description in an ONNX file", remedy="export it again"):
        facts = parse_object(text)
    check_facts(facts, path)
    return facts
