"""Parse the command line and YAML to typed settings, and write them to ``config.yaml``.

The parser of ``train`` is made from the signatures of ``TrainConfig``, of the options of the chosen
network and of the chosen method's class, so that every option is a field and every field an option.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, asdict, fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jsonargparse
import yaml
from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]

from s5mars.errors import MissingFileError, UserError
from s5mars.files.reading import read_yaml
from s5mars.settings.ablations import ABLATED, Row, find_ablation
from s5mars.settings.argument_parser import Parser
from s5mars.settings.config import DataSettings, EncoderSettings, TrainConfig
from s5mars.settings.networks import DeepLabOptions, NetworkOptions, network_options
from s5mars.settings.recipes import find_recipe

if TYPE_CHECKING:
    from s5mars.types import Method


class Training(NamedTuple):
    """Everything that describes a run."""

    config: TrainConfig
    method: Method
    text: str  # both as YAML, which ``training_from_yaml`` reads back


def parse_training(arguments: Sequence[str], *, own: Method | None = None) -> Training:
    """Settings from the arguments of ``s5mars train``.

    ``own`` is an object of the method that ``--method`` names: its class need not be registered,
    and its fields are the defaults of its options.

    Raises:
        UserError: for an unknown option, key, method, recipe or ablation, an ablation of another
            method than S5Mars, or a value of the wrong type; or if the options do not give ``own``
            again, so that ``config.yaml`` would describe another method.
    """
    early = chosen(arguments)
    # A command parses twice, a comparison once for each cell, and making the parser takes longest.
    make: Callable[..., Parser] = _kept_parser if own is None else _parser
    kind = _method_class(early.method, own)
    parser = make(early.method, early.recipe, early.ablation, early.model, kind, own)
    namespace = parser.parse(arguments)
    text = str(parser.dump(namespace, skip_none=False))
    with _naming(early.method):
        built = parser.instantiate(namespace)
        method = _built(kind, built[early.method])
    network = network_options(parser.model)
    values = {field.name: built[field.name] for field in fields(TrainConfig) if field.name in built}
    config = TrainConfig(**values, network=_built(network, built[network.group]))
    _require_used_threshold(config, method)
    if own is not None:
        _require_equal(own, method, name=config.method)
    return Training(config, method, text)


def training_from_yaml(path: Path, *, own: Method | None = None) -> Training:
    """Settings from the ``config.yaml`` of a run; ``own`` as for ``parse_training``.

    Raises:
        MissingFileError: if there is none.
        UserError: if it is not a settings file.
    """
    if not path.exists():
        raise MissingFileError(f"{path} is missing: {path.parent} is not a training run")
    read_yaml(path)  # an error in the file itself names the file
    try:
        return parse_training(["--config", str(path)], own=own)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def with_values(text: str, config: TrainConfig, names: Iterable[str]) -> str:
    """``config.yaml`` with these fields of ``config`` in place of its own."""
    content = dict(yaml.safe_load(text))
    for name in names:
        value = getattr(config, name)
        if isinstance(value, NetworkOptions):
            given = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(value).items()}
            content[value.group] = {**content.get(value.group, {}), **given}
        else:
            content[name] = str(value) if isinstance(value, Path) else value
    return str(yaml.safe_dump(content, sort_keys=False))


def with_changes(text: str, old: TrainConfig, new: TrainConfig) -> str:
    """``config.yaml`` of ``old``, with the fields in which ``new`` differs from it."""
    changed = [f.name for f in fields(new) if getattr(new, f.name) != getattr(old, f.name)]
    return with_values(text, new, changed)


def check_recipe_and_ablation(arguments: Sequence[str]) -> None:
    """Raise a UserError for a wrong recipe or ablation; this does not import torch."""
    early = chosen(arguments)
    _row(early.ablation, early.method)


def training_parser(arguments: Sequence[str], *, with_method: bool = True) -> Parser:
    """The parser for these arguments, which decide what options exist; raises ``UserError``.

    The options of the chosen method are there only ``with_method``, which imports torch.
    """
    early = chosen(arguments)
    kind = _method_class(early.method, None) if with_method else None
    return _parser(early.method, early.recipe, early.ablation, early.model, kind, None)


def _parser(
    method: str,
    recipe: str,
    ablation: str,
    model: str,
    kind: type[Any] | None,
    own: Method | None,
) -> Parser:
    """The parser for what ``chosen`` returns and the class of the method."""
    settings, network = find_recipe(recipe), network_options(model)
    parser = Parser(prog="s5mars train", description=_ABOUT, epilog=_EXAMPLE, model=model)
    parser.add_argument(
        "--config",
        action=ActionConfigFile,
        help="Path to a YAML file of settings, which other options override.",
    )
    for part in TrainConfig.__bases__:
        if part is EncoderSettings and network is not DeepLabOptions:
            continue
        skip = {"scale", "crops"} if part is DataSettings and network.fixed_crops else None
        parser.add_class_arguments(part, skip=skip)
    parser.add_class_arguments(network, network.group)
    of_method = settings.training_of(method)
    parser.set_known_defaults(of_method, source=f"recipe {recipe}")
    row = _row(ablation, method)
    if row is not None:
        parser.set_defaults(dict(row.training))
    if kind is not None:
        parser.add_class_arguments(kind, method)
        default: Any = own
        if default is None and not _required(kind):
            default = settings.method(method, kind())
        if row is not None:
            if own is not None:
                raise UserError("an ablation changes the method itself: give no method object")
            default = row.change(default)
        if default is not None:
            try:
                parser.set_defaults(_defaults(default, prefix=method))
            except ValueError as error:
                raise UserError(
                    f"a field of {kind.__name__} cannot be an option: fields are numbers, text, "
                    f"lists or dataclasses of these ({' '.join(str(error).split())})"
                ) from error
    parser.dashes()
    return parser


_kept_parser = lru_cache(maxsize=32)(_parser)


def _row(ablation: str, method: str) -> Row | None:
    row = find_ablation(ablation) if ablation else None
    if row is not None and method != ABLATED:
        raise UserError(f"ablation {ablation!r} needs --method {ABLATED} (got {method})")
    return row


def _method_class(name: str, own: Method | None) -> type[Any]:
    from s5mars.methods import method_class, method_name

    if own is None:
        return method_class(name)
    if (of_object := method_name(type(own))) != name:
        raise UserError(f"method is {name}, but the method object is of {of_object}")
    return type(own)


def _required(kind: type[Any]) -> bool:
    """Whether a dataclass has a field without a default, which becomes a required option."""
    return any(
        field.init and field.default is MISSING and field.default_factory is MISSING
        for field in fields(kind)
    )


def _require_equal(own: Any, built: Any, *, name: str) -> None:
    """Raise if a field of a method object differs from what its options give."""
    for field in fields(own):
        given, found = getattr(own, field.name), getattr(built, field.name)
        if field.init and given != found:
            raise UserError(
                f"{name}.{field.name} is {given!r} in the method object and {found!r} in the "
                "settings: they must be the same (give it once, with a value of its annotated type)"
            )


@contextmanager
def _naming(method: str) -> Iterator[None]:
    """Name the method in the errors of its fields, which do not know what they belong to."""
    try:
        yield
    except UserError as error:
        if str(error).startswith("--"):
            raise  # of an option of the network
        raise UserError(f"method {method}: {error}") from error


def _built(kind: type[Any], settings: Any) -> Any:
    """The dataclass of a group; jsonargparse leaves some groups as a namespace."""
    return kind(**vars(settings)) if isinstance(settings, jsonargparse.Namespace) else settings


def _require_used_threshold(config: TrainConfig, method: Any) -> None:
    """Raise if a threshold is set that is not used: FreeMatch learns its own."""
    if config.thresholds != "freematch":
        return
    groups = {config.method: method}
    for field in fields(method):  # a method may contain another one
        if is_dataclass(inner := getattr(method, field.name)):
            groups[f"{config.method}.{field.name}"] = inner
    for group, settings in groups.items():
        defaults = {field.name: field.default for field in fields(settings)}
        for name in ("threshold", "hard_threshold", "confident"):
            given = getattr(settings, name, 0.0)
            if given > 0 and given != defaults.get(name):
                raise UserError(
                    f"{group}.{name} (got {given:g}) has no effect with --thresholds "
                    "freematch, which learns it; use fixed or flexmatch"
                )


def chosen(arguments: Sequence[str]) -> Namespace:
    """Method, recipe, ablation and model, which decide what options exist; unchecked."""
    names = ("method", "recipe", "ablation", "model")
    found = {name: getattr(TrainConfig, name) for name in names if name != "model"}
    found |= {k: v for k, v in given(arguments, names).items() if isinstance(v, str)}
    of_recipe = find_recipe(found["recipe"]).training
    return Namespace(**{"model": of_recipe.get("model", TrainConfig.model), **found})


def given(arguments: Sequence[str], names: Iterable[str]) -> dict[str, Any]:
    """Options that the arguments or their settings files give; None in a file counts as not given.

    ``names`` are fields of ``TrainConfig`` to look for; other arguments are not checked.
    """
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", nargs="?", action="append", default=[])
    for name in names:
        parser.add_argument(f"--{name}", nargs="?", const=getattr(TrainConfig, name, ""))
    words = vars(parser.parse_known_args(arguments)[0])
    found: dict[str, Any] = {}
    for path in filter(None, words.pop("config")):
        content = read_settings(Path(path))
        found |= {k: v for k in words if (v := content.get(k)) is not None}
    return found | {k: v for k, v in words.items() if v is not None}


def read_settings(path: Path) -> dict[str, Any]:
    """Content of a settings file.

    Raises:
        MissingFileError: if there is none.
        UserError: if it has another content than options with values.
    """
    content = read_yaml(path)
    if not isinstance(content, dict) or not _has_names(content):
        raise UserError(f"--config {path} must contain options with their values")
    return content


def _has_names(content: Mapping[Any, Any]) -> bool:
    return all(
        isinstance(key, str) and (not isinstance(value, dict) or _has_names(value))
        for key, value in content.items()
    )


def _defaults(settings: Any, *, prefix: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for field in fields(settings):
        if not field.init:
            continue
        value = getattr(settings, field.name)
        key = f"{prefix}.{field.name}"
        values |= (
            _defaults(value, prefix=key) if hasattr(value, "__dataclass_fields__") else {key: value}
        )
    return values


_ABOUT = "Train a segmentation model on a folder of images with few, sparse labels."
_EXAMPLE = """examples:
  s5mars train DATA
  s5mars train DATA --method s5mars --labelled 0.125 --steps 600 --batch 6 --crop 192 \\
      --model tf_efficientnet_lite0 --out runs/a
  s5mars train --resume runs/a                      resume a stopped run
  s5mars train --method s5mars --help               with the options of a method
  s5mars train --method s5mars --print-config       all settings as YAML"""
