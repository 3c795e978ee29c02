"""SAN at tiny random sizes: the true classes of CLIP, the published adapter, a naive attention."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import tinyclip
from s5mars.classes import Class, Taxonomy
from s5mars.models import prompts
from s5mars.models.checkpoint import load_model, save_model
from s5mars.models.clip_tower import ClipTower
from s5mars.models.prompts import prompts_of, text_embeddings
from s5mars.models.san import San, pooled, san
from s5mars.models.side_adapter import AdapterShape, SideAdapter

pytest.importorskip("transformers")
NAMES = ("sky", "big_rock", "sand")
THREE = Taxonomy("three", tuple(Class(name, (i, 0, 0)) for i, name in enumerate(NAMES)))
SIDE = 64


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tinyclip.save(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def network(clip: Path) -> San:
    torch.manual_seed(0)
    return san(str(clip), THREE, side=SIDE).eval()


def image(height: int, width: int, *, batch: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height)
    return torch.randint(0, 256, (batch, 3, height, width), generator=generator).byte()


@pytest.mark.parametrize("size", [(64, 64), (48, 90), (130, 64)])
def test_any_size_gives_finite_scores_of_every_class(network: San, size: tuple[int, int]) -> None:
    with torch.no_grad():
        scores = network(image(*size))
    assert scores.shape == (2, 3, *size) and scores.dtype == torch.float32
    assert scores.isfinite().all()


def test_the_segmentation_is_masks_times_classes(network: San) -> None:
    given = image(64, 64)
    with torch.no_grad():
        found = network.propose(given)[-1]
        scores = network(given)
    masks = torch.nn.functional.interpolate(found.masks, size=(64, 64), mode="bilinear").sigmoid()
    naive = torch.zeros(2, 3, 64, 64)
    for q in range(100):
        for c in range(3):
            naive[:, c] += found.classes[:, q].softmax(-1)[:, c, None, None] * masks[:, q]
    torch.testing.assert_close(scores.exp(), naive, rtol=1e-4, atol=1e-5)


def test_biased_attention_against_one_sequence_with_a_mask() -> None:
    """The released form: [SLS], [CLS] and patches in one sequence, and one large mask."""
    clip = tinyclip.model()
    tower = ClipTower(
        copy.deepcopy(clip.vision_model), copy.deepcopy(clip.visual_projection), split=3
    )
    pixels, queries = torch.randn(2, 3, 64, 48), 5
    tokens, size = tower.first_part(pixels)
    patches = size[0] * size[1]
    bias = torch.randn(2, tinyclip.HEADS, queries, patches)
    (found,) = tower.recognise(tokens[-1], [bias])

    total = queries + 1 + patches
    mask = torch.zeros(2, tinyclip.HEADS, total, total)
    mask[..., :queries] = -torch.inf  # nobody sees an [SLS] token,
    own = torch.arange(queries)
    mask[..., own, own] = 0  # but itself
    mask[..., :queries, queries] = -torch.inf  # [SLS] does not see [CLS]
    mask[..., :queries, queries + 1 :] = bias
    x = torch.cat([tokens[-1][:, :1].expand(-1, queries, -1), tokens[-1]], dim=1)
    vision = getattr(clip.vision_model, "vision_model", clip.vision_model)
    for layer in vision.encoder.layers[3:]:
        normed = layer.layer_norm1(x)
        q, k, v = (
            project(normed).view(2, total, tinyclip.HEADS, -1).transpose(1, 2)
            for project in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj)
        )
        weights = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + mask).softmax(-1)
        x = x + layer.self_attn.out_proj((weights @ v).transpose(1, 2).flatten(2))
        x = x + layer.mlp(layer.layer_norm2(x))
    expected = clip.visual_projection(vision.post_layernorm(x[:, :queries]))
    expected = expected / expected.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_without_queries_it_is_clip() -> None:
    """The first part is transformers' own, at CLIP's size; a bias matters."""
    clip = tinyclip.model()
    tower = ClipTower(clip.vision_model, clip.visual_projection, split=3)
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        theirs = clip.vision_model(pixel_values=pixels, output_hidden_states=True).hidden_states
        ours, size = tower.first_part(pixels)
        for a, b in zip(ours, theirs[:4], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        zero = torch.zeros(1, tinyclip.HEADS, 2, size[0] * size[1])
        one = zero.clone()
        one[..., 1, 3] = 9.0
        (found,) = tower.recognise(ours[-1], [one])
    assert not torch.allclose(found[:, 0], found[:, 1], atol=1e-3)


def test_a_bias_is_pooled_by_its_largest_value() -> None:
    bias = torch.randn(2, 3, 5, 8, 4)
    found = pooled(bias, (4, 2))
    naive = bias.view(2, 3, 5, 4, 2, 2, 2).amax((4, 6)).flatten(3)
    torch.testing.assert_close(found, naive)


def test_adapter_proposes_at_every_supervised_depth_while_training() -> None:
    shape = AdapterShape(width=24, depth=4, heads=2, queries=7, side=64, supervised=(3, 4))
    adapter = SideAdapter(16, 2, shape)
    clip = [torch.randn(2, 16, 2, 3) for _ in range(4)]
    found = adapter.train()(torch.randn(2, 3, 32, 80), clip)
    assert [(p.masks.shape, p.bias.shape) for p in found] == [((2, 7, 2, 5), (2, 2, 7, 2, 5))] * 2
    (last,) = adapter.eval()(torch.randn(2, 3, 32, 80), clip)
    assert last.masks.shape == (2, 7, 2, 5)


def test_text_is_the_mean_over_prompts(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert prompts_of("big_rock")[0] == "a photo of a big rock."
    model = tinyclip.model()
    monkeypatch.setattr(prompts, "TEMPLATES", ["{}"])
    one = text_embeddings(model, clip, ["sky", "sand"])
    monkeypatch.setattr(prompts, "TEMPLATES", ["{}", "a {}"])
    other = text_embeddings(model, clip, ["sky", "sand"])
    torch.testing.assert_close(one.norm(dim=1), torch.ones(2))
    assert not torch.allclose(one, other) and not torch.allclose(one[0], one[1])


def test_the_authors_layout_comes_back_and_the_rest_is_named(
    network: San, clip: Path, tmp_path: Path
) -> None:
    state = tinyclip.published(network)
    state["clip_visual_extractor.positional_embedding"] += 1.0  # theirs learns it
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "a.safetensors")
    torch.save({"model": state, "iteration": 9}, tmp_path / "san.pth")
    for name in ("a.safetensors", "san.pth"):
        torch.manual_seed(5)
        read = san(str(clip), THREE, adapter=str(tmp_path / name), side=SIDE)
        assert read.weights_report.details == ["not placed: ov_classifier.token_embedding.weight"]
        assert name in str(read.weights_report)
        own = network.state_dict()
        for key, value in read.state_dict().items():
            expected = own[key] + 1 if key == "clip.positions" else own[key]
            torch.testing.assert_close(value, expected)

    gone = state.pop("side_adapter_network.query_embed")
    torch.save(state, tmp_path / "san.pth")
    with pytest.raises(ValueError, match=r"1 tensors missing.*adapter\.queries"):
        san(str(clip), THREE, adapter=str(tmp_path / "san.pth"))
    torch.save(state | {"side_adapter_network.query_embed": gone[:, 1:]}, tmp_path / "san.pth")
    with pytest.raises(ValueError, match="1 of another shape"):
        san(str(clip), THREE, adapter=str(tmp_path / "san.pth"))


def test_a_checkpoint_holds_everything(network: San, tmp_path: Path) -> None:
    """Neither CLIP's folder nor its tokenizer is needed to load it."""
    save_model(tmp_path / "best.safetensors", {"student": network}, taxonomy=THREE, training={})
    loaded = load_model(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(image(50, 70)), network(image(50, 70)))


def test_wrong_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        san("nowhere", THREE)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="weights of 'bert'; supported are clip"):
        san(str(tmp_path), THREE)
