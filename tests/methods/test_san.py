"""SAN's loss against its equations, and what sparse labels may not do to it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from oracles import san as oracle
from s5mars.classes import IGNORE
from s5mars.methods.san import Drawn, San, bce, dice, match, share_labelled
from s5mars.models.san import QueryOutput
from s5mars.types import Batch, Crops, Term
from tiny import crops, progress_at

PROGRESS = progress_at(seed=0, step=3, total=10)
SIZE = 8


class Queries(nn.Module):
    """Masks and classes that depend on no image."""

    def __init__(self, batch: int = 1, queries: int = 5, classes: int = 4) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.masks = nn.Parameter(torch.randn(batch, queries, SIZE, SIZE, generator=generator))
        self.classes = nn.Parameter(torch.randn(batch, queries, classes + 1, generator=generator))

    def propose(self, image: Tensor) -> list[QueryOutput]:
        return [QueryOutput(self.masks, self.classes)]


def stream(**changes: float) -> Crops:
    settings: dict[str, float] = {"labelled": 0.6, "batch": 1, "size": SIZE} | changes
    return crops(seed=4, objects=False, **settings)  # type: ignore[arg-type]


def terms(network: nn.Module, given: Crops, method: San | None = None) -> dict[str, Term]:
    return (method or San()).losses(network, network, Batch(labelled=given), PROGRESS)


def test_against_the_equations() -> None:
    network, given = Queries(), stream()
    found = terms(network, given)
    expected = oracle.loss(network.masks[0].detach(), network.classes[0].detach(), given.label[0])
    for key, value in zip(("class", "mask", "dice"), expected, strict=True):
        assert found[key].value.item() == pytest.approx(value, rel=1e-4), key
    assert [t.weight for t in found.values()] == [2.0, 5.0, 5.0]


def test_losses_of_correct_masks_are_not_negative_under_autocast() -> None:
    """The cross-entropy is a difference of sums that half precision would round to multiples."""
    truth = torch.zeros(1, 2, 12544)
    truth[0, 0, :6000] = truth[0, 1, 6000:] = 1
    drawn = Drawn(torch.zeros(1, 12544, 1, 2), torch.ones(1, 12544), truth)
    masks = 12 * (2 * truth - 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for loss in (bce, dice):
            correct = loss(masks, drawn)[0].diagonal()
            assert (correct >= 0).all() and (correct < 1e-4).all()


def test_the_mean_over_masks_not_images() -> None:
    """Two images of different numbers of classes: every mask counts the same."""
    network, given = Queries(batch=2), stream(batch=2)
    given.label[1][given.label[1] > 0] = IGNORE
    found = terms(network, given)
    each = [
        oracle.loss(network.masks[k].detach(), network.classes[k].detach(), given.label[k])
        for k in range(2)
    ]
    counts = [len(given.label[k][given.label[k] != IGNORE].unique()) for k in range(2)]
    for key, place in (("mask", 1), ("dice", 2)):
        mean = sum(n * e[place] for n, e in zip(counts, each, strict=True)) / sum(counts)
        assert found[key].value.item() == pytest.approx(mean, rel=1e-4), key


def test_masks_at_ignored_pixels_change_no_mask_loss_and_get_no_gradient() -> None:
    network, given = Queries(), stream()
    before = terms(network, given)
    hidden = (given.label == IGNORE)[:, None].expand_as(network.masks)
    (before["mask"].value + before["dice"].value + before["class"].value).backward()
    assert network.masks.grad is not None
    assert not network.masks.grad[hidden].any() and network.masks.grad[~hidden].any()
    with torch.no_grad():
        network.masks[hidden] += 3.0
    after = terms(network, given)
    for key in ("mask", "dice"):
        torch.testing.assert_close(after[key].value, before[key].value)


def test_what_is_not_valid_changes_nothing_at_all() -> None:
    network, given = Queries(), stream(valid=0.7)
    before = terms(network, given)
    with torch.no_grad():
        network.masks[~given.valid[:, None].expand_as(network.masks)] = 5.0
    for key, term in terms(network, given).items():
        torch.testing.assert_close(term.value, before[key].value)


def test_a_query_on_unlabelled_ground_is_not_called_nothing() -> None:
    network, given = Queries(), stream()
    given.label[0, :, : SIZE // 2] = IGNORE
    given.label[0, :, SIZE // 2 :] = 1
    with torch.no_grad():
        network.masks.fill_(-20.0)
        network.masks[0, 0, :, SIZE // 2 :] = 20.0  # finds class 1
        network.masks[0, 1, :, : SIZE // 2] = 20.0  # lies where nobody labelled
        network.masks[0, 2, :, SIZE // 2 :] = 19.0  # finds what another query has found
    terms(network, given)["class"].value.backward()
    grad = network.classes.grad
    assert grad is not None
    assert grad[0, 1].abs().max() < 1e-6
    assert grad[0, 2].abs().max() > 1e-3


def test_dense_labels_give_the_papers_weights() -> None:
    """Without an ignored pixel "no object" weighs 0.1, wherever a query lies."""
    network, given = Queries(), stream(labelled=1.0)
    found = share_labelled(network.masks, given)
    torch.testing.assert_close(found, torch.ones_like(found))
    assert share_labelled(network.masks, stream()).max() < 1


def test_fewer_points_are_drawn_among_the_labelled_ones() -> None:
    given = stream(batch=3)
    drawn = replace(San(), points=7).draw(given, 4, PROGRESS)
    assert drawn.grid.shape == (3, 7, 1, 2) and drawn.known.all()
    assert torch.equal(drawn.truth.sum(1), torch.ones(3, 7))  # each has one true class
    column = ((drawn.grid[..., 0, 0] + 1) / 2 * SIZE - 0.5).round().long()
    row = ((drawn.grid[..., 0, 1] + 1) / 2 * SIZE - 0.5).round().long()
    for k in range(3):
        assert torch.equal(given.label[k][row[k], column[k]].long(), drawn.truth[k].argmax(0))
    other = replace(San(), points=7).draw(given, 4, replace(PROGRESS, step=4))
    assert not torch.equal(drawn.grid, other.grid)
    # Another process has the last image, and draws for it as one process for all three does.
    last = Crops(given.image[2:], given.label[2:], given.valid[2:], None)
    there = replace(San(), points=7).draw(last, 4, replace(PROGRESS, first=2))
    assert torch.equal(there.grid, drawn.grid[2:])


def test_terms_are_means_over_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    network, given = Queries(batch=2), stream(batch=2)
    alone = terms(network, given)
    # As if a second process had a batch without a label: the common mean is half as large where
    # it brings masks, and each process gives its part times the number of processes.
    monkeypatch.setattr("s5mars.parallel.distributed.number", lambda: 2)
    monkeypatch.setattr("s5mars.parallel.distributed.total", lambda x: 4 * x)
    for name, term in terms(network, given).items():
        torch.testing.assert_close(term.value, alone[name].value / 2)


def test_no_label_at_all_is_finite() -> None:
    network = Queries()
    found = terms(network, stream(labelled=0.0))
    loss = torch.stack([t.value for t in found.values()]).sum()
    loss.backward()
    assert loss.isfinite() and found["mask"].value.item() == 0.0
    assert network.masks.grad is not None and network.masks.grad.isfinite().all()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_the_loss_of_a_network_that_has_diverged_is_not_finite(value: float) -> None:
    """The loop then ends the run in one line; scipy refuses to match such costs."""
    network = Queries()
    with torch.no_grad():
        network.masks.fill_(value)
    found = terms(network, stream())
    assert not found["mask"].value.isfinite()


def test_matching_leaves_absent_classes_out() -> None:
    cost = torch.tensor([[[0.0, -9.0, 2.0], [0.1, -9.0, 0.0], [5.0, -9.0, 5.0]]])
    image, query, name = match(cost, present=torch.tensor([[True, False, True]]))
    assert list(zip(image.tolist(), query.tolist(), name.tolist(), strict=True)) == [
        (0, 0, 0), (0, 1, 2),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("points", 0, r"points must be at least 1 \(got 0\)"),
        ("no_object", -0.1, r"no_object must be at least 0 \(got -0.1\)"),
    ],
)
def test_constants_that_the_loss_cannot_work_with(field: str, value: float, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(San(), **{field: value})
