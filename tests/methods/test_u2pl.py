"""U²PL against its equations, pixel by pixel, its reductions, and its memory."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given as given_values
from hypothesis import strategies as st
from torch import Tensor

from oracles import u2pl as oracle
from s5mars.classes import IGNORE
from s5mars.methods.memory_bank import MemoryBank
from s5mars.methods.u2pl import U2PL, by_sample, nearest, quantile
from s5mars.methods.views import pool_of
from s5mars.models.deeplab import DeepLabV3Plus
from s5mars.objective.alignment import Alignment
from s5mars.objective.losses import cross_entropy
from s5mars.settings.parsing import parse_training
from s5mars.types import Batch, Crops, Progress, Targets, as_predicted
from tiny import PixelNet, batch, progress_at

PROGRESS = progress_at(seed=3, step=5, total=20)
CLASSES = 5


def networks() -> tuple[PixelNet, PixelNet]:
    torch.manual_seed(1)
    return PixelNet(CLASSES), PixelNet(CLASSES)


def given_batch(seed: int = 0, **kwargs: float) -> Batch:
    return batch(seed=seed, size=8, classes=CLASSES, **kwargs)  # type: ignore[arg-type]


def test_a_rectangle_is_pasted_whole() -> None:
    """As in FixMatch and the authors' code: what is not valid covers the pixels below it."""
    _, teacher = networks()
    given = given_batch(seed=5, pool_labelled=0.0)
    valid = pool_of(given).valid
    valid[:] = True
    valid[1] = False
    _, mixed, _ = U2PL(cutmix=1.0).weak_predictions(teacher, given, PROGRESS)
    assert not mixed.targets.valid[[0, 2]].all()


@pytest.mark.parametrize("cutmix", [0.0, 1.0])
@pytest.mark.parametrize("pool_labelled", [0.2, 0.0])
def test_objective_against_the_equations(cutmix: float, pool_labelled: float) -> None:
    student, teacher = networks()
    method = U2PL(anchors=6, negatives=4, cutmix=cutmix)
    banks: dict[int, list[oracle.Array]] = {}
    for step in (5, 6):  # the second finds the memory of the first
        progress = dataclasses.replace(PROGRESS, step=step)
        given = given_batch(seed=step, pool_labelled=pool_labelled)
        terms = method.losses(student, teacher, given, progress)
        labelled, mixed, teacher_embedding = method.weak_predictions(teacher, given, progress)
        with torch.no_grad():
            images = torch.cat([labelled.image, mixed.image])
            logits = student(images)
            embedding = student.represent(logits)
            # No pixel of this network sees another: what is pasted is what the paste would give.
            pasted = teacher.represent(teacher(mixed.image))
            torch.testing.assert_close(teacher_embedding[3:], pasted)
        targets = mixed.targets
        array = {
            "probability": targets.probability.double().numpy(),
            "label": targets.label.numpy(),
            "valid": targets.valid.numpy(),
        }
        reliable, sure, unsure = oracle.split(**array, drop=80, anchors=20, left=1 - step / 20)
        unsupervised = oracle.unsupervised(
            logits[3:].double().numpy(), targets.hard.numpy(), reliable, array["valid"]
        )
        assert float(terms["reliable"].value.detach()) == pytest.approx(unsupervised, rel=1e-4)
        assert float(terms["reliable"].share or 0) == pytest.approx(
            reliable.sum() / array["valid"].sum()
        )

        first = labelled.targets.label.numpy() != IGNORE
        known = array["valid"] & (array["label"] != IGNORE)

        def draw(
            c: int, candidates: int, length: int, at: Progress = progress
        ) -> tuple[oracle.Labels, oracle.Labels]:
            rng = at.generator(f"contrast: class {c}")
            return rng.integers(candidates, size=6), rng.integers(length, size=(6, 4))

        order = by_sample(3, 3)
        assert order.tolist() == [0, 3, 1, 4, 2, 5]
        contrastive = oracle.contrastive(
            embedding[order].double().numpy(),
            teacher_embedding[order].double().numpy(),
            torch.cat([labelled.targets.probability, targets.probability])[order].double().numpy(),
            torch.cat([labelled.targets.hard, targets.hard])[order].numpy(),
            np.concatenate([first, known])[order],
            np.concatenate([first, sure])[order],
            np.concatenate([np.zeros_like(first), unsure])[order],
            draw=draw, banks=banks, delta=0.3, low=3, high=20, temperature=0.5,
        )  # fmt: skip
        assert contrastive > 0
        assert float(terms["contrastive"].value.detach()) == pytest.approx(contrastive, rel=1e-3)
        for c, bank in banks.items():
            assert len(method.bank.queue(c)) == len(bank)


def test_without_drop_or_contrast_it_is_pseudo_labelling() -> None:
    student, teacher = networks()
    given = given_batch(pool_labelled=0.0)
    assert given.pool is not None
    method = U2PL(drop_percent=100.0, contrastive_weight=0.0, cutmix=0.0)
    terms = method.losses(student, teacher, given, PROGRESS)
    with torch.no_grad():
        pseudo = teacher(given.pool.image).argmax(1)
        pseudo[~given.pool.valid] = IGNORE
        expected = cross_entropy(student(given.pool.image), pseudo)
    assert terms["reliable"].share == 1
    torch.testing.assert_close(terms["reliable"].value.detach(), expected)
    assert terms["contrastive"].weight == 0


def test_fewer_pixels_are_dropped_as_the_run_goes_on() -> None:
    student, teacher = networks()
    given = given_batch(pool_labelled=0.0, valid=1.0)
    shares = [
        float(
            U2PL(cutmix=0.0)
            .losses(student, teacher, given, dataclasses.replace(PROGRESS, step=step))["reliable"]
            .share
            or 0
        )
        for step in (0, 10, 19)
    ]
    assert shares == pytest.approx([0.8, 0.9, 0.99], abs=0.02)


def test_the_pull_is_to_the_own_centre_and_away_from_the_memory() -> None:
    """One class, one negative: the loss is the softmax of two cosines by hand."""
    method = U2PL(anchors=1, negatives=1)
    embedding = torch.tensor([[3.0, 0.0], [0.0, 5.0]]).T.reshape(1, 2, 1, 2).requires_grad_()
    targets = Targets(
        probability=torch.tensor([[0.9, 0.6], [0.1, 0.4]]).reshape(1, 2, 1, 2),
        label=torch.tensor([[[0, 1]]]),
        valid=torch.ones(1, 1, 2, dtype=torch.bool),
    )
    known = torch.ones(1, 1, 2, dtype=torch.bool)
    value, share = method.contrast(
        embedding,
        embedding.detach(),
        targets,
        known=known,
        reliable=known,
        unreliable=~known,
        progress=PROGRESS,
    )
    # Each pixel is the only negative of the other's class: cosines 1 and 0 over τ = 0.5.
    expected = -torch.tensor([2.0, 0.0]).log_softmax(0)[0]
    torch.testing.assert_close(value.detach(), expected)
    assert share == 1
    assert (method.bank.queue(0).tolist(), method.bank.queue(1).tolist()) == ([[0, 1]], [[1, 0]])


def test_the_schedule_starts_when_the_pool_comes_in() -> None:
    student, teacher = networks()
    given = given_batch(pool_labelled=0.0, valid=1.0)
    late = dataclasses.replace(PROGRESS, step=10, pool_from=10)
    terms = U2PL(cutmix=0.0).losses(student, teacher, given, late)
    assert float(terms["reliable"].share or 0) == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_real_network_runs_each_encoder_once_and_embeds_every_fourth_pixel(
    precision: torch.dtype,
) -> None:
    student, teacher = (DeepLabV3Plus("test_resnet", CLASSES, representation=16) for _ in "st")
    calls = {"student": 0, "teacher": 0}

    def count(name: str) -> None:
        calls[name] += 1

    student.encoder.register_forward_hook(lambda *_: count("student"))
    teacher.encoder.register_forward_hook(lambda *_: count("teacher"))
    given = batch(size=50, classes=CLASSES)
    alignment = Alignment(torch.arange(1.0, 1 + CLASSES), momentum=0.98, power=1.0)

    def aligned(probability: Tensor, pool: Crops) -> Targets:
        return as_predicted(alignment(probability, pool.valid), pool)

    progress = dataclasses.replace(PROGRESS, pseudo_labels=aligned)
    teacher.eval()
    with torch.autocast("cpu", dtype=precision, enabled=precision != torch.float32):
        terms = U2PL(cutmix=1.0).losses(student, teacher, given, progress)
    assert all(term.value.dtype == torch.float32 for term in terms.values())
    assert calls == {"student": 1, "teacher": 1}
    assert all(term.value.isfinite() for term in terms.values())
    torch.stack([term.value for term in terms.values()]).sum().backward()
    assert student.representation is not None
    assert all(p.grad is not None for p in student.representation.parameters())


def test_the_command_line_builds_it() -> None:
    settings = parse_training(
        ["--data=d", "--out=o", "--steps=5", "--method=u2pl", "--u2pl.anchors=8", "--ohem"]
    )
    assert isinstance(settings.method, U2PL)
    assert (settings.method.anchors, settings.config.ohem) == (8, True)
    assert settings.method.bank.longest(0) == 50_000
    assert settings.method.bank.longest(1) == 30_000


@pytest.mark.parametrize("change", [{"drop_percent": 101.0}, {"queue": 0}, {"first_queue": -1}])
def test_settings_that_cannot_work_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"must be .* \(got (101\.0|0|-1)\)"):
        U2PL(**change)  # type: ignore[arg-type]


@given_values(st.integers(0, 1000), st.floats(0, 1))
def test_quantiles_are_numpys(seed: int, share: float) -> None:
    random = torch.Generator().manual_seed(seed)
    values = torch.rand(2, 5, 4, generator=random).double()
    counted = torch.rand(2, 5, 4, generator=random) < 0.7
    counted[0, 0, 0] = True
    expected = np.quantile(values[counted].numpy(), share)
    assert float(quantile(values, counted, share)) == pytest.approx(expected, abs=1e-6)
    assert quantile(values, counted, 1.0) == values[counted].max()
    assert quantile(values, counted, 0.0) == values[counted].min()


def test_nearest_takes_pixels_of_a_regular_grid() -> None:
    x = torch.arange(48).reshape(1, 6, 8)
    assert nearest(x, (3, 2)).tolist() == [[[0, 4], [16, 20], [32, 36]]]
    assert torch.equal(nearest(x, (6, 8)), x)
    as_torch = torch.nn.functional.interpolate(x[None].float(), (4, 3), mode="nearest")[0]
    assert torch.equal(nearest(x, (4, 3)).float(), as_torch)


def test_the_oldest_leave_a_full_queue_and_only_what_is_filled_is_saved() -> None:
    bank = MemoryBank(size=4, first_size=6)
    vectors = torch.eye(8)
    bank.push(1, vectors[:3] * 5)
    bank.push(1, vectors[3:6])
    bank.push(0, vectors)
    assert bank.queue(1).tolist() == vectors[2:6].tolist()
    assert bank.queue(0).tolist() == vectors[2:].tolist()
    assert bank.queue(2).numel() == 0
    state = bank.get_extra_state()
    assert {label: queue.shape for label, queue in state.items()} == {0: (6, 8), 1: (4, 8)}
    assert all(queue.untyped_storage().nbytes() == queue.numel() * 2 for queue in state.values())
    restored = MemoryBank(size=4, first_size=6)
    restored.load_state_dict(bank.state_dict())
    assert torch.equal(restored.queue(1), bank.queue(1))


def test_invalid_and_unlabelled_pixels_are_never_remembered() -> None:
    student, teacher = networks()
    given = given_batch()
    assert given.pool is not None
    blind = Crops(
        given.pool.image,
        torch.full_like(given.pool.label, IGNORE),
        torch.zeros_like(given.pool.valid),
    )
    unlabelled = Crops(
        given.labelled.image, torch.full_like(given.labelled.label, IGNORE), given.labelled.valid
    )
    method = U2PL()
    terms = method.losses(student, teacher, Batch(labelled=unlabelled, pool=blind), PROGRESS)
    assert all(not len(method.bank.queue(c)) for c in range(CLASSES))
    assert all(term.value == 0 for term in terms.values())
