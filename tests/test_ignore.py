"""One pixel that nobody knows, and one that padding made, from the file to the exported map."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from s5mars.augment.geometric import object_transforms, warp
from s5mars.augment.mix import paste
from s5mars.augment.statistics import augin
from s5mars.classes import IGNORE, MaskCoding, Taxonomy
from s5mars.data.crops import CropSettings
from s5mars.data.read import read_label
from s5mars.evaluation.confusion import Confusion
from s5mars.objective.losses import cross_entropy, hard_and_soft_loss, hard_loss, ohem_cross_entropy
from s5mars.predict.overlay import indexed_png
from s5mars.training.loader import LoaderSettings, TrainingBatches
from s5mars.types import Sample, Targets, View
from tiny import rngs

SIDE = 32
UNKNOWN = 99  # in the mask file
CODING = MaskCoding({10: 0, 20: 1, 30: 2}, frozenset({UNKNOWN}))
TAXONOMY = Taxonomy.from_dict({"classes": [{"name": name} for name in "abc"]})
PIXEL = (np.s_[8:12], np.s_[18:22])  # rows and columns of what nobody knows: even a block of 4


def test_ignored_and_padded_pixels_change_nothing(tmp_path: Path) -> None:
    # The files: class 1 everywhere, a block unknown. The image is half as high as the crop.
    height = SIDE // 2
    ids = np.full((height, SIDE), 20, np.uint8)
    ids[PIXEL] = UNKNOWN
    Image.fromarray(ids).save(tmp_path / "mask.png")
    Image.fromarray(np.full((height, SIDE, 3), 130, np.uint8)).save(tmp_path / "image.png")
    sample = Sample("a", tmp_path / "image.png", tmp_path / "mask.png")

    # Reading.
    label = read_label(sample, CODING)
    assert (label[PIXEL] == IGNORE).all() and (label == IGNORE).sum() == 16

    # Cropping and batching, at the image's own scale: padding above or below.
    settings = LoaderSettings(
        seed=0, batch=2, crop=CropSettings(size=SIDE, scale=(1.0, 1.0), flip=0.0), coding=CODING
    )
    crops = TrainingBatches([sample], [sample], steps=1, settings=settings)[0].labelled
    padded = ~crops.valid
    unknown = crops.valid & (crops.label == IGNORE)
    assert (padded.sum((1, 2)) == SIDE * SIDE // 2).all()
    assert (unknown.sum((1, 2)) == 16).all()
    assert (crops.label[padded] == IGNORE).all()
    assert (crops.label[~padded & ~unknown] == 1).all()

    # Geometry: a quarter turn carries both along, and what comes from outside is as padded.
    probability = torch.full((2, 3, SIDE, SIDE), 1 / 3)
    targets = Targets(probability, crops.label.long(), crops.valid)
    view = View(crops.image.float() / 255, targets)
    everywhere = torch.ones_like(crops.valid)
    turn = torch.tensor([[[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]]]).expand(2, 2, 3)
    turned, _ = warp(view, everywhere, theta=turn)
    for before, after in (
        (padded, ~turned.targets.valid),
        (unknown, turned.targets.valid & (turned.targets.label == IGNORE)),
    ):
        ways = [torch.rot90(before, k, (1, 2)) for k in (1, 3)]
        assert any(torch.equal(after, way) for way in ways)
        assert not torch.equal(after, before)
    shrink = object_transforms(everywhere, rngs(0, 2), rotation=0, flip=0, rescale=(0.5, 0.5))
    shrunk, moved = warp(view, everywhere, theta=shrink)
    assert (~moved).sum() == 2 * SIDE * SIDE * 3 // 4
    assert not shrunk.targets.valid[~moved].any()
    assert (shrunk.targets.label[~moved] == IGNORE).all()

    # Pasting: a known image receives the left half, and with it what is not known there.
    known = View(
        torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)),
        Targets(probability, torch.full((2, SIDE, SIDE), 2), everywhere),
    )
    left = torch.zeros_like(everywhere)
    left[..., : SIDE // 2 + 4] = True
    mixed = paste(left, view, known)
    assert torch.equal(mixed.targets.valid, ~(padded & left))
    assert torch.equal(mixed.targets.label == IGNORE, (padded | unknown) & left)
    assert (unknown & left).any()

    # Statistics: what stands in the padding moves no other pixel.
    partner = torch.tensor([1, 0])
    loud = torch.where(~mixed.targets.valid[:, None], 50.0, mixed.image)
    quiet, disturbed = (augin(i, mixed.targets.valid, partner=partner) for i in (mixed.image, loud))
    where = mixed.targets.valid[:, None].expand_as(quiet)
    torch.testing.assert_close(quiet[where], disturbed[where])

    # Losses: other logits there give the same value, and no gradient goes there.
    label_now, valid = mixed.targets.label, mixed.targets.valid
    ignored = label_now == IGNORE
    confident = valid & (mixed.targets.confidence > 0.7)
    unsure = valid & (mixed.targets.confidence < 0.9)
    assert torch.equal(confident, ~ignored)  # known pixels only: the teacher knows nothing
    assert torch.equal(unsure, ignored & valid)

    def losses(logits: torch.Tensor) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Each loss, and the pixels that it must not look at."""
        hard = mixed.targets.hard
        return {
            "supervised": (cross_entropy(logits, label_now), ignored),
            "ohem": (ohem_cross_entropy(logits, label_now), ignored),
            **{
                f"hard over {over}": (
                    hard_loss(logits, hard, kept=confident, valid=valid, over=over),
                    ~confident,
                )
                for over in ("valid", "all", "kept")
            },
            "soft": (
                hard_and_soft_loss(
                    logits,
                    hard,
                    probability,
                    kept=(confident, unsure),
                    valid=valid,
                    over=("valid", "valid"),
                )[1],
                ~unsure,
            ),
        }

    random = torch.Generator().manual_seed(2)
    logits = torch.randn(2, 3, SIDE, SIDE, generator=random).requires_grad_()
    for name, (value, blind) in losses(logits).items():
        assert value > 0 and (blind & ~valid).any(), name
        (gradient,) = torch.autograd.grad(value, logits, retain_graph=True)
        assert (gradient.abs().sum(1)[blind] == 0).all(), name
        assert (gradient.abs().sum(1)[~blind] > 0).any(), name
        other = torch.where(blind[:, None], logits + 100 * torch.randn(1, 3, 1, 1), logits)
        assert torch.equal(losses(other)[name][0], value), name

    # Nor do they count in the mean.
    known_only = -logits.log_softmax(1).gather(1, mixed.targets.hard[:, None])[:, 0][~ignored]
    torch.testing.assert_close(cross_entropy(logits, label_now), known_only.mean())

    # Scores: whatever is predicted there is not counted.
    truth = label_now.numpy().astype(np.uint8)
    predicted = logits.detach().argmax(1).numpy().astype(np.uint8)
    confusion, other_confusion = Confusion(3), Confusion(3)
    confusion.update(truth, predicted)
    other_confusion.update(truth, np.where(ignored.numpy(), np.uint8(IGNORE), predicted))
    assert confusion == other_confusion
    assert confusion.matrix.sum() == (~ignored).sum()

    # Export: index 255, black, also after a way through a file.
    file = io.BytesIO()
    indexed_png(truth[0], TAXONOMY).save(file, "PNG")
    picture = Image.open(file)
    assert picture.mode == "P"
    np.testing.assert_array_equal(np.asarray(picture), truth[0])
    colours = np.asarray(picture.convert("RGB"))
    assert (colours[ignored[0].numpy()] == 0).all()
    assert colours[~ignored[0].numpy()].any(-1).all()
