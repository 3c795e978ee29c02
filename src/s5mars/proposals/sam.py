"""Object proposals by SAM, SAM 2 or SAM-HQ: masks for a grid of points, filtered by quality.

Kirillov et al., "Segment anything", 2023, section 4 and appendix B, through transformers. The
networks, the preparation of images and the scaling of masks are those of transformers. Only the
loop is written here, because the pipeline of transformers keeps no stability, holds every mask at
full size, and uses wrong points for SAM 2 if images are not square.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.ops import masks_to_boxes, nms

from s5mars.data.resolution import fitted
from s5mars.devices import find_device
from s5mars.errors import UserError
from s5mars.models.sam_weights import input_side, load_sam, weights_folder
from s5mars.products.no_data import no_data
from s5mars.proposals.build import Hardware
from s5mars.proposals.proposal import Proposal, proposal_from_mask

PROPOSER = "sam"


@dataclass(frozen=True, kw_only=True)
class SamSettings:
    """Settings of SAM. The defaults are those of its automatic mask generator."""

    weights: str  # local folder or hub id
    points_per_side: int = 32
    long_side: int = 1024  # size of the image while masks are chosen; 0: not resized
    minimum_iou: float = 0.88  # keep masks with a predicted IoU above it
    minimum_stability: float = 0.95  # keep masks above it: IoU at logits of +1 and -1
    duplicate: float = 0.7  # of two masks with a larger IoU of boxes the better is kept
    precision: str = "fp32"  # of the image encoder: fp32 or bf16

    def __post_init__(self) -> None:
        if self.points_per_side < 1:
            raise UserError(f"--points-per-side must be at least 1 (got {self.points_per_side})")
        if self.long_side != 0 and self.long_side < 64:
            raise UserError(
                f"--long-side must be 0 (no resizing) or at least 64 (got {self.long_side})"
            )
        if not 0 < self.duplicate <= 1:
            raise UserError(f"duplicate must be an IoU in (0, 1] (got {self.duplicate})")
        if self.precision not in {"fp32", "bf16"}:
            raise UserError(f"--precision must be fp32 or bf16 (got {self.precision!r})")


def fast_precision(device: str = "auto") -> str:
    """``bf16`` on a GPU that supports it, else ``fp32``."""
    on_gpu = find_device(device).type == "cuda"
    return "bf16" if on_gpu and torch.cuda.is_bf16_supported() else "fp32"


class SamProposer:
    """Computes the proposals of an image (H, W, 3) uint8 with SAM, by decreasing predicted IoU.

    On a CPU it uses one thread, so that the result does not depend on the number of processes on
    the machine. Use more processes (``build_store(workers=)``) to speed it up.

    Raises:
        UserError, MissingFileError: if the weights are not available or not usable.
    """

    def __init__(self, settings: SamSettings, hardware: Hardware | None = None) -> None:
        hardware = hardware or Hardware()
        self.settings = settings
        self.points_at_once = hardware.points
        self.device = find_device(hardware.device)
        model, self.processor = load_sam(weights_folder(settings.weights))
        self.model = model.to(self.device)
        if hardware.compile:
            self.model.vision_encoder.compile()

    def __call__(
        self, image: NDArray[np.uint8], valid: NDArray[np.bool_] | None = None
    ) -> list[Proposal]:
        """Compute the proposals of one image.

        Args:
            image: (H, W, 3) uint8.
            valid: (H, W) bool, the pixels that proposals may cover; None excludes black borders.

        Raises:
            UserError: if the device runs out of memory.
        """
        try:
            with _threads(1 if self.device.type == "cpu" else None), torch.inference_mode():
                return self._proposals(image, ~no_data(image) if valid is None else valid)
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"out of memory with --points {self.points_at_once} and --long-side "
                f"{self.settings.long_side}: use smaller values"
            ) from error

    def _proposals(self, image: NDArray[np.uint8], valid: NDArray[np.bool_]) -> list[Proposal]:
        small = _within(image, self.settings.long_side)
        inputs = self.processor(images=small, return_tensors="pt")
        embeddings = self._embeddings(inputs["pixel_values"])
        resized = inputs.get("reshaped_input_sizes")  # absent for SAM 2, which squares the image
        found = []
        for points in torch.split(self._grid(resized), self.points_at_once):
            points = points.to(self.device)
            output = self.model(
                input_points=points[None, :, None],
                input_labels=torch.ones((1, len(points), 1), dtype=torch.int64, device=self.device),
                **embeddings,
            )
            found.append(self._good(output, small.shape[:2], resized))
        logits, scores, stabilities, boxes = (torch.cat(part) for part in zip(*found, strict=True))
        proposals = []
        for k in nms(boxes, scores, self.settings.duplicate).tolist():
            mask = self._scaled(logits[k : k + 1], image.shape[:2], resized)[0] > 0
            whole = mask.cpu().numpy() & valid
            if whole.any():
                proposals.append(
                    proposal_from_mask(
                        whole,
                        predicted_iou=float(scores[k]),
                        stability=float(stabilities[k]),
                        proposer=PROPOSER,
                    )
                )
        return proposals

    def _embeddings(self, pixels: Tensor) -> dict[str, Any]:
        # The decoder stays in float32: the precision of bf16 (1/256) is too coarse for a threshold
        # of 0.97 on predicted IoUs, and the encoder takes most of the time.
        bf16 = self.settings.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16) if bf16 else nullcontext():
            found = self.model.get_image_embeddings(pixels.to(self.device))
        if isinstance(found, tuple):  # SAM-HQ: also early layers
            image, early = found
            return {
                "image_embeddings": image.float(),
                "intermediate_embeddings": [layer.float() for layer in early],
            }
        if isinstance(found, list):  # SAM 2: three resolutions
            return {"image_embeddings": [level.float() for level in found]}
        return {"image_embeddings": found.float()}

    def _grid(self, resized: Tensor | None) -> Tensor:
        """(N, 2) x, y of the points in pixels of the network input."""
        side = float(input_side(self.processor))
        height, width = (side, side) if resized is None else map(float, resized[0])
        count = self.settings.points_per_side
        at = (torch.arange(count, dtype=torch.float64) + 0.5) / count
        rows, columns = torch.meshgrid(at * height, at * width, indexing="ij")
        return torch.stack([columns, rows], dim=-1).reshape(-1, 2).float()

    def _good(
        self, output: Any, size: tuple[int, ...], resized: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits (n, h, w) at network size, scores, stabilities and boxes of the good masks."""
        scores = output.iou_scores.float().flatten()
        logits = output.pred_masks.float().flatten(0, 2)
        above = scores > self.settings.minimum_iou
        scores, logits = scores[above], logits[above]
        masks = self._scaled(logits, size, resized)
        inner = (masks > 1).sum((1, 2))
        stabilities = inner / (masks > -1).sum((1, 2)).clamp(min=1)
        masks = masks > 0
        stable = (stabilities > self.settings.minimum_stability) & masks.any(2).any(1)
        boxes = masks_to_boxes(masks[stable])
        return logits[stable], scores[stable], stabilities[stable], boxes.float()

    def _scaled(self, logits: Tensor, size: tuple[int, ...], resized: Tensor | None) -> Tensor:
        """Logits (n, h, w) scaled to an image of ``size``, as transformers does it."""
        if not len(logits):
            return logits.new_zeros((0, *size))
        scaled: Tensor = self.processor.post_process_masks(
            [logits[:, None]],
            original_sizes=[list(size)],
            reshaped_input_sizes=None if resized is None else resized.tolist(),
            binarize=False,
        )[0]
        return scaled[:, 0]


def _within(image: NDArray[np.uint8], long_side: int) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    size = fitted(width, height, long_side or max(width, height))
    if size == (width, height):
        return image.copy()  # torch needs a writable array
    return np.array(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
