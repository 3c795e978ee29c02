"""The head, the queue, superpixels, features and their cache."""

from __future__ import annotations

import errno
import os
import shlex
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from labels.loop_folder import CLASSES, open_store, paint, scene, write_images
from s5mars.classes import Taxonomy
from s5mars.data.resolution import Resolution
from s5mars.errors import UserError
from s5mars.files.locking import locked
from s5mars.labels.loop.assistant import Assistant
from s5mars.labels.loop.features import PyramidCache, StartModel, open_start_model
from s5mars.labels.loop.head import (
    Head,
    PaintedPixels,
    fit_head,
    gathered,
    painted_pixels,
    prior_head,
)
from s5mars.labels.loop.queue import Candidate, rank
from s5mars.labels.loop.superpixels import LEVELS, SuperpixelCache, enlarged, smoothed, superpixels
from s5mars.labels.loop.trainer import Trainer
from s5mars.models.checkpoint import save_model
from s5mars.models.deeplab import DeepLabV3Plus
from s5mars.models.start import starting_network
from s5mars.parallel.workers import CrashError
from s5mars.settings.config import TrainConfig
from s5mars.settings.parsing import parse_training

CPU = torch.device("cpu")


def plain_model(key: str = "k") -> StartModel:
    """Describes pixels by their colours alone."""
    return StartModel("none", key, lambda pixels: [pixels[..., ::8, ::8]], Resolution(), CPU)


# The head


def test_a_head_learns_classes_from_few_pixels() -> None:
    model, painted = plain_model(), []
    for seed in range(3):
        image, label = scene(seed)
        sparse = np.full_like(label, 255)
        sparse[::5, ::7] = label[::5, ::7]
        painted.append(painted_pixels(model.pyramid(image), sparse))
    head = fit_head(painted, 3)
    assert head is not None
    image, label = scene(9)
    probabilities = head.map(model.pyramid(image), label.shape)
    assert torch.allclose(probabilities.sum(0), torch.ones(label.shape), atol=1e-5)
    # At stride 4, so edges of the classes are off by some pixels.
    assert (probabilities.argmax(0).numpy() == label).mean() > 0.85


def test_the_map_equals_the_head_on_interpolated_features() -> None:
    generator = torch.Generator().manual_seed(0)
    pyramid = [
        torch.randn(3, 8, 12, generator=generator),
        torch.randn(5, 4, 6, generator=generator),
    ]
    head = Head(torch.randn(2, 8, generator=generator), torch.randn(2, generator=generator))
    rows, columns = np.meshgrid((np.arange(8) + 0.5) / 8, (np.arange(12) + 0.5) / 12, indexing="ij")
    features = gathered(pyramid, rows.ravel(), columns.ravel())
    expected = head.logits(features).softmax(1).T.reshape(2, 8, 12)
    assert torch.allclose(head.map(pyramid), expected, atol=2e-2)  # float16 features


def test_classes_without_a_pixel_get_no_probability() -> None:
    features = torch.tensor([[0.0], [1.0]] * 20).half()
    labels = torch.tensor([0, 2] * 20)
    head = fit_head([PaintedPixels(features, labels)], 4)
    assert head is not None
    probabilities = head.logits(torch.tensor([[0.0], [1.0]])).softmax(1)
    assert probabilities.argmax(1).tolist() == [0, 2]
    assert probabilities[:, [1, 3]].max() < 1e-6


def test_one_class_is_too_few() -> None:
    assert fit_head([], 3) is None
    ones = PaintedPixels(torch.rand(9, 2).half(), torch.ones(9, dtype=torch.int64))
    assert fit_head([ones], 3) is None


def test_a_fit_at_fifty_images_takes_less_than_two_seconds() -> None:
    generator = torch.Generator().manual_seed(0)
    painted = [
        PaintedPixels(
            torch.randn(700, 501, generator=generator).half(),
            torch.randint(0, 6, (700,), generator=generator),
        )
        for _ in range(50)
    ]
    began = time.process_time()
    fit_head(painted, 6)
    assert time.process_time() - began < 2 * torch.get_num_threads()


def test_rare_classes_are_drawn_in_full() -> None:
    label = np.zeros((40, 40), np.uint8)
    label[0, :7] = 1
    label[30:] = 255
    drawn = painted_pixels([torch.zeros(1, 10, 10)], label, most=50)
    assert torch.bincount(drawn.labels).tolist() == [50, 7]
    whole = painted_pixels([torch.zeros(1, 10, 10)], label, most=10**6, balanced=False)
    assert len(whole.labels) == 30 * 40


# Start models


def test_the_classes_of_the_start_model_are_the_first_suggestions(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = DeepLabV3Plus("test_resnet", 3).eval()
    taxonomy = Taxonomy.from_dict({"classes": [{"name": n} for n in ("sand", "sky", "soil")]})
    image, _ = scene(0, (128, 96))
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
    with torch.no_grad():  # half is soil, half sand, and the margins are above those of float16
        network.classifier.weight *= 1000
        logits = network(pixels)[0]
        network.classifier.bias[2] -= (logits[2] - logits[0]).median()
    save_model(tmp_path / "best.safetensors", {"student": network}, taxonomy=taxonomy, training={})
    model = open_start_model(str(tmp_path), device="cpu")
    assert model.classes == taxonomy.names
    pyramid = model.pyramid(image)
    channels = sum(len(level) for level in pyramid)
    head = prior_head(model, channels, ("soil", "lake", "sand"))
    assert head is not None
    with torch.inference_mode():
        logits = network(pixels)[0]
    theirs = logits[[2, 0]].argmax(0) * 2  # soil is 0 here, sand is 2, and there is no lake
    ours = head.map(pyramid, image.shape[:2]).argmax(0)
    assert set(ours.unique().tolist()) == {0, 2}
    assert (ours == theirs).float().mean() > 0.9
    assert prior_head(model, channels, ("a", "sand")) is None


def test_no_score_of_a_part_of_the_painted_images(tmp_path: Path) -> None:
    store = open_store(write_images(tmp_path / "folder", count=5))
    for name in store.folder.images:
        paint(store, name, 0, 0, 40, 10, 0)
        paint(store, name, 0, 30, 40, 10, 1)
    assistant = Assistant(store, plain_model())
    *first, last = store.folder.images
    for name in first:
        assistant._describe(name)
    assistant._fit(set(first))
    assert assistant.head is not None and store.history.scores == []
    assistant._describe(last)
    assistant._fit({last})
    assert [score["images"] for score in store.history.scores] == [5]


def _full(*given: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def _work(assistant: Assistant) -> int:
    """Do all work of the head's thread that there is now; returns the number of jobs."""
    for done in range(40):
        with assistant._wake:
            job = assistant._next_job()
        if job is None:
            return done
        job()
    raise AssertionError("the work does not end")


def test_a_full_disk_keeps_no_core_busy_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(write_images(tmp_path / "folder"))
    assistant = Assistant(store, plain_model())
    assistant._describe("sol2")
    with monkeypatch.context() as disk:
        disk.setattr(assistant.pyramids, "put", _full)
        _work(assistant)
        assert assistant.failed.keys() == {"sol0", "sol1", "sol3"}
        for name in ("sol0", "sol2"):
            paint(store, name, 0, 0, 20, 10, 0)
            paint(store, name, 0, 30, 20, 10, 1)
            assistant.painted(name)
        assistant._changed_at = 0.0
        _work(assistant)
        assert assistant._painted.keys() == {"sol2"}
        assert 0 < (assistant._until_next() or 0) <= 30
        tried = []
        disk.setattr(assistant.pyramids, "get", tried.append)
        assistant.failures.hurry()
        _work(assistant)
        assert len(tried) == 1 and len(assistant.failed) == 3
    assistant.failures.hurry()
    _work(assistant)
    assert assistant.featured == set(store.folder.images) and assistant.failed == {}
    assert assistant._painted.keys() == {"sol0", "sol2"}
    assert assistant._until_next() is None


def test_images_that_cannot_be_read_are_not_waited_for(tmp_path: Path) -> None:
    """The page said for ever that features of 3 of 4 images were made in the background."""
    root = write_images(tmp_path / "folder")
    (root / "images" / "sol1.png").write_bytes(b"damaged")
    assistant = Assistant(open_store(root), plain_model())
    assert assistant.waiting == 4
    _work(assistant)
    assert len(assistant.featured) == 3 and assistant.waiting == 0


def test_superpixels_that_a_full_disk_refused_are_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assistant = Assistant(open_store(write_images(tmp_path / "folder", count=1)), plain_model())
    monkeypatch.setattr(assistant, "_processes", lambda path: superpixels(scene(0)[0]))
    with monkeypatch.context() as disk:
        disk.setattr(assistant.superpixels, "put", _full)
        assistant._segment("sol0")
    assert assistant._next_segmented() is None and "sol0" in assistant.failed
    assistant.failures.hurry()
    _work(assistant)
    job = assistant._next_segmented()
    assert job is not None
    job()
    assert assistant.regions("sol0") is not None and assistant.failed == {}


def test_a_suggestion_follows_superpixels_that_are_made_after_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(write_images(tmp_path / "folder", count=2))
    assistant = Assistant(store, plain_model())
    monkeypatch.setattr(assistant, "_processes", lambda path: superpixels(scene(0)[0]))
    paint(store, "sol0", 0, 0, 20, 10, 0)
    paint(store, "sol0", 0, 30, 20, 10, 1)
    assistant._describe("sol0")
    assistant._describe("sol1")
    assistant._fit({"sol0"})
    with monkeypatch.context() as disk:
        disk.setattr(assistant.superpixels, "put", _full)
        assistant._segment("sol1")
    before = assistant.suggestion("sol1")
    assistant.failures.hurry()
    _work(assistant)
    assistant._segment("sol1")
    after = assistant.suggestion("sol1")
    assert before is not None and after is not None
    assert before[0] != after[0] and before[1] is not after[1]


def test_paint_teaches_though_superpixels_have_crashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(path: Path) -> None:
        raise CrashError("killed")

    store = open_store(write_images(tmp_path / "folder", count=1))
    assistant = Assistant(store, plain_model())
    monkeypatch.setattr(assistant, "_processes", crash)
    assistant._segment("sol0")
    paint(store, "sol0", 0, 0, 20, 10, 0)
    paint(store, "sol0", 0, 30, 20, 10, 1)
    assistant.painted("sol0")
    assistant._changed_at = 0.0
    _work(assistant)
    assert assistant.head is not None and assistant._painted.keys() == {"sol0"}


def test_a_mask_that_is_gone_leaves_the_other_paint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_images(tmp_path / "folder")
    store = open_store(root)
    for name in ("sol0", "sol1"):
        paint(store, name, 0, 0, 20, 10, 0)
        paint(store, name, 0, 30, 20, 10, 1)
    assistant = Assistant(open_store(root), plain_model())  # the page is started again
    (root / "masks/sol0.png").unlink()
    _work(assistant)
    assert assistant.head is not None and assistant._painted.keys() == {"sol1"}
    assert "without the paint of sol0: sol0 has no mask" in caplog.text


def test_the_page_shows_all_that_has_no_data(tmp_path: Path) -> None:
    store = open_store(write_images(tmp_path / "folder", count=1))
    (name,) = store.folder.images
    image = np.full((40, 50, 4), 200, np.uint8)
    image[:8, :, :3] = 0  # a border
    image[20:24, 20:24, 3] = 0  # transparent, inside
    Image.fromarray(image).save(store.folder.images[name])
    empty = ~Assistant(store, plain_model()).picture(name).valid
    assert empty[:8].all() and empty[20:24, 20:24].all() and empty.sum() == 8 * 50 + 16


def test_the_train_button_starts_from_the_start_model(tmp_path: Path) -> None:
    network = DeepLabV3Plus("test_resnet", 3)
    save_model(
        tmp_path / "run/best.safetensors", {"student": network}, taxonomy=CLASSES, training={}
    )
    model = open_start_model(str(tmp_path / "run"), device="cpu")
    assert model.encoder == "test_resnet"
    store = open_store(write_images(tmp_path / "folder"))
    for name in store.folder.images:
        paint(store, name, 0, 0, 9, 9, 1)
    start = str(tmp_path / "run"), model.encoder
    cache = f"--object-cache={tmp_path / 'cache'}"  # for the default method, S5Mars
    trainer = Trainer(store, ["--crop=32", "--workers=0", cache], start=start)
    assert trainer.start_from == start[0]
    trainer.start("supervised", 1)
    trainer.close()
    command = shlex.split(trainer.log("1").splitlines()[0])
    config = parse_training(command[2:]).config
    assert config.start_from == start[0]
    assert config.object_cache is None
    with pytest.raises(UserError, match="--object-cache is for methods that paste objects"):
        Trainer(store, [cache, "--method=fixmatch"])
    network = starting_network(config, parse_training(command[2:]).method, CLASSES)
    assert network.weights_report.classes == list(CLASSES.names)
    for options in (["--model=test_resnet"], ["--weights=none"]):
        assert Trainer(store, options, start=start).start_from is None


def test_settings_files_and_recipes_go_before_what_the_page_chooses(tmp_path: Path) -> None:
    store = open_store(write_images(tmp_path / "folder"))

    def config(*options: str, start: tuple[str, str] | None = None) -> TrainConfig:
        trainer = Trainer(store, options, start=start)
        return parse_training(trainer._arguments("1", None, 5)).config

    file = tmp_path / "mine.yaml"
    file.write_text(
        "method: supervised\nmodel: test_resnet\nresolution: '48'\ncrop: 64\nbatch: 8\n"
    )
    found = config(f"--config={file}", start=("navcam", "resnet18"))
    given = (found.method, found.model, found.resolution, found.crop, found.batch)
    assert given == ("supervised", "test_resnet", "48", 64, 8) and not found.start_from
    found = config(f"--config={file}", "--crop=32")
    assert (found.crop, found.batch) == (32, 8)
    found = config("--recipe=vit")
    assert (found.model, found.crop, found.batch) == ("vit_small_patch14_dinov2", 518, 4)
    found = config("--recipe=vit", start=("navcam", "resnet18"))
    assert (found.model, found.start_from) == ("resnet18", "navcam")
    with pytest.raises(UserError, match="unknown recipe 'vitt'"):
        config("--recipe=vitt")


def test_an_image_that_may_not_be_read_does_not_stop_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("s5mars.labels.loop.trainer.image_size", refuse)
    assert Trainer(open_store(write_images(tmp_path / "folder")), []).obstacle is not None


def test_a_training_of_an_earlier_page_is_named(tmp_path: Path) -> None:
    trainer = Trainer(open_store(write_images(tmp_path / "folder")), [])
    trainer.stop()  # nothing is running
    trainer.folder.mkdir(parents=True)
    (trainer.folder / "1.log").touch()
    with locked(trainer.folder / "1"):
        assert trainer.running
        said = f"run 1 was started by .* in process {os.getpid()} on [^ ]+: stop it with `kill`"
        with pytest.raises(UserError, match=said):
            trainer.stop()
        trainer.close()
    trainer.stop()


@pytest.mark.parametrize(
    ("sols", "expected"),
    [
        (
            "77777",
            [
                "5 more images, or on 3 of different sols",
                "4 more images, or on 2 of different sols",
                "3 more images, or on 1 of another sol",
                "2 more images, or on 1 of another sol",
                "1 more image",
            ],
        ),
        (
            "123",
            [
                "5 more images, or on 3 of different sols",
                "4 more images, or on 2 of different sols",
                "3 more images, or on 1 of another sol",
            ],
        ),
        ("???", ["3 more images", "2 more images", "1 more image"]),
    ],
)
def test_the_train_button_says_how_many_images_it_needs(
    tmp_path: Path, sols: str, expected: list[str]
) -> None:
    root = write_images(tmp_path / "folder", count=len(sols))
    for number, sol in enumerate(sols):
        if sol != "?":
            name = f"000{sol}ML000937000010518{number}E01_DRCL.png"
            (root / "images" / f"sol{number}.png").rename(root / "images" / name)
    store = open_store(root)
    trainer = Trainer(store, ["--model=test_resnet", "--weights=none"])
    said = []
    for name in store.folder.images:
        said.append(trainer.obstacle)
        paint(store, name, 0, 0, 9, 9, 1)
    assert trainer.obstacle is None
    rest = "first: one of them is held back to choose the checkpoint."
    assert said == [f"Paint on {images} {rest}" for images in expected]


def test_another_start_model_has_other_features_on_disk(tmp_path: Path) -> None:
    cache = PyramidCache(tmp_path, plain_model("a"))
    pyramid = plain_model().pyramid(scene(0)[0])
    cache.put("ab12", pyramid)
    again = cache.get("ab12")
    assert again is not None
    assert all(torch.equal(a, b) for a, b in zip(again, pyramid, strict=True))
    assert PyramidCache(tmp_path, plain_model("b")).get("ab12") is None
    next(tmp_path.rglob("*.safetensors")).write_bytes(b"damaged")
    assert cache.get("ab12") is None


@pytest.mark.parametrize("size", [(9, 7), (64, 48), (31, 400)])
def test_features_of_any_size(size: tuple[int, int]) -> None:
    pyramid = open_start_model(None, device="cpu").pyramid(scene(0, size)[0])
    assert [len(level) for level in pyramid] == [5, 24, 40, 112, 320]
    assert all(level.isfinite().all() and level.numel() for level in pyramid)


# The queue


def candidate(name: str, sure: float, *, sol: int | None = None, first: float = 0.5) -> Candidate:
    """An image on which the head is this sure; ``first`` is the share of places of class 0."""
    likely = np.where(np.arange(10) < 10 * first, 0, 1)
    probabilities = np.full((10, 2), 1 - sure, np.float32)
    probabilities[np.arange(10), likely] = sure
    return Candidate(name, sol, np.zeros(3, np.float32), probabilities)


def ranked(candidates: list[Candidate], **given: object) -> list[tuple[str, str]]:
    settings: dict[str, object] = {
        "painted_sols": {}, "painted_summaries": [], "painted_pixels": np.array([10, 10]),
        "classes": ["soil", "rock"],
    }  # fmt: skip
    return [(r.name, r.reason) for r in rank(candidates, **{**settings, **given})]  # type: ignore[arg-type]


def test_uncertain_images_come_first() -> None:
    order = ranked([candidate("sure", 0.99), candidate("unsure", 0.55), candidate("so-so", 0.8)])
    assert [name for name, _ in order] == ["unsure", "so-so", "sure"]
    assert order[0][1] == "uncertain on 100% of the image"


def test_new_sols_come_first_where_all_else_is_equal() -> None:
    order = ranked(
        [
            candidate("old", 0.9, sol=3),
            candidate("new", 0.9, sol=4),
            candidate("second", 0.9, sol=5),
        ],
        painted_sols={3: 6, 5: 1},
    )
    assert order == [
        ("new", "first image of sol 4"),
        ("second", "second image of sol 5"),
        ("old", "next in order"),
    ]


def test_images_of_rare_classes_come_first() -> None:
    order = ranked(
        [candidate("soil", 0.9, first=0.9), candidate("rock", 0.9, first=0.1)],
        painted_pixels=np.array([990, 10]),
    )
    assert order[0] == ("rock", "may show rock (1.0% of the paint)")


def test_without_sols_what_is_unlike_the_painted_images_comes_first() -> None:
    far = Candidate("far", None, np.array([9.0, 0, 0], np.float32), None)
    near = Candidate("near", None, np.array([1.0, 0, 0], np.float32), None)
    unknown = Candidate("unknown", None, None, None)
    order = ranked([unknown, near, far], painted_summaries=[np.zeros(3, np.float32)])
    assert order[0] == ("far", "unlike the painted images")
    assert [name for name, _ in order] == ["far", "near", "unknown"]


def test_nothing_is_known_at_the_start() -> None:
    order = ranked([Candidate(n, None, None, None) for n in "bac"], painted_pixels=np.zeros(2, int))
    assert order == [(n, "next in order") for n in "bac"]
    assert ranked([]) == []


# Superpixels


def test_superpixels_follow_edges_and_leave_borders_out(tmp_path: Path) -> None:
    image, label = scene(1, (160, 120))
    image[:, :20] = 0  # the black border of a panorama
    regions = superpixels(image)
    assert regions.shape == (LEVELS, 120, 160)
    assert (regions[:, :, :18] == 0).all() and (regions[:, :, 24:] > 0).all()
    numbers = [len(np.unique(level)) for level in regions]
    assert numbers == sorted(numbers, reverse=True)
    for region in np.unique(regions[1, :, 24:]):
        inside = np.bincount(label[:, 24:][regions[1, :, 24:] == region], minlength=3)
        assert inside.max() / inside.sum() > 0.7
    cache = SuperpixelCache(tmp_path)
    assert cache.get("abc") is None
    cache.put("abc", regions)
    again = cache.get("abc")
    assert again is not None and (again == regions).all()
    cache.path("abc").write_bytes(b"PK damaged")
    assert cache.get("abc") is None


def test_an_image_without_data_has_no_superpixels() -> None:
    assert (superpixels(np.zeros((40, 50, 3), np.uint8)) == 0).all()


def test_enlarged_regions_have_smooth_outlines() -> None:
    small = np.array([[1, 1, 2], [1, 2, 2], [3, 3, 2]], np.uint16)
    large = enlarged(small, (30, 30))
    assert set(np.unique(large)) == {1, 2, 3}
    assert (large[:5, :15] == 1).all() and (large[25:, :15] == 3).all()
    rows = [int((row == 1).sum()) for row in large[5:15]]
    assert len(set(rows)) > 2  # a slope, where the nearest neighbour would make one step
    assert (enlarged(small, (3, 3)) == small).all()


def test_smoothing_keeps_probabilities_and_takes_the_mean_of_a_region() -> None:
    random = np.random.default_rng(0)
    probabilities = random.dirichlet([1, 1, 1], (6, 8)).transpose(2, 0, 1).astype(np.float32)
    regions = np.zeros((LEVELS, 6, 8), np.uint16)
    regions[:, :, 4:] = 1
    smooth = smoothed(probabilities, regions)
    assert np.allclose(smooth.sum(0), 1, atol=1e-5)
    mean = probabilities[:, :, 4:].mean((1, 2))
    expected = (probabilities[:, 2, 5] + 2 * mean) / 3
    assert np.allclose(smooth[:, 2, 5], expected, atol=1e-5)
