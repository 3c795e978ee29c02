"""Choose settings that are not given from the machine and the data.

``s5mars train FOLDER`` needs no options: this module appends ``--out``, ``--model``,
``--resolution``, ``--crop`` and ``--steps`` to the arguments, with the reasons.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from s5mars.data.dataset import Dataset
from s5mars.data.layouts import open_dataset
from s5mars.data.read import image_size
from s5mars.data.resolution import Resolution
from s5mars.errors import UserError
from s5mars.models.box import installed_folder
from s5mars.models.encoders import is_columnar
from s5mars.models.facts import checkpoint_path, read_facts
from s5mars.models.weights import can_be_loaded
from s5mars.parallel.cores import usable_cores
from s5mars.settings.config import TrainConfig
from s5mars.settings.networks import DeepLabOptions, network_options
from s5mars.settings.parsing import given, parse_training
from s5mars.settings.recipes import find_recipe
from s5mars.text.numbers import plural
from s5mars.training.announce import OF_POOL
from s5mars.training.notes import ENOUGH_POOL_CROPS
from s5mars.training.stages import trains_in_stages
from s5mars.types import Method

SECONDS = 3600
"""Approximate maximum duration of a run on a CPU."""

FEWEST_STEPS = 200
"""Minimum number of steps, even if they take longer."""

LIGHT, STANDARD = "tf_efficientnet_lite0", "resnet50"

ON_CPU = ((384, 256), (320, 224), (256, 192), (256, 160))
"""Longer side of the images and crop on a CPU, in order of preference."""

ON_GPU = ((512, 512),)

SECONDS_PER_MEGAPIXEL = 3.5
"""Seconds of a step of *Supervised* per megapixel of labelled crops on one core, with ``LIGHT``."""

OF_OTHER_ENCODERS = 8.0
"""Approximate factor on the time with other encoders, measured for ResNet-50."""

_SAMPLED_IMAGES = 16
"""Number of images whose size is read."""

_NAMES = ("data", "out", "method", "recipe", "ablation", "model", "resolution", "crop", "steps",
          "epochs")  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """Hardware that a run may use."""

    gpu: bool
    cores: int

    @classmethod
    def here(cls, accelerator: str) -> Machine:
        """This machine, as far as ``--accelerator`` allows."""
        gpu = torch.cuda.is_available() and accelerator in {"auto", "gpu", "cuda"}
        return cls(gpu, min(usable_cores(), torch.get_num_threads()))

    def __str__(self) -> str:
        if self.gpu:
            return "a GPU"
        return f"a CPU with {plural(self.cores, 'thread')}"


def complete(arguments: Sequence[str], *, own: Method | None = None) -> tuple[list[str], str]:
    """Append missing options; return all options, and the reasons for the new ones as text.

    Args:
        arguments: arguments of ``s5mars train``; the folder of the data may come first, without
            ``--data``.
        own: method object that ``--method`` names (see ``settings.parsing.parse_training``).

    Raises:
        UserError, MissingFileError: if the given settings or the data are wrong.
    """
    words = list(arguments)
    if words and not words[0].startswith("-"):
        if "data" in given(words[1:], ["data"]):
            raise UserError(f"the data is given twice, as {words[0]} and with --data; give it once")
        words[0] = f"--data={words[0]}"
    known = given(words, _NAMES)
    if any(word.startswith("--print-config") for word in words):
        return words, ""
    if "data" not in known:
        # Other mistakes first.
        parse_training([*words, "--data=DATA", "--out=RUN", "--steps=1"], own=own)
        raise UserError(
            "the data folder is missing; use s5mars train FOLDER (see s5mars train --help)"
        )
    chosen: dict[str, tuple[str, str]] = {}  # option → value and reason
    if "out" not in known:
        chosen["out"] = (str(_unused_folder(known)), "")
    fixed = {*known, *_set_by_recipe(known)}
    if not fixed & {"steps", "epochs"} or not {"model", "resolution", "crop"} <= fixed:
        chosen |= _of_data_and_machine(words, fixed, chosen, own=own)
    added = [f"--{name}={value}" for name, (value, _) in chosen.items()]
    text = ""
    for option, (_, reason) in zip(added, chosen.values(), strict=True):
        text = with_choice(text, option, reason)
    return [*words, *added], text


def with_choice(chosen: str, option: str, reason: str) -> str:
    """The list of what is chosen, with one more option; it begins with its heading."""
    return f"{chosen or 'chosen automatically:'}\n  {option:<31} {reason}".rstrip()


def steps_for(
    config: TrainConfig, method: Method, *, model: str, crop: int, machine: Machine
) -> tuple[int, bool]:
    """Number of steps, and whether they are enough for the pool.

    ``model`` and ``crop``, in pixels, replace those of the settings.
    """
    stages = 1.5 if trains_in_stages(config, method) else 1.0  # one of three sees no pool
    crops_a_step = config.batch * (1 - config.warm_up if method.needs.pool else 1)
    enough = int(-(-stages * ENOUGH_POOL_CROPS / crops_a_step // 100) * 100)  # rounded up
    if machine.gpu:
        return enough, True
    seconds = SECONDS_PER_MEGAPIXEL * config.batch * crop**2 / 1e6
    seconds *= 1.0 if model == LIGHT else OF_OTHER_ENCODERS
    seconds *= OF_POOL if method.needs.pool else 1
    possible = int(SECONDS / seconds * (1 + 0.7 * (machine.cores - 1)))
    if possible >= enough:
        return enough, True
    return max(FEWEST_STEPS, possible // 50 * 50), False


def _of_data_and_machine(
    words: Sequence[str],
    fixed: set[str],
    chosen: Mapping[str, tuple[str, str]],
    *,
    own: Method | None,
) -> dict[str, tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}
    out = [f"--out={chosen['out'][0]}"] if "out" in chosen else []
    length = [] if fixed & {"steps", "epochs"} else ["--steps=1000"]
    # Raises for what the user has given.
    config, method, _ = parse_training([*words, *out, *length], own=own)
    machine = Machine.here(config.accelerator)
    dataset = open_dataset(config.data, splits=config.splits)
    model, crop = config.model, config.crop
    if "model" not in fixed:
        model, reason = _model(config, machine)
        found["model"] = (model, reason)
    sizes = _sizes(dataset)
    if network_options(model) is DeepLabOptions and sizes and not is_columnar(model):
        options = _sides(config, fixed, sizes, machine)
        tried = [
            steps_for(config, method, model=model, crop=c, machine=machine) for _, c in options
        ]
        best = next((i for i, (_, enough) in enumerate(tried) if enough), len(tried) - 1)
        resolution, crop = options[best]
        longest = statistics.median(max(size) for size in sizes)
        if "resolution" not in fixed:
            found["resolution"] = (resolution, f"images have {longest:.0f} pixels; {machine}")
        if "crop" not in fixed:
            found["crop"] = (str(crop), "the largest that fits and leaves time for enough crops")
    if not fixed & {"steps", "epochs"}:
        steps, enough = steps_for(config, method, model=model, crop=crop, machine=machine)
        kind = "the pool" if method.needs.pool else "the labelled images"
        reason = "about one hour" if steps > FEWEST_STEPS else "the minimum of a useful run"
        if enough:
            reason = f"{ENOUGH_POOL_CROPS:,} crops of {kind}"
        found["steps"] = (str(steps), reason)
    return found


def _model(config: TrainConfig, machine: Machine) -> tuple[str, str]:
    if config.start_from:
        path = installed_folder(config.start_from) or Path(config.start_from)
        if path.exists():
            facts = read_facts(checkpoint_path(path))
            encoder = str(facts["model"].get("encoder") or STANDARD)
            return encoder, f"that of {config.start_from}"
    if machine.gpu:
        if config.weights != "auto" or can_be_loaded(STANDARD):
            return STANDARD, "the machine has a GPU"
        return LIGHT, (
            f"a light encoder, whose weights are installed; those of {STANDARD} are not on this "
            "machine, and the hub cannot be reached"
        )
    return LIGHT, "a light encoder, as there is no GPU; its weights are installed"


def _sides(
    config: TrainConfig, fixed: set[str], sizes: Sequence[tuple[int, int]], machine: Machine
) -> list[tuple[str, int]]:
    """Resolutions and crops that fit the images and the given options, in order of preference."""
    longest = statistics.median(max(size) for size in sizes)
    found = []
    for side, crop in ON_GPU if machine.gpu else ON_CPU:
        resolution = "full" if longest <= side else str(side)
        if "resolution" in fixed:
            resolution = config.resolution
        resized = [Resolution.parse(resolution).size(*size) for size in sizes]
        shortest = int(statistics.median(min(size) for size in resized))
        fitting = max(32, min(crop, shortest) // 32 * 32)
        found.append((resolution, config.crop if "crop" in fixed else fitting))
    return list(dict.fromkeys(found))


def _sizes(dataset: Dataset) -> list[tuple[int, int]]:
    train = dataset.split("train")
    sizes = []
    for sample in train[:: max(1, len(train) // _SAMPLED_IMAGES)]:
        with suppress(UserError):  # a damaged image: training reports it, or skips it
            sizes.append(image_size(sample.image))
    return sizes


def _set_by_recipe(known: Mapping[str, object]) -> set[str]:
    """Settings that the recipe fixes; the papers' recipes fix all of them."""
    recipe = str(known.get("recipe", "default"))
    fixed = {"model", "resolution", "crop", *find_recipe(recipe).training}
    return set() if recipe == "default" else fixed


def _unused_folder(known: Mapping[str, object]) -> Path:
    """``runs/NAME-METHOD-N`` with the first number that is free."""
    name = re.sub(r"[^\w.-]+", "_", Path(str(known["data"])).resolve().name).strip(".") or "data"
    stem = f"{name}-{known.get('method', TrainConfig.method)}"
    number = 1
    while (Path("runs") / f"{stem}-{number}").exists():
        number += 1
    return Path("runs") / f"{stem}-{number}"
