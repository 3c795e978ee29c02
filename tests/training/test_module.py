"""The training module: what its settings do to every method alike."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from s5mars.methods import METHODS
from s5mars.models.deeplab import DeepLabV3Plus
from s5mars.objective.losses import cross_entropy, ohem_cross_entropy
from s5mars.objective.thresholds import above_threshold
from s5mars.settings.config import Kept, TrainConfig
from s5mars.training.finite import NotFiniteError, require_finite, require_finite_losses
from s5mars.training.module import SegmentationModule
from s5mars.training.notes import before_the_pool, few_pool_crops
from s5mars.training.record import Record, kept_entry
from tiny import batch

AREAS = torch.tensor([4.0, 3.0, 2.0, 1.0])


def module_of(method: str = "s5mars", *, steps: int = 100, **changes: Any) -> SegmentationModule:
    settings = {"warm_up": 0.1, "model": "test_resnet", "weights": "none", "batch": 4} | changes
    config = TrainConfig(data=Path("data"), out=Path("out"), method=method, steps=steps, **settings)
    chosen = METHODS[method]()
    student = DeepLabV3Plus("test_resnet", 4, representation=chosen.needs.representation)
    given = DeepLabV3Plus("test_resnet", 4).eval() if chosen.needs.given_teacher else None
    return SegmentationModule(
        student, chosen, config=config, total_steps=steps, areas=AREAS, given_teacher=given
    )


@pytest.mark.parametrize("name", METHODS)
def test_in_a_warm_up_every_method_is_supervised(name: str) -> None:
    module = module_of(name)
    module.student.eval()  # dropout rests
    given = batch(size=32)
    terms = module.objective(given, module.progress(9))
    assert terms.keys() == {"supervised"} and terms["supervised"].weight == 1
    expected = cross_entropy(module.student(given.labelled.image), given.labelled.label)
    torch.testing.assert_close(terms["supervised"].value, expected)
    # Several processes wait for a gradient of every parameter.
    terms["supervised"].value.backward()
    assert all(parameter.grad is not None for parameter in module.student.parameters())
    if METHODS[name]().needs.pool:
        later = module.objective(given, module.progress(10))
        assert later.keys() > {"supervised"}


def test_the_optimiser_does_not_count_the_warm_up_of_a_head_that_is_not_used() -> None:
    module = module_of("u2pl", optimiser="adamw", learning_rate=0.01)
    head = module.student.representation
    assert head is not None
    before = [parameter.detach().clone() for parameter in head.parameters()]
    for step, used in ((0, False), (9, False), (10, True)):
        terms = module.objective(batch(size=32), module.progress(step))
        total = torch.stack([term.weight * term.value for term in terms.values()]).sum()
        total.backward()
        module.leave_out_unused()
        assert all((parameter.grad is not None) == used for parameter in head.parameters())
        module.optimizer.step()
        module.optimizer.zero_grad()
        assert used or all(map(torch.equal, before, head.parameters()))
    assert all(module.optimizer.state[parameter]["step"] == 1 for parameter in head.parameters())


def test_the_pool_alone_is_averaged_and_aligned() -> None:
    module = module_of(alignment=0.9)
    given = batch(size=32, pool_labelled=0.0)
    assert given.pool is not None and module.alignment is not None
    with torch.no_grad():
        assert module.teacher is not None
        said = module.teacher(given.pool.image).softmax(1)
    module.objective(given, module.progress(50))
    counted = given.pool.valid.unsqueeze(1)
    expected = (said * counted).sum((0, 2, 3)) / counted.sum()
    torch.testing.assert_close(module.alignment.predicted.value, expected)


def test_the_criterion_is_a_setting_of_the_run() -> None:
    assert module_of().progress(0).criterion is cross_entropy
    assert module_of(ohem=True).progress(0).criterion is ohem_cross_entropy


def test_the_weight_of_the_pool_is_a_setting_of_the_run() -> None:
    module = module_of(unsupervised=0.5, warm_up=0.1, ramp=0.2)
    weights = [module.progress(step).ramp for step in (9, 10, 20, 30, 99)]
    assert weights == pytest.approx([0, 0.5 * math.exp(-5), 0.5 * math.exp(-5 / 4), 0.5, 0.5])


def test_a_run_asks_for_a_fixed_threshold_unless_told_otherwise() -> None:
    assert module_of().progress(0).keep is above_threshold
    assert module_of(thresholds="flexmatch").progress(0).keep is not above_threshold


def test_the_encoder_has_a_rate_of_its_own() -> None:
    module = module_of(learning_rate=0.1, encoder_rate=0.5)
    groups = module.optimizer.param_groups
    rates = {
        id(parameter): group["initial_lr"] for group in groups for parameter in group["params"]
    }
    assert {rates[id(p)] for p in module.student.encoder.parameters()} == {0.05}
    assert rates[id(module.student.classifier.weight)] == 0.1
    assert len(rates) == len(list(module.student.parameters()))


def test_the_recorded_rate_is_that_of_the_head_in_the_last_step() -> None:
    module = module_of("supervised", steps=4, learning_rate=0.1, encoder_rate=0.5)
    head = next(
        group
        for group in module.optimizer.param_groups
        if any(p is module.student.classifier.weight for p in group["params"])
    )
    assert module.learning_rate == 0.1
    for _ in range(4):
        used = head["lr"]
        module.optimizer.step()
        module.finish_step()
        assert module.learning_rate == pytest.approx(used) and used > 0


def test_the_teacher_begins_as_the_student_of_the_first_step() -> None:
    module = module_of(teacher_span=0.0)
    assert module.teacher is not None
    for value, averaged in ((1.0, 1.0), (3.0, 2.0), (8.0, 4.0)):  # the mean, while that is short
        with torch.no_grad():
            module.student.classifier.weight.fill_(value)
        module.optimizer.step()
        module.finish_step()
        weight = module.teacher.classifier.weight
        torch.testing.assert_close(weight, torch.full_like(weight, averaged))


def test_frozen_statistics_do_not_move() -> None:
    module = module_of("supervised", freeze_norm=True)
    norms = [m for m in module.student.encoder.modules() if isinstance(m, nn.BatchNorm2d)]
    others = [m for m in module.student.pyramid.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and others
    before = [norm.running_mean.clone() for norm in norms]  # type: ignore[union-attr]
    module.objective(batch(size=32), module.progress(0))
    assert all(torch.equal(a, b.running_mean) for a, b in zip(before, norms, strict=True))  # type: ignore[arg-type]
    assert all(norm.num_batches_tracked == 1 for norm in others)


def test_statistics_that_are_not_numbers_are_not_saved() -> None:
    """They may go wrong before the loss does, and the teacher's do not enter it."""
    module = module_of()
    require_finite(module)
    for network in (module.student, module.teacher):
        assert network is not None
        statistics = next(x for name, x in network.named_buffers() if "running_mean" in name)
        value = statistics[0].clone()
        statistics[0] = torch.nan
        with pytest.raises(NotFiniteError, match="weights"):
            require_finite(module)
        statistics[0] = value
    require_finite(module)


@pytest.mark.parametrize(
    ("precision", "amx", "advised"),
    [("auto", False, False), ("auto", True, True), ("bf16", False, True), ("fp32", True, False)],
)
def test_fp32_is_advised_only_where_it_would_change_something(
    precision: str, amx: bool, advised: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s5mars.training.environment.has_amx", lambda: amx)
    module = module_of(precision=precision, accelerator="cpu")
    module.sums.add("loss", torch.tensor(torch.nan))
    with pytest.raises(NotFiniteError) as found:
        require_finite_losses(module)
    assert ("--precision fp32" in str(found.value)) == advised


@pytest.mark.parametrize(("keep", "expected"), [("best", 10), ("last", 100), ("after-warm-up", 50)])
def test_which_checkpoint_is_kept(keep: Kept, expected: int) -> None:
    history = [
        {"step": step, "validation": {"mIoU": score}}
        for step, score in ((5, 30.0), (10, 60.0), (50, 50.0), (75, 50.0), (100, 40.0))
    ]
    kept = kept_entry(history, keep=keep, pool_from=10)
    assert kept is not None and kept["step"] == expected


def test_the_time_since_the_last_validation_goes_through_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("s5mars.training.record.time.monotonic", lambda: now)
    config = TrainConfig(data=tmp_path, out=tmp_path, steps=1)
    first, second = (Record(config, None, None, None) for _ in range(2))  # type: ignore[arg-type]
    now += 7.0
    second.restore(first.state())
    assert second.seconds == 7.0


@pytest.mark.parametrize("keep", ["best", "last", "after-warm-up"])
def test_without_any_score_the_last_checkpoint_is_kept(keep: Kept) -> None:
    """As for a val split without a labelled pixel; its weights are saved, too."""
    history = [{"step": step, "validation": {"mIoU": None}} for step in (5, 10)]
    assert kept_entry(history, keep=keep, pool_from=0) == history[-1]
    assert kept_entry([], keep=keep, pool_from=0) is None


def test_crops_of_the_pool_are_counted() -> None:
    assert module_of().pool_crops == 4 * 90
    assert module_of("supervised").pool_crops == 0
    assert "360 crops" in few_pool_crops(360)
    assert not few_pool_crops(0) and not few_pool_crops(20_000)


def test_a_model_from_before_the_pool_is_told() -> None:
    facts = {"pool_images": 7, "pool_from": 10, "kept": "best"}
    assert before_the_pool(10, facts).endswith("--keep after-warm-up or last keeps a later one.")
    # Before the pool, these keep the newest checkpoint.
    for kept in ("last", "after-warm-up"):
        assert before_the_pool(10, facts | {"kept": kept}).endswith("trained on labels alone.")
    assert not before_the_pool(11, facts)
    assert not before_the_pool(10, {"pool_images": 0, "pool_from": 0})


def test_the_supervised_average_is_scored_and_learns_as_supervised() -> None:
    module = module_of("supervised_averaged")
    assert module.scored_name == "teacher"
    assert module.objective(batch(size=32), module.progress(0)).keys() == {"supervised"}
