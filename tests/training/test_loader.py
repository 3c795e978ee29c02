"""Batches are pure functions of (seed, step, sample), and hold what the files say."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from s5mars.classes import IGNORE, MaskCoding
from s5mars.data import read
from s5mars.data.crops import CropSettings
from s5mars.data.dataset import Dataset
from s5mars.data.layouts import open_dataset
from s5mars.data.partition import draw_partition, pool, withhold
from s5mars.data.sampler import Balance
from s5mars.proposals.draw import ObjectFilter
from s5mars.proposals.proposal import proposal_from_mask
from s5mars.proposals.store import ObjectStore, write_store
from s5mars.randomness import generator
from s5mars.training.loader import LoaderSettings, TrainingBatches, load_crop
from s5mars.training.loader_processes import training_loader
from s5mars.types import Batch, Crops, Sample

SIZE = 40
ANY_OBJECT = ObjectFilter(minimum_area=0.0, maximum_area=1.0, minimum_confidence=0.0, blur=0.0)
AS_IT_IS = CropSettings(size=SIZE, scale=(1.0, 1.0), flip=0.0)


@pytest.fixture(scope="module")
def dataset(fake_data: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_dataset(fake_data.plain(tmp_path_factory.mktemp("data"), images=16, size=(48, 40)))


def settings_for(dataset: Dataset, **changes: object) -> LoaderSettings:
    standard = LoaderSettings(
        seed=3, batch=4, crop=CropSettings(size=32), coding=dataset.coding, objects=None
    )
    return replace(standard, **changes)


def batches_of(dataset: Dataset, *, steps: int = 6, **changes: object) -> TrainingBatches:
    train = dataset.split("train")
    return TrainingBatches(
        train[:3],
        withhold(pool(dataset), train[:3]),
        steps=steps,
        settings=settings_for(dataset, **changes),
    )


def tensors(batch: Batch) -> list[torch.Tensor]:
    streams = [s for s in (batch.labelled, batch.pool) if s is not None]
    found = [getattr(s, field.name) for s in streams for field in fields(Crops)]
    return [tensor for tensor in found if tensor is not None]


def assert_equal(one: Batch, other: Batch) -> None:
    assert len(tensors(one)) == len(tensors(other))
    for a, b in zip(tensors(one), tensors(other), strict=True):
        assert a.dtype == b.dtype and torch.equal(a, b)


def sample_of(
    folder: Path,
    name: str,
    image: NDArray[np.uint8],
    mask: NDArray[np.uint8] | None = None,
    *hide: NDArray[np.uint8],
) -> Sample:
    """A sample of its own files; PNG, so that nothing is lost."""

    def write(what: str, values: NDArray[np.uint8]) -> Path:
        path = folder / f"{name}_{what}.png"
        Image.fromarray(values).save(path)
        return path

    return Sample(
        name,
        write("image", image),
        None if mask is None else write("mask", mask),
        tuple(write(f"hide{i}", values) for i, values in enumerate(hide)),
    )


def crop_of(
    sample: Sample,
    *,
    crop: CropSettings = AS_IT_IS,
    objects: ObjectStore | None = None,
    seed: int = 0,
) -> dict[str, NDArray[np.generic]]:
    settings = LoaderSettings(
        seed=0, batch=1, crop=crop, coding=MaskCoding.identity(3), object_filter=ANY_OBJECT
    )
    return load_crop(sample, rng=generator(seed, "crop"), settings=settings, objects=objects)


def grey(value: int = 120) -> NDArray[np.uint8]:
    return np.full((SIZE, SIZE, 3), value, np.uint8)


def test_shapes_types_and_ranges(dataset: Dataset) -> None:
    batch = batches_of(dataset)[0]
    assert batch.pool is not None
    for stream in (batch.labelled, batch.pool):
        assert stream.image.shape == (4, 3, 32, 32) and stream.image.dtype == torch.uint8
        assert stream.label.shape == (4, 32, 32) and stream.label.dtype == torch.uint8
        assert stream.valid.shape == (4, 32, 32) and stream.valid.dtype == torch.bool
        assert stream.objects is None
        assert set(stream.label.unique().tolist()) <= {0, 1, 2, IGNORE}
    assert (batch.labelled.label != IGNORE).any()
    without = TrainingBatches(dataset.split("train"), None, steps=1, settings=settings_for(dataset))
    assert without[0].pool is None


def test_a_step_is_a_pure_function(dataset: Dataset) -> None:
    one, other = batches_of(dataset), batches_of(dataset)
    for step in (5, 0, 3):
        assert_equal(one[step], other[step])
    first, second, reseeded = one[0], one[1], batches_of(dataset, seed=4)[0]
    assert not torch.equal(first.labelled.image, second.labelled.image)
    assert not torch.equal(first.labelled.image, reseeded.labelled.image)


def test_crops_of_one_image_in_one_batch_differ(dataset: Dataset) -> None:
    one = TrainingBatches(
        dataset.split("train")[:1], None, steps=1, settings=settings_for(dataset)
    )[0].labelled.image
    assert all(not torch.equal(one[0], other) for other in one[1:])


def test_workers_change_nothing(dataset: Dataset) -> None:
    batches = batches_of(dataset)
    alone = list(training_loader(batches, start=0, workers=0))
    helped = list(training_loader(batches, start=0, workers=2))
    assert len(alone) == len(helped) == 6
    for a, b in zip(alone, helped, strict=True):
        assert_equal(a, b)


def test_processes_share_a_batch(dataset: Dataset) -> None:
    whole = batches_of(dataset)[2]
    parts = [batches_of(dataset, rank=rank, world=2)[2] for rank in range(2)]
    for everything, *shares in zip(tensors(whole), *map(tensors, parts), strict=True):
        assert torch.equal(everything, torch.cat(shares))


def test_balanced_crops_show_the_class_that_was_drawn(tmp_path: Path) -> None:
    masks = np.zeros((3, 60, 80), np.uint8)
    masks[1, 50:52, 5:7] = 1
    masks[2, 10, 70] = 2
    masks[2, 30, 20] = 2  # but hidden there
    hidden = np.zeros((60, 80), np.uint8)
    hidden[30, 20] = 1
    samples = [
        sample_of(tmp_path, f"s{i}", np.full((60, 80, 3), 90, np.uint8), mask, hidden)
        for i, mask in enumerate(masks)
    ]
    areas = np.array([[4800, 0, 0], [4796, 4, 0], [4798, 0, 1]])
    whole = LoaderSettings(
        seed=5, batch=200, crop=CropSettings(size=16, scale=(1.0, 1.0)),
        coding=MaskCoding.identity(3),
    )  # fmt: skip

    def seen(share: float | None, **changes: object) -> torch.Tensor:
        """(200, 3) which classes each labelled crop shows."""
        balance = None if share is None else Balance.of(areas, share=share)
        settings = replace(whole, balance=balance, **changes)
        label = TrainingBatches(samples, None, steps=1, settings=settings)[0].labelled.label
        return torch.stack([(label == c).any((1, 2)) for c in range(3)], 1)

    evenly = seen(1.0)
    assert evenly[:, 0].all()  # it surrounds the others
    counts = evenly.sum(0).tolist()
    assert 50 <= counts[1] <= 90 and 50 <= counts[2] <= 90
    assert max(seen(None)[:, 1:].sum(0)) < 20
    torch.testing.assert_close(seen(0.0), seen(None))
    halves = [seen(1.0, rank=rank, world=2) for rank in range(2)]
    torch.testing.assert_close(evenly, torch.cat(halves))
    # A class that an image turns out not to show leaves its crop to chance.
    settings = replace(whole, balance=Balance(1.0, ((), (), (0,))))
    label = TrainingBatches(samples, None, steps=1, settings=settings)[0].labelled.label
    assert set(label.unique().tolist()) == {0, IGNORE}


def test_the_pool_is_drawn_by_turns_whatever_the_balance(dataset: Dataset) -> None:
    balance = Balance.of(np.eye(3, dtype=np.int64), share=1.0)
    balanced, free = batches_of(dataset, balance=balance)[1], batches_of(dataset)[1]
    assert balanced.pool is not None and free.pool is not None
    assert torch.equal(balanced.pool.image, free.pool.image)
    assert not torch.equal(balanced.labelled.image, free.labelled.image)


def test_a_resumed_run_goes_on_with_the_same_batches(dataset: Dataset) -> None:
    batches = batches_of(dataset)
    unbroken = list(training_loader(batches, start=0, workers=0))
    resumed = list(training_loader(batches, start=4, workers=0))
    assert len(resumed) == 2
    for a, b in zip(unbroken[4:], resumed, strict=True):
        assert_equal(a, b)


def test_a_warm_up_reads_no_pool_and_changes_nothing_else(dataset: Dataset) -> None:
    warm, whole = batches_of(dataset, pool_from=2), batches_of(dataset)
    assert [warm[step].pool is None for step in range(4)] == [True, True, False, False]
    for step in range(4):
        assert torch.equal(warm[step].labelled.image, whole[step].labelled.image)
    assert all(map(torch.equal, tensors(warm[2]), tensors(whole[2])))


def test_labels_outside_the_partition_are_never_opened(
    fake_data: ModuleType, tmp_path: Path
) -> None:
    dataset = open_dataset(fake_data.plain(tmp_path / "data", images=16))
    train = dataset.split("train")
    names = tmp_path / "labelled.txt"
    names.write_text("".join(f"{sample.name}\n" for sample in train[:2]))
    for sample in train[2:]:
        assert sample.mask is not None
        sample.mask.write_bytes(b"a label that nobody may read")

    labelled, _ = draw_partition(dataset, str(names))
    everything = pool(dataset)
    settings = settings_for(dataset)
    batches = TrainingBatches(labelled, withhold(everything, labelled), steps=8, settings=settings)
    seen = [batch.pool for batch in training_loader(batches, start=0, workers=0)]

    # 32 draws from 11 images: each came at least twice, those without a label without one.
    assert len(everything) == 11
    with_label = sum(int((stream.label != IGNORE).any((1, 2)).sum()) for stream in seen if stream)
    assert 2 * 2 <= with_label <= 2 * 3
    unprotected = TrainingBatches(labelled, everything, steps=8, settings=settings)
    with pytest.raises(ValueError, match="not an image"):
        list(training_loader(unprotected, start=0, workers=0))


def test_label_and_image_stay_together(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    mask = np.kron(random.integers(0, 3, (8, 10)), np.ones((12, 12))).astype(np.uint8)
    image = np.repeat((40 + 80 * mask)[..., None], 3, -1).astype(np.uint8)
    sample = sample_of(tmp_path, "blocks", image, mask)
    for seed in range(12):
        crop = crop_of(sample, crop=CropSettings(size=48), seed=seed)
        label = crop["label"].astype(int)
        known = label != IGNORE
        assert np.array_equal(known, crop["valid"]) and known.any()
        error = np.abs(crop["image"][..., 0].astype(int) - (40 + 80 * label))[known]
        # Only along the outlines of blocks is the image a mixture.
        assert (error <= 2).mean() > 0.6
        assert np.median(error) == 0


def test_hidden_pixels_are_not_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rover, far = np.zeros((2, SIZE, SIZE), np.uint8)
    rover[-6:], far[:4] = 1, 255
    expected = (rover == 0) & (far == 0)
    mask = np.ones((SIZE, SIZE), np.uint8)
    sample = sample_of(tmp_path, "a", grey(), mask, rover, far)
    opened: list[Path] = []
    for name in ("plain_image", "decode_mask"):
        decode = getattr(read, name)
        noting = lambda path, decode=decode: opened.append(path) or decode(path)  # noqa: E731
        monkeypatch.setattr(read, name, noting)

    crop = crop_of(sample)

    np.testing.assert_array_equal(crop["valid"], expected)
    np.testing.assert_array_equal(crop["label"], np.where(expected, 1, IGNORE))
    assert sorted(opened) == sorted({sample.image, sample.mask, *sample.hide})
    without_label = crop_of(replace(sample, mask=None))
    np.testing.assert_array_equal(without_label["valid"], expected)
    assert (without_label["label"] == IGNORE).all()


def test_no_data_borders_are_not_valid(tmp_path: Path) -> None:
    image = grey()
    image[:, :10] = 0
    image[20:24, 20:24] = 0  # a dark stone is no border
    expected = np.ones((SIZE, SIZE), bool)
    expected[:, :10] = False
    crop = crop_of(sample_of(tmp_path, "a", image, np.full((SIZE, SIZE), 2, np.uint8)))
    np.testing.assert_array_equal(crop["valid"], expected)
    np.testing.assert_array_equal(crop["label"], np.where(expected, 2, IGNORE))


def test_padding_is_not_valid(tmp_path: Path) -> None:
    sample = sample_of(tmp_path, "a", grey(), np.zeros((SIZE, SIZE), np.uint8))
    crop = crop_of(sample, crop=CropSettings(size=SIZE, scale=(0.5, 0.5)))
    assert crop["valid"].sum() == (SIZE // 2) ** 2
    np.testing.assert_array_equal(crop["label"], np.where(crop["valid"], 0, IGNORE))
    np.testing.assert_array_equal(crop["image"].any(-1), crop["valid"])


def object_store(folder: Path, name: str, mask: NDArray[np.bool_]) -> ObjectStore:
    proposal = proposal_from_mask(mask, predicted_iou=0.99, stability=0.9, proposer="sam")
    write_store(folder / "objects.parquet", [(name, [proposal])], proposer="sam")
    return ObjectStore(folder / "objects.parquet")


def test_objects_follow_the_pixels(tmp_path: Path) -> None:
    region = np.zeros((60, 70), bool)
    region[10:45, 15:50] = True
    region[10:25, 15:30] = False  # an L shows a mirrored mask
    image = np.repeat(np.where(region, 255, 60)[..., None], 3, -1).astype(np.uint8)
    sample = sample_of(tmp_path, "a", image)
    store = object_store(tmp_path, "a", region)
    drawn = flips = 0
    for seed in range(16):
        crop = crop_of(sample, crop=CropSettings(size=48), objects=store, seed=seed)
        bright = (crop["image"][..., 0] > 157) & crop["valid"]
        if not crop["objects"].any():  # what the crop cuts away is not drawn
            continue
        drawn += 1
        assert (bright != crop["objects"]).mean() < 0.03
        flips += (bright[:, ::-1] != crop["objects"]).mean() > 0.1
    assert drawn >= 8
    assert flips  # the comparison would see a mirrored mask


def test_objects_lie_inside_valid(tmp_path: Path) -> None:
    image = grey()
    image[:, :10] = 0
    rover = np.zeros((SIZE, SIZE), np.uint8)
    rover[-6:] = 1
    sample = sample_of(tmp_path, "a", image, None, rover)
    store = object_store(tmp_path, "a", np.ones((SIZE, SIZE), bool))
    for seed in range(6):
        crop = crop_of(
            sample, crop=CropSettings(size=SIZE, scale=(0.5, 1.0)), objects=store, seed=seed
        )
        assert crop["objects"].dtype == bool and crop["objects"].any()
        assert not (crop["objects"] & ~crop["valid"]).any()


def test_an_image_that_the_store_does_not_know_gets_no_object(tmp_path: Path) -> None:
    store = object_store(tmp_path, "another", np.ones((SIZE, SIZE), bool))
    crop = crop_of(sample_of(tmp_path, "a", grey()), objects=store)
    assert crop["objects"].shape == (SIZE, SIZE) and not crop["objects"].any()


def test_only_the_labelled_stream_draws_objects(dataset: Dataset, tmp_path: Path) -> None:
    train = dataset.split("train")
    whole = np.ones((40, 48), bool)
    proposal = proposal_from_mask(whole, predicted_iou=0.99, stability=0.9, proposer="sam")
    path = tmp_path / "all.parquet"
    write_store(path, [(sample.name, [proposal]) for sample in train], proposer="sam")
    batch = batches_of(dataset, objects=ObjectStore(path), object_filter=ANY_OBJECT)[0]
    assert batch.pool is not None
    assert batch.pool.objects is None
    assert batch.labelled.objects is not None and batch.labelled.objects.any()


def test_image_and_mask_of_different_size_are_named(tmp_path: Path) -> None:
    sample = sample_of(tmp_path, "a", grey(), np.zeros((SIZE, SIZE - 1), np.uint8))
    with pytest.raises(ValueError, match=r"a_image\.png: 40×40 pixels, .*a_mask\.png has 39×40"):
        crop_of(sample)
