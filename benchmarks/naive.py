"""A plain implementation of the S5Mars step, as a reference for speed and memory.

It has the same networks, batch, settings and objective, but is written like many training scripts:
the teacher computes each stream separately, images are mixed one by one in a Python loop, every
intermediate result is kept until the end, each loss computes its own softmax, and the moving
average is updated parameter by parameter.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s5mars.augment.geometric import object_transforms
from s5mars.classes import IGNORE
from s5mars.comparison.step import Step
from s5mars.methods.s5mars import S5Mars
from s5mars.randomness import generator, generators


class NaiveStep:
    """The plain implementation of a step, with the networks of ``step``."""

    def __init__(self, step: Step) -> None:
        self.step = step

    def __call__(self) -> None:
        """Take one step: forward, backward, optimiser, teacher."""
        step = self.step
        teacher, method = step.module.teacher, step.module.method
        if teacher is None or not isinstance(method, S5Mars):
            raise ValueError("this is a step of s5mars")
        loss = naive_loss(step, step.module.student, teacher, method)
        step.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        step.optimizer.step()
        with torch.no_grad():
            for ours, theirs in zip(
                teacher.state_dict().values(), step.module.student.state_dict().values(),
                strict=True,
            ):  # fmt: skip
                ours.copy_(0.99 * ours + 0.01 * theirs)
        step.module.step += 1
        step.wait()


def naive_loss(step: Step, student: nn.Module, teacher: nn.Module, method: S5Mars) -> Tensor:
    """Compute equations 1 to 7, image by image."""
    pool, labelled = step.batch.pool, step.batch.labelled
    if pool is None or labelled.objects is None:
        raise ValueError("this step has no pool or no objects")
    rng = generator(0, "naive", step=step.module.step)
    images, donors = pool.image.float() / 255, labelled.image.float() / 255
    with torch.no_grad():
        probability, of_donors = teacher(images).softmax(1), teacher(donors).softmax(1)
    rngs = generators(0, "naive objects", step=step.module.step, samples=range(len(donors)))
    theta = object_transforms(labelled.objects, rngs, rotation=20.0, flip=0.5, rescale=(0.75, 1.33))
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    strong, targets, known = [], [], []
    for k, partner in enumerate(rng.permutation(len(images)).tolist()):
        mean, std = images[k].mean((1, 2), keepdim=True), images[k].std((1, 2), keepdim=True)
        image = (images[k] - mean) / (std + 1e-5) * images[partner].std((1, 2), keepdim=True) + mean
        donor = partner % len(donors)

        def turned(x: Tensor, mode: str, donor: int = donor) -> Tensor:
            moved = F.grid_sample(x[None], grid[donor, None], mode=mode, align_corners=False)
            return moved[0]

        inside = turned(labelled.objects[donor, None].float(), "nearest")
        label = turned(labelled.label[donor, None].float() + 1, "nearest").long() - 1
        strong.append(inside * turned(donors[donor], "bilinear") + (1 - inside) * image)
        pasted = inside * turned(of_donors[donor], "bilinear")
        targets.append(pasted + (1 - inside) * probability[k])
        known.append(torch.where(inside > 0, label, pool.label[k].long())[0])
    seen, soft, true = torch.stack(strong), torch.stack(targets), torch.stack(known)
    both = student(torch.cat([donors, seen]))
    logits, strong_logits = both[: len(donors)], both[len(donors) :]
    confidence, hard = soft.max(1)
    confidence[true != IGNORE] = 1.0
    hard[true != IGNORE] = true[true != IGNORE]
    one_hot = F.one_hot(hard, soft.shape[1]).permute(0, 3, 1, 2).float()
    of_hard = -(one_hot * F.log_softmax(strong_logits, 1)).sum(1)
    of_soft = -(soft * F.log_softmax(strong_logits, 1)).sum(1)
    supervised = F.cross_entropy(logits, labelled.label.long(), ignore_index=IGNORE)
    terms = (of_hard * (confidence > method.hard_threshold)).mean() + method.soft_weight * (
        of_soft * (confidence < method.soft_threshold)
    ).mean()
    total: Tensor = supervised + method.unsupervised_weight * terms
    return total
