"""U²PL: reliable pixels give pseudo-labels, unreliable ones negatives of a contrastive loss.

Wang et al., "Semi-Supervised Semantic Segmentation Using Unreliable Pseudo-Labels", CVPR 2022:

    L   = L_s + λ_u L_u + λ_c L_c
    H   = −Σ_c p(c) log p(c)                    entropy of the teacher's prediction
    γ_t = quantile of H at 1 − α_t,  α_t = α_0 (1 − t / T),  α_0 = 20 %
    L_u = mean over H ≤ γ_t of CE(p_s, argmax p_t),   λ_u = η · pixels / pixels with H ≤ γ_t
    L_c = −1 / (C M) Σ_c Σ_i log e⁺ / (e⁺ + Σ_j e⁻),
          e⁺ = exp(⟨z_ci, z_c⁺⟩ / τ),  e⁻ = exp(⟨z_ci, z_cij⁻⟩ / τ)

⟨·, ·⟩ is the cosine. Anchors z_ci: M = 256 of the student's embeddings where the class is c, by
label or reliable pseudo-label, and the teacher gives it more than δ_p = 0.3. Positive z_c⁺: the
centre of the teacher's embeddings of all these pixels. Negatives z_cij⁻: N = 50 per anchor, from
the memory bank of c, which receives the teacher's embeddings where c is certainly wrong: on
labelled pixels of another class where c is among the first 3 of the teacher's ranking (hard
negatives), on unreliable pixels where its rank, counted from 0, is in [3, 20). For up to 20 classes
(Cityscapes has 19) these are all but the first 3: [3, 9) for nine classes, the last one for four,
and none for three or fewer. With four classes, each wrong class of a labelled pixel is a hard
negative, unless it is ranked last.

Where paper and released code differ, or the paper is silent:

- t and T count from the first step that uses the pool.
- A pixel whose entropy equals γ_t is reliable. In the paper and the code it is not, so that none is
  left where the teacher is certain of most pixels, and the code's loss is not a number.
- Anchors on pixels without a label: the code takes the lowest α_t of the entropies, the paper every
  reliable pixel; the code's is the default, ``anchor_percent``.
- The code multiplies the mask of negatives of c by the pixels labelled c, which removes all
  labelled ones, and reads anchors and centres of absent classes by a shifted index; here as in
  the paper. The code's centre ignores δ_p; the paper's, which is used here, does not. The averaged
  embeddings are the teacher's, as in the code.
- C in L_c: the classes that have both anchors and negatives.
- λ_c: the released settings do not contain it, and the code's default is 1; η = 1.
- CutMix on the pool in half of the steps, as in the code, with this project's rectangles
  (``augment/geometric.py``); the code's cover half of the image exactly.
- The code runs the teacher again, in training mode, on the mixed images for entropy, ranking and
  embedding. Here it computes the weak views once, in evaluation mode, and all its outputs,
  including the embedding, are pasted with the pixels.
- Embeddings are at a quarter of the resolution. Labels, masks and probabilities are reduced
  to it by nearest neighbour; the code uses the probabilities before upsampling.

Known labels of the pool count as labels everywhere; quantiles are over the valid pixels without a
label. ``--thresholds`` has no effect, because pixels are selected by entropy alone.
"""

# No postponed annotations: the command line must see the types of a Module's fields, and cannot
# evaluate those that `nn.Module` itself is annotated with.
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s5mars.augment.geometric import rectangles
from s5mars.augment.mix import paste, select
from s5mars.augment.statistics import partners
from s5mars.classes import IGNORE
from s5mars.devices import full_precision
from s5mars.errors import require_limit
from s5mars.methods.memory_bank import MemoryBank
from s5mars.methods.views import as_float, pool_of
from s5mars.models.network import Network
from s5mars.objective.losses import hard_loss, pixels
from s5mars.parallel import distributed
from s5mars.types import Batch, Needs, Progress, Targets, Term, View, as_predicted


@dataclass(kw_only=True, eq=False)
class U2PL(nn.Module):
    """The method, with the constants of its Cityscapes runs. Percentages are of entropies.

    Args:
        unsupervised_weight: Weight η of the reliable pixels.
        contrastive_weight: Weight λ_c of the contrastive loss.
        drop_percent: Percentage of reliable pixels at the start of the run; 100 at the end.
        anchor_percent: Percentage of unlabelled pixels that may be anchors at the start; 0 at the
            end.
        cutmix: Probability of CutMix in a step.
        anchors: Number M of anchors per class.
        negatives: Number N of negatives per anchor.
        anchor_probability: Smallest probability δ_p of an anchor.
        low_rank: Number of first ranks that give negatives on labelled pixels.
        high_rank: Ranks from low_rank to below this one give negatives on unreliable pixels.
        temperature: Temperature τ of the contrastive loss.
        queue: Length of the memory of a class.
        first_queue: Length of the memory of class 0.
    """

    title: ClassVar[str] = "U²PL"

    unsupervised_weight: float = 1.0
    contrastive_weight: float = 1.0
    drop_percent: float = 80.0
    anchor_percent: float = 20.0
    cutmix: float = 0.5
    anchors: int = 256
    negatives: int = 50
    anchor_probability: float = 0.3
    low_rank: int = 3
    high_rank: int = 20
    temperature: float = 0.5
    queue: int = 30_000
    first_queue: int = 50_000

    def __post_init__(self) -> None:
        super().__init__()
        require_limit(
            "in [0, 100]", drop_percent=self.drop_percent, anchor_percent=self.anchor_percent
        )
        require_limit("in [0, 1]", cutmix=self.cutmix, anchor_probability=self.anchor_probability)
        require_limit("above 0", temperature=self.temperature)
        require_limit(
            "at least 0",
            unsupervised_weight=self.unsupervised_weight,
            contrastive_weight=self.contrastive_weight,
            low_rank=self.low_rank,
            high_rank=self.high_rank,
        )
        require_limit(
            "at least 1",
            anchors=self.anchors,
            negatives=self.negatives,
            queue=self.queue,
            first_queue=self.first_queue,
        )
        self.bank = MemoryBank(size=self.queue, first_size=self.first_queue)

    @property
    def needs(self) -> Needs:
        """A pool, a teacher and a second head of 256 channels."""
        return Needs(pool=True, teacher=True, representation=256)

    def losses(
        self, student: nn.Module, teacher: nn.Module, batch: Batch, progress: Progress
    ) -> dict[str, Term]:
        """``supervised``, ``reliable`` and ``contrastive``."""
        labelled, size = batch.labelled, _size(batch.labelled.image)
        known_view, mixed, teacher_embedding = self.weak_predictions(teacher, batch, progress)
        logits, embedding = _both_heads(student, torch.cat([known_view.image, mixed.image]), size)

        targets = mixed.targets
        entropy = -(targets.probability * targets.probability.clamp(min=1e-10).log()).sum(1)
        known = targets.valid & (targets.label != IGNORE)
        unknown = targets.valid & ~known
        left = 1 - progress.share
        # Quantiles are of the whole batch, whichever process holds it.
        everywhere = distributed.joined(entropy), distributed.joined(unknown)
        most = quantile(*everywhere, 1 - (1 - self.drop_percent / 100) * left)  # γ_t
        few = quantile(*everywhere, self.anchor_percent / 100 * left)
        reliable = known | (unknown & (entropy <= most))
        labelled_known = known_view.targets.label != IGNORE
        first = len(labelled.image)
        order = by_sample(first, len(mixed.image)).to(embedding.device)
        no_pixel = torch.zeros_like(labelled_known)
        # Sums over many pixels leave the range of half precision.
        with full_precision(embedding.device):
            contrast, share = self.contrast(
                embedding.index_select(0, order),
                teacher_embedding[order],
                _joined(known_view.targets, targets, order=order),
                known=torch.cat([labelled_known, known])[order],
                reliable=torch.cat([labelled_known, known | (unknown & (entropy <= few))])[order],
                unreliable=torch.cat([no_pixel, unknown & (entropy > most)])[order],
                progress=progress,
            )
        valid_pixels = pixels(targets.valid).clamp(min=1)
        reliable_pixels = pixels(reliable)
        # λ_u · L_u: the mean over reliable pixels, times pixels over reliable ones.
        unsupervised = hard_loss(
            logits[first:], targets.hard, kept=reliable, valid=targets.valid, over="kept"
        ) * (valid_pixels / reliable_pixels.clamp(min=1))
        return {
            "supervised": Term(progress.criterion(logits[:first], labelled.label)),
            "reliable": Term(
                unsupervised,
                weight=self.unsupervised_weight * progress.ramp,
                share=reliable_pixels / valid_pixels,
            ),
            "contrastive": Term(
                contrast, weight=self.contrastive_weight * progress.ramp, share=share
            ),
        }

    @torch.no_grad()
    def weak_predictions(
        self, teacher: nn.Module, batch: Batch, progress: Progress
    ) -> tuple[View, View, Tensor]:
        """The labelled view, the mixed view of the pool, and the teacher's embedding of both."""
        crops = [batch.labelled, pool_of(batch)]
        images = torch.cat([c.image for c in crops])
        logits, embedding = _both_heads(teacher, images, _size(images))
        sizes = [len(c.image) for c in crops]
        (image, pool_image), (probability, pool_probability) = (
            torch.split(x, sizes) for x in (as_float(images), logits.softmax(1))
        )
        labelled = View(image, as_predicted(probability, batch.labelled))
        pool = View(pool_image, progress.pseudo_labels(pool_probability, pool_of(batch)))
        if progress.generator("cutmix").random() >= self.cutmix:
            return labelled, pool, embedding
        batch_size = len(pool.image)
        partner = partners(batch_size).to(images.device)
        other = select(pool, partner)
        rngs = progress.generators("rectangles", batch_size)
        region = rectangles(_size(images), rngs).to(images.device)
        of_labelled, of_pool = embedding[: len(labelled.image)], embedding[len(labelled.image) :]
        small = nearest(region, _size(embedding)).unsqueeze(1)
        mixed_embedding = torch.where(small, of_pool[partner], of_pool)
        return labelled, paste(region, other, pool), torch.cat([of_labelled, mixed_embedding])

    def contrast(
        self,
        embedding: Tensor,
        teacher_embedding: Tensor,
        targets: Targets,
        *,
        known: Tensor,
        reliable: Tensor,
        unreliable: Tensor,
        progress: Progress,
    ) -> tuple[Tensor, Tensor]:
        """L_c, and the share of the valid pixels that may be anchors; fills the memory bank.

        Anchors are drawn from the pixels of all processes, image after image, and each process
        takes those that lie on its own.

        Args:
            embedding: (B, D, h, w) float, the student's.
            teacher_embedding: (B, D, h, w) float.
            targets: at (H, W), like the masks.
            known: (B, H, W) bool, the true label is known.
            reliable: (B, H, W) bool: ``known``, or of low entropy.
            unreliable: (B, H, W) bool: unknown, and of high entropy.
            progress: of the step.
        """
        size = _size(embedding)
        label, known, reliable, unreliable, valid = (
            nearest(x, size).flatten().unsqueeze(1)
            for x in (targets.hard, known, reliable, unreliable, targets.valid)
        )
        probability = _by_pixel(nearest(targets.probability, size))
        classes = probability.shape[1]
        rank = probability.argsort(dim=1, descending=True, stable=True).argsort(1)
        is_class = label == torch.arange(classes, device=label.device)
        anchor = reliable & is_class & (probability > self.anchor_probability)
        negative = known & ~is_class & (rank < self.low_rank)
        negative |= unreliable & (rank >= self.low_rank) & (rank < self.high_rank)

        ours, theirs = _by_pixel(embedding), _by_pixel(teacher_embedding)
        weight = anchor.to(theirs.dtype)
        sums, counts = distributed.total(weight.T @ theirs), distributed.total(weight.sum(0))
        centre = F.normalize(sums / counts.clamp(min=1).unsqueeze(1), dim=1)
        held = distributed.joined(anchor.sum(0).unsqueeze(0)).tolist()  # by process and class
        losses = []
        for c in range(classes):
            self.bank.push(c, theirs[negative[:, c].nonzero()[-self.bank.longest(c) :, 0]])
            candidates, queue = anchor[:, c].nonzero()[:, 0], self.bank.queue(c)
            before = sum(row[c] for row in held[: distributed.rank()])
            everywhere = sum(row[c] for row in held)
            if not everywhere or not len(queue):
                continue
            rng = progress.generator(f"contrast: class {c}")
            chosen = torch.from_numpy(rng.integers(everywhere, size=self.anchors)) - before
            drawn = torch.from_numpy(rng.integers(len(queue), size=(self.anchors, self.negatives)))
            here = (chosen >= 0) & (chosen < len(candidates))
            # Not ``ours[...]``: on several threads its gradient sums in an order of their own.
            z = F.normalize(ours.index_select(0, candidates[chosen[here].to(ours.device)]), dim=1)
            negative_samples = queue[drawn[here].to(queue.device)].to(z.dtype)
            similarity = torch.cat(
                [(z @ centre[c]).unsqueeze(1), torch.einsum("md,mnd->mn", z, negative_samples)],
                dim=1,
            )
            loss = -F.log_softmax(similarity / self.temperature, dim=1)[:, 0].sum()
            losses.append(loss / self.anchors * distributed.number())
        share = pixels(anchor.any(1)) / pixels(valid).clamp(min=1)
        return (torch.stack(losses).mean() if losses else 0 * embedding.sum()), share


def by_sample(labelled: int, pool: int) -> Tensor:
    """Two joined streams → image 0 of each, image 1 of each, …: the same order for any number of
    processes."""
    return torch.cat([torch.arange(labelled), torch.arange(pool)]).argsort(stable=True)


def quantile(values: Tensor, counted: Tensor, share: float) -> Tensor:
    """The value below which a share in [0, 1] of the counted ones lies, linearly interpolated."""
    ordered = values.masked_fill(~counted, torch.inf).flatten().sort().values
    position = share * (counted.sum() - 1).clamp(min=0)
    below = position.floor().long()
    first, second = ordered[below], ordered[position.ceil().long()]
    # At the end both may be infinite.
    return torch.where(first == second, first, first + (second - first) * (position - below))


def nearest(x: Tensor, size: tuple[int, int]) -> Tensor:
    """The pixels of (..., H, W) that stand for the cells of a coarser (..., h, w) grid."""
    height, width = x.shape[-2:]
    rows = torch.arange(size[0], device=x.device) * height // size[0]
    columns = torch.arange(size[1], device=x.device) * width // size[1]
    return x[..., rows[:, None], columns]


def _both_heads(network: nn.Module, images: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Logits at ``size`` and embeddings; the encoder runs once."""
    parts = cast(Network, network)
    fused = parts.fuse(*parts.features(images))
    return parts.classify(fused, size=size), parts.represent(fused)


def _by_pixel(x: Tensor) -> Tensor:
    """(B, C, H, W) → (B·H·W, C)."""
    return x.movedim(1, -1).flatten(0, 2)


def _joined(*parts: Targets, order: Tensor) -> Targets:
    tensors = zip(*(part.tensors for part in parts), strict=True)
    return Targets(*(torch.cat(streams)[order] for streams in tensors))


def _size(x: Tensor) -> tuple[int, int]:
    return (x.shape[-2], x.shape[-1])
