"""What every method must keep, whatever it does; a new method is tested by being in the dict."""

from __future__ import annotations

import copy
from dataclasses import fields, replace

import pytest
import torch

from s5mars.classes import IGNORE
from s5mars.errors import UserError
from s5mars.methods import METHODS, method_class
from s5mars.types import Batch, Crops, Needs, Targets, Term, as_predicted
from tiny import PixelNet, batch, progress_at

PROGRESS = progress_at(seed=0, step=5, total=10)


@pytest.fixture(params=sorted(METHODS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def networks() -> tuple[PixelNet, PixelNet]:
    torch.manual_seed(0)
    student = PixelNet()
    teacher = copy.deepcopy(student).eval()
    with torch.no_grad():
        teacher.convolution.weight.add_(torch.randn_like(teacher.convolution.weight) * 0.1)
    return student, teacher


def terms_of(name: str, given: Batch) -> tuple[dict[str, Term], PixelNet, PixelNet]:
    student, teacher = networks()
    return METHODS[name]().losses(student, teacher, given, PROGRESS), student, teacher


def test_every_term_gives_the_student_a_gradient(name: str) -> None:
    terms, student, _ = terms_of(name, batch())
    for key, term in terms.items():
        assert term.share is None or term.share > 0, f"{key}: this batch should give it pixels"
        student.zero_grad()
        term.value.backward(retain_graph=True)
        assert student.convolution.weight.grad is not None
        assert student.convolution.weight.grad.abs().sum() > 0, key


def test_no_gradient_reaches_the_teacher(name: str) -> None:
    terms, _, teacher = terms_of(name, batch())
    sum(t.weight * t.value for t in terms.values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is None for p in teacher.parameters())


def test_ignored_pixels_change_nothing(name: str) -> None:
    given = batch(valid=0.8)
    assert given.pool is not None

    def disturbed(crops: Crops, hidden: torch.Tensor) -> Crops:
        image = crops.image.clone()
        image[hidden.unsqueeze(1).expand_as(image)] = 7
        return Crops(image, crops.label, crops.valid, crops.objects)

    other = Batch(
        labelled=disturbed(
            given.labelled, ~given.labelled.valid & (given.labelled.label == IGNORE)
        ),
        pool=disturbed(given.pool, ~given.pool.valid),
    )
    # Without resampling: a bilinear object edge may touch a neighbour that is not valid.
    before, after = (terms_without_turning(name, b) for b in (given, other))
    for key, term in before.items():
        torch.testing.assert_close(term.value, after[key].value)


def test_pseudo_labels_are_asked_for_once_about_the_pool_alone(name: str) -> None:
    if not METHODS[name]().needs.pool:
        pytest.skip("it has no pool")
    given = batch(valid=0.7)
    assert given.pool is not None
    asked: list[tuple[torch.Tensor, Crops]] = []

    def pseudo_labels(probability: torch.Tensor, pool: Crops) -> Targets:
        asked.append((probability, pool))
        return as_predicted(probability, pool)

    student, teacher = networks()
    progress = replace(PROGRESS, pseudo_labels=pseudo_labels)
    METHODS[name]().losses(student, teacher, given, progress)
    ((probability, pool),) = asked
    assert pool is given.pool
    assert probability.shape == (3, 4, 24, 24)
    assert not probability.requires_grad
    torch.testing.assert_close(probability.sum(1), torch.ones(3, 24, 24))
    # It is what the labelling network says of this very stream, up to noise of the method's own.
    with torch.no_grad():
        said = teacher(pool.image).softmax(1)
    assert (probability - said).abs().mean() < 0.05


def test_what_the_step_says_of_the_pool_is_what_is_learned(name: str) -> None:
    """Every pool term follows the aligned probabilities: nobody goes back to the teacher's own."""
    if not METHODS[name]().needs.pool:
        pytest.skip("it has no pool")

    def certainly(label: int) -> dict[str, Term]:
        def pseudo_labels(probability: torch.Tensor, pool: Crops) -> Targets:
            other = torch.full_like(probability, 0.005)
            other[:, label] = 1 - 3 * 0.005
            other[..., ::2] = 0.07  # every second column is unsure
            other[:, label, :, ::2] = 1 - 3 * 0.07
            return as_predicted(other, pool)

        student, teacher = networks()
        progress = replace(PROGRESS, pseudo_labels=pseudo_labels)
        return METHODS[name]().losses(student, teacher, batch(pool_labelled=0.0), progress)

    first, second = certainly(0), certainly(1)
    for key, term in first.items():
        if key == "supervised" or not (term.share is None or term.share > 0):
            continue
        assert not torch.equal(term.value, second[key].value), key


def test_no_term_of_the_pool_says_otherwise_than_its_labels(name: str) -> None:
    """Where every pool pixel is labelled, what the teacher says of the pool changes nothing."""
    if not METHODS[name]().needs.pool:
        pytest.skip("it has no pool")
    given = batch(pool_labelled=1.1, valid=1.0)
    assert given.pool is not None and (given.pool.label != IGNORE).all()
    values = []
    for step in (1.0, -1.0):

        def pseudo_labels(probability: torch.Tensor, pool: Crops, to: float = step) -> Targets:
            changed = (probability.log() * (1 + 0.2 * to)).softmax(1)
            return as_predicted(changed, pool)

        student, teacher = networks()
        method = METHODS[name]()
        if hasattr(method, "mix"):  # donors keep pixels without a label
            method = replace(method, mix=replace(method.mix, source="none"))  # type: ignore[type-var]
        if hasattr(method, "labelled_patches"):
            method = replace(method, labelled_patches=False)  # type: ignore[type-var]
        if name == "ranpaste":
            given = Batch(replace(given.labelled, valid=given.labelled.valid & False), given.pool)
        progress = replace(PROGRESS, pseudo_labels=pseudo_labels)
        values.append(method.losses(student, teacher, given, progress))
    for key, term in values[0].items():
        if key in {"contrastive"}:
            continue  # ranks of the teacher choose its negatives
        torch.testing.assert_close(term.value, values[1][key].value, msg=key)


def terms_without_turning(name: str, given: Batch) -> dict[str, Term]:
    import dataclasses

    student, teacher = networks()
    method = METHODS[name]()
    if hasattr(method, "mix"):
        still = dataclasses.replace(method.mix, rotation=0.0, flip=0.0, rescale=(1.0, 1.0))
        method = dataclasses.replace(method, mix=still)  # type: ignore[type-var]
    return method.losses(student, teacher, given, PROGRESS)


def test_needs_are_enough(name: str) -> None:
    needs: Needs = METHODS[name]().needs
    full = batch()
    given = Batch(
        labelled=Crops(
            full.labelled.image,
            full.labelled.label,
            full.labelled.valid,
            full.labelled.objects if needs.objects else None,
        ),
        pool=full.pool if needs.pool else None,
    )
    terms, _, _ = terms_of(name, given)
    assert all(term.value.isfinite() for term in terms.values())


def test_a_batch_without_any_label_or_valid_pixel_is_finite(name: str) -> None:
    given = batch(pool_labelled=0.0, valid=0.0)
    terms, student, _ = terms_of(name, given)
    loss = torch.stack([t.weight * t.value for t in terms.values()]).sum()
    loss.backward()
    assert loss.isfinite()
    assert student.convolution.weight.grad is not None
    assert student.convolution.weight.grad.isfinite().all()


def test_the_same_step_gives_the_same_terms(name: str) -> None:
    first, _, _ = terms_of(name, batch())
    second, _, _ = terms_of(name, batch())
    assert all(torch.equal(first[k].value, second[k].value) for k in first)


def test_the_ramp_scales_what_the_pool_adds(name: str) -> None:
    whole, half = (
        METHODS[name]().losses(*networks(), batch(), replace(PROGRESS, ramp=ramp))
        for ramp in (1.0, 0.5)
    )
    for key, term in whole.items():
        scale = 1.0 if key == "supervised" else 0.5
        assert half[key].weight == pytest.approx(scale * term.weight), key


def test_a_batch_without_the_pool_that_it_needs_is_refused(name: str) -> None:
    method = METHODS[name]()
    if method.needs.pool:
        with pytest.raises(ValueError, match="pool"):
            method.losses(*networks(), Batch(labelled=batch().labelled), PROGRESS)


def test_no_gradient_is_summed_in_the_order_of_threads(name: str) -> None:
    """``x[index]`` on several threads: its gradient is not twice the same, and resuming broke."""
    terms, _, _ = terms_of(name, batch())
    seen, left = set(), [term.value.grad_fn for term in terms.values()]
    while left:
        node = left.pop()
        if node is not None and node not in seen:
            seen.add(node)
            left += [following for following, _ in node.next_functions]
    assert "IndexBackward0" not in {node.name() for node in seen}


def test_several_threads_give_the_same_gradient_each_time(name: str) -> None:
    """Resuming bit for bit needs it; all other tests have one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        gradients = [gradient(name, batch(size=128)) for _ in range(3)]
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(gradients[0], gradients[1]) and torch.equal(gradients[0], gradients[2])


def gradient(name: str, given: Batch) -> torch.Tensor:
    terms, student, _ = terms_of(name, given)
    torch.stack([term.weight * term.value for term in terms.values()]).sum().backward()
    assert student.convolution.weight.grad is not None
    return student.convolution.weight.grad


def test_a_threshold_in_percent_is_refused(name: str) -> None:
    """No confidence is above 95: the method would silently train on labels alone."""
    thresholds = [
        each.name
        for each in fields(METHODS[name])  # type: ignore[arg-type]
        if "threshold" in each.name or each.name == "confident"
    ]
    for threshold in thresholds:
        for value in (95.0, float("nan")):
            with pytest.raises(UserError, match=f"{threshold} must be"):
                METHODS[name](**{threshold: value})
        METHODS[name](**{threshold: 1.0})


def test_an_unknown_method_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="nearest first: s5mars"):
        method_class("s5mar")
