"""Draw one image of the pool under each row of an ablation (figures 6 and 8 of the paper).

The rows are applied by ``S5Mars.augment``, as in training. True labels replace the teacher's
predictions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from s5mars.augment.sam_mix import SamMix
from s5mars.classes import IGNORE
from s5mars.data.crops import CropSettings
from s5mars.data.dataset import Dataset
from s5mars.data.layouts import open_dataset
from s5mars.data.partition import pool
from s5mars.data.read import image_size
from s5mars.errors import UserError, require_choice
from s5mars.files import write_figure
from s5mars.methods.s5mars import S5Mars
from s5mars.methods.views import as_float
from s5mars.proposals.prepare import object_store
from s5mars.randomness import generator, generators
from s5mars.settings.ablations import ABLATIONS
from s5mars.training.loader import LoaderSettings, load_crop
from s5mars.types import Sample, Targets, View

BASES: Mapping[str, S5Mars] = {
    "strong": S5Mars(),
    "augin": S5Mars(mix=SamMix(source="none")),
    "mixing": S5Mars(swap="none"),
    "objects": S5Mars(swap="none"),
}
"""The ablations that change pixels, and the method whose fields their rows change. The method does
nothing else to the image, so each picture shows the effect of its row alone."""

CROP = 512
"""Side of the crops in pixels, as in training; smaller if an image is smaller."""

_OUTLINE = "#00e5ff"  # does not occur in images of Mars


@dataclass(frozen=True)
class Tile:
    """One picture of the sheet."""

    title: str
    image: NDArray[np.float32]  # (S, S, 3), clipped to [0, 1] when it is drawn
    pasted: NDArray[np.bool_] | None = None  # (S, S), outlined


def show_augmentations(
    data: Path,
    *,
    augmentations: str,
    out: Path,
    image: str | None = None,
    seed: int = 0,
    objects: Path | None = None,
    splits: Path | None = None,
) -> Path:
    """Write the sheet of one ablation as a PNG file.

    Args:
        augmentations: a key of ``BASES``.
        image: name of the image to show; None draws one from the train split.
        objects: object proposals, as for training; None makes those of the partner by graph
            segmentation.
        splits: folder of the split lists; see ``open_dataset``.

    Raises:
        UserError: if the ablation or the image is unknown, ``out`` does not end in .png, there is
            no second labelled image, a file cannot be read, or no row pastes the ``objects``.
        MissingFileError: if ``data`` does not exist.
    """
    require_choice(augmentations, BASES, name="--augmentations", suggest=True)
    if objects is not None and not _pastes_objects(augmentations):
        *using, last = filter(_pastes_objects, BASES)
        raise UserError(
            f"--objects is for --augmentations {', '.join(using)} or {last}, not for "
            f"{augmentations}: leave it out"
        )
    if out.suffix.lower() != ".png":
        raise UserError(f"--out must end in .png (got {out})")
    dataset = open_dataset(data, splits=splits)
    shown, partner = _choose(dataset, image, seed)
    views, mask = _views(dataset, (shown, partner), seed, objects, augmentations)
    tiles = [
        Tile("the image", _pixels(views)),
        Tile("its partner", _pixels(views, 1)),
        *rows(views, mask, augmentations=augmentations, seed=seed),
    ]
    table = ABLATIONS[augmentations]
    words = (
        f"Image {shown.name}, partner {partner.name}, seed {seed}. Each picture shows the effect "
        "of one row alone; values are clipped to [0, 1]."
    )
    if any(tile.pasted is not None for tile in tiles):
        words += " Pasted regions are outlined."
    if augmentations == "mixing":
        words += (
            " There is no teacher, so ClassMix uses true classes here; each unlabelled pixel takes "
            "the class of the nearest labelled pixel."
        )
    write_figure(out, _sheet(tiles, f"{table.source}: {table.about}", words))
    return out


def rows(views: View, mask: Tensor, *, augmentations: str, seed: int) -> list[Tile]:
    """Apply each row of an ablation to the first view.

    Args:
        views: the image and its partner, with the labels that replace the teacher's predictions.
            The last channel of ``probability`` is 1/2 in the partner and 0 in the image; it is
            pasted together with the pixels and so marks them.
        mask: (1, S, S) bool, the object of the partner.
    """
    tiles = []
    donor = View(views.image[1:], _one(views.targets, 1))
    for name, row in ABLATIONS[augmentations].rows.items():
        method = row.change(BASES[augmentations])
        # Every row gets the same generators, so that rows differ only in what they change.
        rngs = generators(seed, "strong view", samples=range(2))
        pair = torch.tensor([1, 0])
        donors = None if method.mix.donors == "none" else donor
        strong = method.augment(views, donors, mask, partner=pair, rngs=rngs)
        pasted = (strong.targets.probability[0, -1] > 0.25).numpy()
        tiles.append(Tile(name, _pixels(strong), pasted if pasted.any() else None))
    return tiles


def _choose(dataset: Dataset, name: str | None, seed: int) -> tuple[Sample, Sample]:
    """Choose the image to show and its partner, a labelled image of the train split."""
    rng = generator(seed, "image to show")
    if name is None:
        candidates = pool(dataset)
        shown = candidates[int(rng.integers(len(candidates)))]
    else:
        shown = dataset.sample(name)
    labelled = [s for s in dataset.split("train") if s.mask is not None and s.name != shown.name]
    if not labelled:
        raise UserError(
            f"{dataset.root}: the train split needs a second labelled image as the partner"
        )
    return shown, labelled[int(rng.integers(len(labelled)))]


def _views(
    dataset: Dataset,
    samples: Sequence[Sample],
    seed: int,
    objects: Path | None,
    augmentations: str,
) -> tuple[View, Tensor]:
    """Load both images at their own scale, and the object of the partner."""
    side = min(CROP, *(min(image_size(sample.image)) for sample in samples))
    settings = LoaderSettings(
        seed=seed,
        batch=1,
        crop=CropSettings(size=side, scale=(1.0, 1.0), flip=0.0),
        coding=dataset.coding,
    )
    crops = []
    with TemporaryDirectory() as cache:
        for k, sample in enumerate(samples):
            store = None
            if k == 1 and _pastes_objects(augmentations):
                store, _ = object_store(objects, [sample], cache=Path(cache) / "objects")
            rng = generator(seed, "crop to show", sample=k)
            crops.append(load_crop(sample, rng=rng, settings=settings, objects=store))
    labels = [crop["label"] for crop in crops]
    classes = len(dataset.taxonomy)
    nearest = torch.from_numpy(np.stack([_nearest_label(label) for label in labels])).long()
    probability = F.one_hot(nearest, classes + 1).permute(0, 3, 1, 2).float()
    probability[1, -1] = 0.5
    targets = Targets(
        probability=probability,
        label=torch.from_numpy(np.stack(labels)).long(),
        valid=torch.from_numpy(np.stack([crop["valid"] for crop in crops])),
    )
    image = torch.from_numpy(np.stack([crop["image"] for crop in crops])).permute(0, 3, 1, 2)
    mask = crops[1].get("objects", np.zeros((side, side), bool))
    return View(as_float(image), targets), torch.from_numpy(mask.astype(bool))[None]


def _pastes_objects(augmentations: str) -> bool:
    """Whether a row of an ablation pastes objects."""
    rows = ABLATIONS[augmentations].rows.values()
    return any(row.change(BASES[augmentations]).needs.objects for row in rows)


def _nearest_label(label: NDArray[np.generic]) -> NDArray[np.generic]:
    """Give every pixel the class of the nearest labelled one; class 0 if no pixel is labelled."""
    unknown = label == IGNORE
    if unknown.all():
        return np.zeros_like(label)
    nearest = distance_transform_edt(unknown, return_distances=False, return_indices=True)
    filled: NDArray[np.generic] = label[tuple(nearest)]
    return filled


def _one(targets: Targets, index: int) -> Targets:
    here = slice(index, index + 1)
    return Targets(targets.probability[here], targets.label[here], targets.valid[here])


def _pixels(view: View, index: int = 0) -> NDArray[np.float32]:
    return view.image[index].permute(1, 2, 0).numpy()


def _sheet(tiles: Sequence[Tile], title: str, words: str) -> Figure:
    lines = max(1, round(math.sqrt(len(tiles) / 1.5)))
    columns = math.ceil(len(tiles) / lines)
    figure = Figure(figsize=(2.6 * columns, 2.75 * lines + 0.6), layout="constrained")
    figure.suptitle(title, fontsize=10, wrap=True)
    figure.supxlabel(words, fontsize=8, wrap=True)
    places = figure.subplots(lines, columns, squeeze=False).flat
    for axes in places:
        axes.set_axis_off()
    for axes, tile in zip(figure.axes, tiles, strict=False):
        axes.imshow(tile.image.clip(0, 1))
        axes.set_title(tile.title, fontsize=9)
        if tile.pasted is not None and not tile.pasted.all():
            axes.contour(tile.pasted, levels=[0.5], colors=_OUTLINE, linewidths=0.9)
    return figure
