"""Start a run with the matching parts of a trained model (``--start-from``)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from s5mars.classes import Taxonomy, plain_name
from s5mars.errors import UserError
from s5mars.models.box import installed_folder
from s5mars.models.build import build_network
from s5mars.models.checkpoint import LoadedModel
from s5mars.models.licences import from_facts, licence_of, require_agreement
from s5mars.models.network import SegmentationNetwork
from s5mars.models.opened import HUB, open_model
from s5mars.models.segmenter import Segmenter
from s5mars.models.tuning import tune
from s5mars.settings.config import TrainConfig
from s5mars.settings.networks import GENERAL_MODELS
from s5mars.types import Method


@dataclass(frozen=True)
class StartReport:
    """Parts of the initial network that were copied from a model."""

    source: str
    decoder: Sequence[str]  # modules of the decoder that fit; each is taken as a whole
    others: Sequence[str]  # the others, which start at random
    classes: Sequence[str]  # classes whose rows of the classifier were taken
    new: Sequence[str]  # other classes of the run, which start at random
    # A local path, which is not written into shared records.
    path: str | None = None

    @property
    def details(self) -> list[str]:
        """Further lines for the user."""
        return [] if self.path is None else [f"read from {self.path}"]

    def __str__(self) -> str:
        parts = [f"copied: decoder ({', '.join(self.decoder)})"] if self.decoder else []
        parts += [f"random: decoder ({', '.join(self.others)})"] if self.others else []
        parts += [f"copied classes: {', '.join(self.classes)}"] if self.classes else []
        parts += [f"random classes: {', '.join(self.new)}"] if self.new else []
        return f"encoder weights: {self.source} (--start-from); {'; '.join(parts)}"


def starting_network(
    config: TrainConfig, method: Method, taxonomy: Taxonomy
) -> SegmentationNetwork:
    """Build the network of a new run as ``build_network`` does, start it and ``tune`` it.

    Raises:
        UserError, MissingFileError: as ``build_network``; if the licence of the encoder's weights
            must be agreed to; and if the model to start from does not
            exist, has no timm encoder, or has another encoder than the run.
    """
    if not config.start_from:
        of_timm = config.model not in GENERAL_MODELS
        licence = licence_of(config.model, config.weights) if of_timm else None
        require_agreement(licence, config.accept_licence)
        network = build_network(config, method, taxonomy)
        if isinstance(network, Segmenter):
            network.licence = licence
            tune(network, config)
        return network
    if config.weights not in {"auto", "none"}:
        raise UserError(
            f"--start-from {config.start_from} brings its own encoder; leave out --weights "
            f"{config.weights}"
        )
    loaded = open_model(config.start_from)
    licence = from_facts(loaded.facts["training"])
    require_agreement(licence, config.accept_licence)
    network = build_network(replace(config, weights="none"), method, taxonomy)
    if not isinstance(network, Segmenter):
        raise UserError(f"--start-from cannot be used with --model {config.model}")
    report = take(network, loaded, taxonomy, source=config.start_from)
    network.weights_report, network.licence = report, licence
    tune(network, config)
    return network


def take(
    network: Segmenter, loaded: LoadedModel[SegmentationNetwork], taxonomy: Taxonomy, *, source: str
) -> StartReport:
    """Copy the parts of a model that fit into a network, in place.

    The encoder is copied as a whole, each module of the decoder if all its tensors have the same
    shapes, and the rows of the classifier whose classes have the same name (case, ``_``, ``-`` and
    spaces do not matter). The normalisation is copied too, unless the run chose another kind.

    ``taxonomy`` has the classes of ``network``; ``source`` is how the user named the model.

    Raises:
        UserError: if the model has no timm encoder, or another one.
    """
    model = loaded.model
    if not isinstance(model, Segmenter):
        raise UserError(f"--start-from {source} has no timm encoder; give a run that has one")
    theirs, ours = (str(n.description["encoder"]) for n in (model, network))
    given, wanted = model.state_dict(), network.state_dict()
    if theirs.partition(".")[0] != ours.partition(".")[0] or not _fits("encoder", given, wanted):
        raise UserError(
            f"--start-from {source} has the encoder {theirs}, but this run has {ours}; use "
            f"--model {theirs}"
        )
    same = type(model) is type(network)
    decoder = [name for name in network.DECODER if same and _fits(name, given, wanted)]
    buffers = ["mean", "std"]
    if model.description["normalisation"] != network.description["normalisation"]:
        buffers = []
    taken = {
        key: value
        for key, value in given.items()
        if key in buffers or key.partition(".")[0] in {"encoder", *decoder}
    }
    # The classifier reads what the last module gives.
    rows = _rows(loaded.taxonomy, taxonomy) if network.DECODER[-1] in decoder else {}
    for part in ("weight", "bias"):
        key = f"classifier.{part}"
        target = wanted[key].clone()
        for to, at in rows.items():
            target[to] = given[key][at]
        taken[key] = target
    network.load_state_dict(taken, strict=False)
    return StartReport(
        source=_shared_name(source),
        decoder=decoder,
        others=[name for name in network.DECODER if name not in decoder],
        classes=[taxonomy.names[to] for to in rows],
        new=[name for index, name in enumerate(taxonomy.names) if index not in rows],
        path=None if source.startswith(HUB) or installed_folder(source) else source,
    )


def _fits(module: str, given: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    """Whether all tensors of a module have the same names and shapes."""
    shapes = [
        {key: value.shape for key, value in state.items() if key.startswith(f"{module}.")}
        for state in (given, wanted)
    ]
    return shapes[0] == shapes[1]


def _rows(given: Taxonomy, wanted: Taxonomy) -> dict[int, int]:
    """Class index of the run → class index of the model, for classes with the same name."""
    known = {plain_name(name): index for index, name in enumerate(given.names)}
    return {
        index: known[plain_name(name)]
        for index, name in enumerate(wanted.names)
        if plain_name(name) in known
    }


def _shared_name(source: str) -> str:
    """The source without the folders of this machine: ``a``, or ``a/best.safetensors``."""
    if source.startswith(HUB):
        return source
    path = Path(os.path.abspath(source))  # noqa: PTH100 (a link keeps its name)
    return path.name if path.is_dir() or not path.suffix else f"{path.parent.name}/{path.name}"
