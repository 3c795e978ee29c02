"""Every method with every kind of encoder and decoder, in the real training module."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor

import tinyvit
from looped import STOPPED, fit
from s5mars.methods import METHODS
from s5mars.models.build import build_segmenter
from s5mars.models.segmenter import Segmenter
from s5mars.models.tuning import tune
from s5mars.settings.config import TrainConfig
from s5mars.training.module import SegmentationModule
from tiny import batch

assert tinyvit.VITS

NETWORKS = {
    "deeplab": "test_resnet",
    "dpt": "tiny_patch14_reg4_dinov2",
    "linear": "tiny_patch16_mae",
}  # decoder → encoder
BATCH = batch(batch=2, size=32)


def module_of(
    method: str, encoder: str, head: str, *, seed: int = 0, **settings: object
) -> SegmentationModule:
    torch.manual_seed(seed)
    chosen = METHODS[method]()
    config = TrainConfig(
        data=Path("none"), out=Path("none"), method=method, steps=6, batch=2, crop=32,
        model=encoder, head=head, **settings,  # type: ignore[arg-type]
    )  # fmt: skip
    student = build_segmenter(
        encoder, 4, head=head, representation=chosen.needs.representation,
        drop_path=config.drop_path,
    )  # fmt: skip
    tune(student, config)
    given = copy.deepcopy(student).eval() if chosen.needs.given_teacher else None
    return SegmentationModule(
        student, chosen, config=config, total_steps=6, given_teacher=given
    ).train()


def loss_of(module: SegmentationModule) -> Tensor:
    terms = module.objective(BATCH, module.progress(2))
    assert all(term.value.isfinite() for term in terms.values())
    return torch.stack([term.weight * term.value for term in terms.values()]).sum()


@pytest.mark.parametrize("head", NETWORKS)
@pytest.mark.parametrize("name", METHODS)
def test_a_step_trains_the_whole_student_and_nothing_else(name: str, head: str) -> None:
    module = module_of(name, NETWORKS[head], head)
    loss_of(module).backward()
    # A level's position embedding may be unused at this size; all weights of layers are used.
    idle = [
        key
        for key, parameter in module.student.named_parameters()
        if parameter.grad is None or not parameter.grad.isfinite().all()
    ]
    assert idle == []
    strong = [p.grad for p in module.student.encoder.parameters()]
    assert sum(bool(gradient.any()) for gradient in strong) > len(strong) / 2
    for network in (module.teacher, module.given_teacher):
        assert network is None or all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize("name", METHODS)
def test_a_frozen_encoder_keeps_its_weights_and_the_decoder_learns(name: str) -> None:
    module = module_of(name, "tiny_patch16_mae", "linear", freeze="encoder", crops="random")
    optimizer = module.optimizer
    before = {key: value.clone() for key, value in module.student.state_dict().items()}
    assert not module.student.encoder.training and module.student.training
    loss_of(module).backward()
    optimizer.step()
    after = module.student.state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert "classifier.weight" in changed
    assert not any(key.startswith("encoder.") for key in changed)
    of_optimizer = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert not of_optimizer & {id(p) for p in module.student.encoder.parameters()}


@pytest.mark.parametrize("name", [name for name in METHODS if name != "mean_teacher"])
def test_a_frozen_encoder_labels_an_image_from_its_cache(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = module_of(name, "tiny_patch16_mae", "linear", freeze="encoder", feature_cache=tmp_path)
    loss_of(module)  # fills the cache; PrevMatch keeps its first network
    encode, encoded = Segmenter.encode, []

    def counted(self: Segmenter, normalised: Tensor) -> tuple[Tensor, ...]:
        if not torch.is_grad_enabled():
            encoded.append(len(normalised))
        return encode(self, normalised)

    monkeypatch.setattr(Segmenter, "encode", counted)
    loss_of(module)
    assert encoded == []


@pytest.mark.parametrize(
    "settings",
    [
        {"drop_path": 0.3, "layer_decay": 0.7, "gradient_checkpointing": True},
        {"lora": 2},
    ],
)
def test_a_resumed_run_of_a_vit_equals_the_unbroken_one(
    tmp_path: Path, settings: dict[str, object]
) -> None:
    if "lora" in settings:
        pytest.importorskip("peft")
    kind = ("unimatch_v2", "tiny_patch14_reg4_dinov2", "dpt")
    one, other = (module_of(*kind, seed=seed, **settings) for seed in (0, 1))  # type: ignore[arg-type]
    unbroken = fit(one, BATCH, tmp_path, stop=3).state_dict()
    resumed = fit(other, BATCH, tmp_path, stop=3, resumed=tmp_path / STOPPED).state_dict()
    assert unbroken.keys() == resumed.keys()
    assert [key for key in unbroken if not torch.equal(unbroken[key], resumed[key])] == []
    start = module_of(*kind, **settings).state_dict()  # type: ignore[arg-type]
    moved = [key for key in start if not torch.equal(start[key], unbroken[key])]
    assert any("encoder" in key for key in moved)
