"""SAN-FT: the loss for fine-tuning a side adapter; a row of table VI.

Xu et al., CVPR 2023, section 3.3, after MaskFormer and Mask2Former (Cheng et al., 2021, 2022). Each
class c in an image is a mask to be found. A matching π of these to the queries minimises the cost

    Σ_c  −λ_cls p_π(c)(c) + λ_mask BCE(m_π(c), c) + λ_dice Dice(m_π(c), c),

and with it  L = λ_cls L_cls + λ_mask L_BCE + λ_dice L_dice: over the matched masks for the last
two; for L_cls a matched query should be its class and any other "no object", which weighs 0.1.
Every supervised depth of the adapter is matched, and adds its terms. λ = 2, 5, 5, as in the paper.

The data of the paper are labelled everywhere. For sparse labels this project chose:

- Masks are compared at labelled pixels alone, at most ``points`` of them, drawn uniformly in each
  image. (Mask2Former draws as many from the whole image, three quarters of them where the mask is
  uncertain.)
- Classes without a drawn pixel are absent: no query is matched to them.
- A query in an unlabelled area may be right. So the weight 0.1 of "no object" is multiplied by the
  share of the query's own mask that is on labelled pixels: 1 for dense labels, the paper's loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s5mars.classes import IGNORE
from s5mars.devices import full_precision
from s5mars.errors import require_limit
from s5mars.objective.losses import mean_of_all
from s5mars.parallel import distributed
from s5mars.randomness import each
from s5mars.types import Batch, Crops, Needs, Progress, Term

if TYPE_CHECKING:
    from s5mars.models.san import QueryOutput


class Drawn(NamedTuple):
    """Labelled pixels of a batch."""

    grid: Tensor  # (B, K, 1, 2) float: x, y in [-1, 1], as grid_sample takes them
    known: Tensor  # (B, K) float: 1 for a drawn pixel, 0 where an image has fewer
    truth: Tensor  # (B, C, K) float: 1 at the pixels of the class


@dataclass(frozen=True, kw_only=True)
class San:
    """The loss, with the constants of SAN's training.

    Args:
        class_weight: Weight λ_cls of the classification of the queries.
        mask_weight: Weight λ_mask of the cross-entropy of their masks.
        dice_weight: Weight λ_dice of the dice loss of their masks.
        no_object: Weight of a query without a class.
        points: Number of labelled pixels drawn from an image.
    """

    title: ClassVar[str] = "SAN-FT"

    class_weight: float = 2.0
    mask_weight: float = 5.0
    dice_weight: float = 5.0
    no_object: float = 0.1
    points: int = 112 * 112

    def __post_init__(self) -> None:
        require_limit(
            "at least 0",
            class_weight=self.class_weight,
            mask_weight=self.mask_weight,
            dice_weight=self.dice_weight,
            no_object=self.no_object,
        )
        require_limit("at least 1", points=self.points)

    @property
    def needs(self) -> Needs:
        """Only the labelled stream, and a network with queries."""
        return Needs(queries=True)

    def losses(
        self, student: nn.Module, teacher: nn.Module, batch: Batch, progress: Progress
    ) -> dict[str, Term]:
        """Terms ``class``, ``mask`` and ``dice``, each the sum over the supervised depths."""
        crops = batch.labelled
        outputs: list[QueryOutput] = student.propose(crops.image)  # type: ignore[operator]
        drawn = self.draw(crops, outputs[0].classes.shape[2] - 1, progress)
        found = torch.stack(
            [torch.stack(self.of_depth(output, drawn, crops)) for output in outputs]
        )
        class_, mask, dice = found.sum(0)
        return {
            "class": Term(class_, self.class_weight),
            "mask": Term(mask, self.mask_weight),
            "dice": Term(dice, self.dice_weight),
        }

    def draw(self, crops: Crops, classes: int, progress: Progress) -> Drawn:
        """At most ``points`` labelled pixels of each image."""
        label = crops.label
        height, width = label.shape[1:]
        key = each(
            progress.generators("points of san", len(label)),
            lambda rng: rng.random((height, width), dtype="float32"),
        )
        keys = torch.from_numpy(key).to(label.device).masked_fill(~labelled(crops), -1.0)
        key_of_drawn, index = keys.flatten(1).topk(min(self.points, height * width), dim=1)
        known = key_of_drawn >= 0
        x = (index % width + 0.5) / width * 2 - 1
        y = (index // width + 0.5) / height * 2 - 1
        at = label.flatten(1).gather(1, index).long().masked_fill(~known, classes)
        truth = F.one_hot(at, classes + 1)[..., :classes].transpose(1, 2)
        return Drawn(torch.stack([x, y], -1)[:, :, None], known.float(), truth.float())

    def of_depth(
        self, output: QueryOutput, drawn: Drawn, crops: Crops
    ) -> tuple[Tensor, Tensor, Tensor]:
        """L_cls, L_BCE and L_dice of one supervised depth."""
        sampled = F.grid_sample(
            output.masks, drawn.grid, padding_mode="border", align_corners=False
        )[..., 0]
        mask_costs, dice_costs = bce(sampled, drawn), dice(sampled, drawn)  # (B, Q, C)
        with torch.no_grad():
            cost = (
                -self.class_weight * output.classes.softmax(-1)[..., :-1]
                + self.mask_weight * mask_costs
                + self.dice_weight * dice_costs
            )
            image, query, name = match(cost, present=drawn.truth.any(2))
            target = torch.full(
                output.classes.shape[:2], cost.shape[2], device=cost.device, dtype=torch.long
            )
            target[image, query] = name
            weight = self.no_object * share_labelled(output.masks, crops)
            weight[image, query] = 1.0
        loss = F.cross_entropy(output.classes.transpose(1, 2), target, reduction="none")
        masks = distributed.total(target.new_tensor(len(image)))
        return (
            mean_of_all((loss * weight).sum(), distributed.total(weight.sum())),
            mean_of_all(mask_costs[image, query, name].sum(), masks),
            mean_of_all(dice_costs[image, query, name].sum(), masks),
        )


def labelled(crops: Crops) -> Tensor:
    """(B, H, W) bool: the pixels that have a class; the loader gives none to invalid pixels."""
    return crops.label != IGNORE


def bce(masks: Tensor, drawn: Drawn) -> Tensor:
    """Mean binary cross-entropy over the drawn pixels of each query as each class.

    Args:
        masks: (B, Q, K) logits at the drawn pixels.
        drawn: the pixels.

    Returns:
        (B, Q, C).
    """
    masks = masks * drawn.known[:, None]
    # softplus(−m) where the mask should be, softplus(m) elsewhere; they differ by m.
    with full_precision(masks.device):  # this difference of large sums must not be negative
        masks = masks.float()
        outside = (F.softplus(masks) * drawn.known[:, None]).sum(2, keepdim=True)
        total = outside - masks @ drawn.truth.transpose(1, 2)
    return total / drawn.known.sum(1).clamp(min=1)[:, None, None]


def dice(masks: Tensor, drawn: Drawn) -> Tensor:
    """1 − (2 Σ σ(m) t + 1) / (Σ σ(m) + Σ t + 1) over the drawn pixels; shapes as ``bce``."""
    probability = masks.float().sigmoid() * drawn.known[:, None]
    with full_precision(masks.device):
        common = probability @ drawn.truth.transpose(1, 2)
    sizes = probability.sum(2, keepdim=True) + drawn.truth.sum(2)[:, None]
    return 1 - (2 * common + 1) / (sizes + 1)


def match(cost: Tensor, *, present: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The cheapest query for each present class of each image.

    Args:
        cost: (B, Q, C) float.
        present: (B, C) bool.

    Returns:
        Image, query and class of each pair, int64, N each.
    """
    # Imported here because it is slow to import, and every command knows all methods.
    from scipy.optimize import linear_sum_assignment

    pairs = []
    for image, (costs, here) in enumerate(zip(cost.cpu(), present.cpu(), strict=True)):
        names = here.nonzero()[:, 0]
        # If training diverges, any pairs do: the loss is not finite, which ends the run.
        finite = costs[:, names].double().nan_to_num(0.0, 0.0, 0.0)
        queries, chosen = linear_sum_assignment(finite.numpy())
        pairs += [(image, int(q), int(names[c])) for q, c in zip(queries, chosen, strict=True)]
    found = torch.tensor(pairs, dtype=torch.long, device=cost.device).reshape(-1, 3)
    return found[:, 0], found[:, 1], found[:, 2]


def share_labelled(masks: Tensor, crops: Crops) -> Tensor:
    """(B, Q): how much of each query's mask, of what lies on valid pixels, is labelled."""
    size = (masks.shape[-2], masks.shape[-1])
    known, valid = (
        F.adaptive_avg_pool2d(region.float()[:, None], size).flatten(2).transpose(1, 2)
        for region in (labelled(crops), crops.valid)
    )
    probability = masks.detach().float().sigmoid().flatten(2)
    with full_precision(masks.device):
        return (probability @ known / (probability @ valid).clamp(min=1e-6))[..., 0]
