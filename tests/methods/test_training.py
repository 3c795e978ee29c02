"""Every method in the real training module: it learns two images, and stopping changes nothing."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from looped import STOPPED, fit
from s5mars.classes import IGNORE
from s5mars.methods import METHODS
from s5mars.models.deeplab import DeepLabV3Plus
from s5mars.objective.losses import cross_entropy
from s5mars.settings.config import TrainConfig
from s5mars.training.module import SegmentationModule
from s5mars.types import Batch, Crops

STEPS, STOP, SIZE, CLASSES = 20, 16, 32, 4


def two_images(seed: int, *, labelled: float) -> Crops:
    """Two images of coloured blocks, a colour a class, with noise and a border of padding."""
    random = torch.Generator().manual_seed(seed)
    colours = torch.tensor([[40.0, 40, 40], [200, 60, 60], [60, 200, 60], [60, 60, 200]])
    blocks = torch.randint(0, CLASSES, (2, SIZE // 16, SIZE // 16), generator=random)
    label = blocks.repeat_interleave(16, 1).repeat_interleave(16, 2)
    image = colours[label].movedim(-1, 1) + 10 * torch.randn(2, 3, SIZE, SIZE, generator=random)
    valid = torch.ones(2, SIZE, SIZE, dtype=torch.bool)
    valid[:, :, -3:] = False
    unknown = ~valid | (torch.rand(label.shape, generator=random) >= labelled)
    objects = torch.zeros_like(valid)
    objects[:, 8:24, 6:22] = True
    return Crops(
        image=(image.clamp(0, 255) * valid.unsqueeze(1)).to(torch.uint8),
        label=label.masked_fill(unknown, IGNORE).to(torch.uint8),
        valid=valid,
        objects=objects,
    )


BATCH = Batch(labelled=two_images(0, labelled=0.5), pool=two_images(1, labelled=0.1))


def new_module(name: str, *, seed: int) -> SegmentationModule:
    torch.manual_seed(seed)
    method = METHODS[name]()
    config = TrainConfig(
        data=Path("none"), out=Path("none"), method=name, steps=STEPS, batch=2, crop=SIZE,
        learning_rate=0.05, warm_up=0.3, ramp=0.2, thresholds="flexmatch",
    )  # fmt: skip
    student = DeepLabV3Plus("test_resnet", CLASSES, representation=method.needs.representation)
    given = copy.deepcopy(student).eval() if method.needs.given_teacher else None
    return SegmentationModule(
        student,
        method,
        config=config,
        total_steps=STEPS,
        areas=torch.ones(CLASSES),
        given_teacher=given,
    )


def supervised_loss(module: SegmentationModule) -> float:
    module.student.train()
    with torch.no_grad():
        logits = module.student(BATCH.labelled.image)
    return float(cross_entropy(logits, BATCH.labelled.label))


@dataclass(frozen=True)
class Run:
    name: str
    before: float
    after: float
    state: dict[str, Any]
    averages: dict[str, float]
    checkpoint: Path


@pytest.fixture(scope="module", params=list(METHODS))
def unbroken(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A whole run, of which a checkpoint remains that was written on the way."""
    name = str(request.param)
    out = tmp_path_factory.mktemp(name)
    module = new_module(name, seed=0)
    before = supervised_loss(module)
    fit(module, BATCH, out, stop=STOP)
    state = {key: copied(value) for key, value in module.state_dict().items()}
    averages = module.sums.take_averages()
    return Run(name, before, supervised_loss(module), state, averages, out / STOPPED)


def test_it_learns_two_images(unbroken: Run) -> None:
    # The methods end at 0.04 to 0.19 of where they began: room for the rounding of other CPUs.
    assert unbroken.after < unbroken.before / 3


def test_every_term_entered_the_loss(unbroken: Run) -> None:
    terms = {key for key in unbroken.averages if key.startswith("terms/")}
    needs_pool = METHODS[unbroken.name]().needs.pool
    assert len(terms) > 1 if needs_pool else terms == {"terms/supervised"}
    assert all(abs(unbroken.averages[key]) > 0 for key in terms)


def test_a_resumed_run_equals_the_unbroken_one(unbroken: Run, tmp_path: Path) -> None:
    saved = torch.load(unbroken.checkpoint, weights_only=True)["state_dict"]
    extra = [value for key, value in saved.items() if key.startswith("method.")]
    has_state = isinstance(METHODS[unbroken.name](), torch.nn.Module)
    assert has_state == any(len(tensor) for value in extra for tensor in value.values())
    module = new_module(unbroken.name, seed=1)
    resumed = fit(module, BATCH, tmp_path, stop=STOP, resumed=unbroken.checkpoint)
    state = resumed.state_dict()
    assert state.keys() == unbroken.state.keys()
    assert [key for key in state if not same(state[key], unbroken.state[key])] == []
    assert resumed.sums.take_averages() == unbroken.averages


def copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    return value.clone()


def same(a: Any, b: Any) -> bool:
    """Tensors, and the dicts of tensors that a method keeps besides them, bit for bit."""
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
