"""PrevMatch: UniMatch with additional pseudo-labels of networks from earlier steps.

Shin et al., "Revisiting and Maximizing Temporal Knowledge in Semi-supervised Semantic
Segmentation", 2024 (arXiv 2405.20610; WACV 2026):

    L      = L_x + λ_u · (L_std + λ(t) · L_prev)
    L_std  = μ_1 · L_s1 + μ_2 · L_s2 + λ_fp · L_fp      UniMatch, with its own labels
    L_prev = the same sum with the labels argmax p_prev where max p_prev > τ_prev
    p_prev = softmax(Σ_k w_k · f_k(x_weak)),  w ~ Dirichlet(1, …, 1)
    λ(t)   = 1 − |2 t / T − 1|

f_k are k of the stored networks; they and k ~ U{1, …, K} are drawn in each step; L_s1, L_s2
and L_fp are those of ``unimatch.py``. Only the student is trained and scored.

K = 3 of at most N = 8 networks, τ = 0.95 and τ_prev = 0.9, as in the released settings for Pascal
VOC (5 networks for COCO and ADE20K; thresholds of 0 for Cityscapes, with another mean). Of the
paper only the abstract was available; this file follows the released code (Apache-2.0), except:

- The code keeps the network of an epoch whose score on the validation split is the best so far.
  Here a copy is kept every ``spacing`` of the steps that use the pool, from their first one on, so
  that no label of the validation split enters the training.
- The published loss is divided by 2 + λ(t), which weighs labels less in the middle of the run; here
  labels weigh the same for every method, as in ``fixmatch.py``.
- λ(t) counts steps from the first one that uses the pool; the code counts epochs.
- The labels of both kinds are aligned together, and with adaptive thresholds a pixel counts twice
  in a step, once for each.
- The differences that ``unimatch.py`` lists apply, too.
- True labels of the pool override both kinds and are kept.

A copy contains the trained parameters and the batch statistics; checkpoints contain all N copies.
"""

# No postponed annotations: the command line must see the types of a Module's fields, and cannot
# evaluate those that `nn.Module` itself is annotated with.
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from s5mars.errors import require_limit
from s5mars.methods.unimatch import UniMatch
from s5mars.methods.views import as_float, kept_pixels, pool_of
from s5mars.objective.teacher import evaluating
from s5mars.settings.config import ROUNDING
from s5mars.types import Batch, Crops, Needs, Progress, Targets, Term, View

Copy = Mapping[str, Tensor]  # trained parameters and buffers of a network, by name


@dataclass(kw_only=True, eq=False)
class PrevMatch(nn.Module):
    """The method, with the constants of its released settings for Pascal VOC.

    Args:
        unimatch: Settings of the method that earlier networks are added to.
        threshold: Confidence τ_prev above which labels of earlier networks are kept.
        copies: Largest number N of earlier networks that are kept; the oldest one is dropped.
        drawn: Largest number K of earlier networks that label the pool in a step.
        spacing: Share of the steps that use the pool between two copies, in (0, 1].
    """

    title: ClassVar[str] = "PrevMatch"

    unimatch: UniMatch = field(default_factory=UniMatch)
    threshold: float = 0.9
    copies: int = 8
    drawn: int = 3
    spacing: float = 0.05

    def __post_init__(self) -> None:
        super().__init__()
        require_limit("at least 1", copies=self.copies, drawn=self.drawn)
        require_limit("in (0, 1]", spacing=self.spacing)
        require_limit("at most 1", threshold=self.threshold)
        self.past: list[Copy] = []  # the oldest first

    @property
    def needs(self) -> Needs:
        """A pool; the student and its past label it."""
        return Needs(pool=True)

    def losses(
        self, student: nn.Module, teacher: nn.Module, batch: Batch, progress: Progress
    ) -> dict[str, Term]:
        """The terms of UniMatch, and ``previous`` once there is an earlier network."""
        base = self.unimatch
        weak, previous = self.weak_views(teacher, pool_of(batch), progress)
        kept = kept_pixels(weak.targets, progress, above=base.threshold)
        (first, _), (second, _) = strong = base.strong_views(weak, kept, progress)
        labelled = batch.labelled
        logits, weak_logits, *strong_logits = base.logits(
            student, [as_float(labelled.image), weak.image, first.image, second.image]
        )
        pool_logits = [*strong_logits, weak_logits]
        weight = base.unsupervised_weight * progress.ramp
        terms = {
            "supervised": Term(progress.criterion(logits, labelled.label)),
            **base.consistencies(pool_logits, [*strong, (weak, kept)], weight=weight),
        }
        if previous is not None:
            kept = kept_pixels(previous.targets, progress, above=self.threshold)
            # The same random draws give the same colours and rectangles as above.
            strong = base.strong_views(previous, kept, progress)
            parts = base.consistencies(pool_logits, [*strong, (previous, kept)], weight=1.0)
            terms["previous"] = Term(
                torch.stack([part.weight * part.value for part in parts.values()]).sum(),  # L_prev
                weight=weight * (1 - abs(2 * progress.share - 1)),  # λ(t)
                share=parts["features"].share,
            )
        self.remember(student, progress)
        return terms

    @torch.no_grad()
    def weak_views(
        self, network: nn.Module, pool: Crops, progress: Progress
    ) -> tuple[View, View | None]:
        """The pool with labels of the network itself, and with those of its past, if it has one."""
        image = as_float(pool.image)
        with evaluating(network):
            own = network(pool.image).softmax(1)
            if not self.past:
                return View(image, progress.pseudo_labels(own, pool)), None
            previous = self.predict(network, pool.image, progress.generator("earlier networks"))
        both = Crops(*(torch.cat([x, x]) for x in (pool.image, pool.label, pool.valid)))
        targets = progress.pseudo_labels(torch.cat([own, previous]), both)
        halves = zip(*(torch.chunk(x, 2) for x in targets.tensors), strict=True)
        first, second = (View(image, Targets(*half)) for half in halves)
        return first, second

    def predict(self, network: nn.Module, image: Tensor, rng: np.random.Generator) -> Tensor:
        """p_prev, (B, C, H, W), of randomly drawn and weighted copies of a network."""
        number = min(int(rng.integers(1, self.drawn + 1)), len(self.past))
        drawn = rng.choice(len(self.past), size=number, replace=False)
        weights = rng.dirichlet(np.ones(number))
        logits = torch.stack(
            [
                float(weight)
                * functional_call(network, dict(self._copy(index, image.device)), image)
                for index, weight in zip(drawn, weights, strict=True)
            ]
        )
        return logits.sum(0).softmax(1)

    @torch.no_grad()
    def remember(self, network: nn.Module, progress: Progress) -> None:
        """Keep a copy of a network where one is due, and drop the oldest of too many."""
        steps = progress.total - progress.pool_from
        interval = max(1, math.ceil(self.spacing * steps - ROUNDING))
        if (progress.step - progress.pool_from) % interval:
            return
        state = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
        copy = {name: x.detach().clone() for name, x in (*state, *network.named_buffers())}
        self.past = [*self.past, copy][-self.copies :]

    def _copy(self, index: int, device: torch.device) -> Copy:
        """A copy on its device: a resumed run reads them to the CPU."""
        self.past[index] = {name: x.to(device) for name, x in self.past[index].items()}
        return self.past[index]

    def get_extra_state(self) -> dict[int, Copy]:
        """For ``state_dict``."""
        return {
            index: {name: x.cpu() for name, x in copy.items()}
            for index, copy in enumerate(self.past)
        }

    def set_extra_state(self, state: dict[int, Copy]) -> None:
        """For ``load_state_dict``."""
        self.past = [state[index] for index in sorted(state)]
