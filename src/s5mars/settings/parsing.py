"""From the command line and YAML to typed settings, and back to ``config.yaml``.

The parser of ``train`` is made from the signatures of ``TrainConfig`` and of the chosen method's
class, so that an option exists exactly when a field does.
"""

from __future__ import annotations

import difflib
import re
from argparse import ArgumentError
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jsonargparse
import yaml

from s5mars.errors import MissingFileError, UserError
from s5mars.files.reading import parse_yaml, read_yaml
from s5mars.settings.ablations import find_ablation
from s5mars.settings.config import TrainConfig
from s5mars.settings.recipes import find_recipe

if TYPE_CHECKING:
    from s5mars.types import Method

DEFAULT_METHOD = "s5mars"

_MODE = "s5mars"
# A settings file may come with somebody else's run: jsonargparse reads it by our rules, too.
jsonargparse.set_loader(_MODE, parse_yaml, exceptions=(yaml.YAMLError, ValueError))


class Training(NamedTuple):
    """Everything that describes a run."""

    config: TrainConfig
    method: Method
    text: str  # both as YAML, which ``training_from_yaml`` reads back


class Parser(jsonargparse.ArgumentParser):
    """jsonargparse with dashes in option names, and errors that offer the nearest option."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(
            *args,
            exit_on_error=False,
            allow_abbrev=False,
            parser_mode=_MODE,
            print_config="--print-%s",
            **kwargs,
        )

    def dashes(self) -> None:
        """Show ``--save-every`` for the field ``save_every``, and let a switch stand alone."""
        for action in self._actions:
            renamed = [option.replace("_", "-") for option in action.option_strings]
            action.option_strings = renamed
            self._option_string_actions.update(dict.fromkeys(renamed, action))
            if getattr(action, "_typehint", None) is bool:
                action.nargs, action.const = "?", True

    def parse(self, arguments: Sequence[str]) -> jsonargparse.Namespace:
        """Parse, or raise a ValueError of one line."""
        try:
            return self.parse_args([_underscore_free(a) for a in arguments])
        except (ArgumentError, jsonargparse.ParserError) as error:
            raise UserError(self._explain(str(error))) from error

    def _explain(self, message: str) -> str:
        message = " ".join(message.split())
        if found := re.search(r"unrecognized arguments: (\S+)", message):
            wrong = found.group(1).partition("=")[0]
            if not wrong.startswith("--"):
                return f"unexpected argument {wrong!r}; see --help"
            return f"unknown option {wrong}" + self._nearest(wrong.lstrip("-"), prefix="--")
        if found := re.search(
            r"(?:Group '(?P<group>\S+)' does not accept option|Option|Key) '(?P<key>[^']+)'",
            message,
        ):
            wrong = ".".join(part for part in (found["group"], found["key"]) if part)
            return f"unknown key {wrong!r} in the settings" + self._nearest(wrong, prefix="")
        if found := re.search(r'key "(\S+)":.*(?:value: |Got value: )(.*)$', message):
            kind = re.search(r"Literal(\[.*?\])", message)
            types = re.findall(r"Expected a <class '(\w+)'>", message)
            types = [name for name in dict.fromkeys(types) if name != "NoneType"]
            wanted = kind.group(1) if kind else " or ".join(types) or "another type"
            return f"{found[1]} is {found[2]!r}: expected {wanted}"
        if found := re.search(r"arguments are required: (.*)", message):
            return f"missing: --{found[1].replace(', ', ', --')}; see --help"
        return message

    def _nearest(self, wrong: str, *, prefix: str) -> str:
        known = [a.dest for a in self._actions if a.dest not in {"help", "config"}]
        near = difflib.get_close_matches(wrong.replace("-", "_"), known, n=1, cutoff=0.6)
        if not near:
            return "; see --help"
        return f"; the nearest is {prefix}{near[0].replace('_', '-') if prefix else near[0]}"


def parse_training(arguments: Sequence[str]) -> Training:
    """Settings from the arguments of ``s5mars train``.

    Raises:
        UserError: for an unknown option, key, method, recipe or ablation, an ablation of another
            method than S5Mars, or a value of the wrong type.
    """
    return _training(training_parser(arguments), arguments)


def training_from_yaml(path: Path) -> Training:
    """Settings from the ``config.yaml`` of a run.

    Raises:
        MissingFileError: if there is none.
        UserError: if it is no settings file.
    """
    if not path.exists():
        raise MissingFileError(f"{path} is missing: {path.parent} is not a training run")
    read_yaml(path)  # whatever is wrong with the file itself names it
    try:
        return parse_training(["--config", str(path)])
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def training_parser(arguments: Sequence[str], *, with_method: bool = True) -> Parser:
    """The parser for these arguments: the method's options depend on the method.

    Args:
        arguments: of ``s5mars train``.
        with_method: add the options of the chosen method's class; this imports torch.
    """
    parser = Parser(prog="s5mars train", description=_ABOUT, epilog=_EXAMPLE)
    parser.add_argument("--config", action="config", help="YAML file of settings.")
    parser.add_class_arguments(TrainConfig)
    name = _early(arguments, "method", DEFAULT_METHOD)
    recipe = find_recipe(_early(arguments, "recipe", "default"))
    parser.set_defaults(dict(recipe.training))
    ablation = _early(arguments, "ablation", "")
    row = find_ablation(ablation) if ablation else None
    if row is not None and name != DEFAULT_METHOD:
        raise UserError(f"ablation {ablation!r} changes {DEFAULT_METHOD}, not --method {name}")
    if row is not None:
        parser.set_defaults(dict(row.training))
    if with_method:
        from s5mars.methods import method_class

        chosen = method_class(name)
        parser.add_class_arguments(chosen, name)
        default = recipe.method(name, chosen())
        if row is not None:
            default = row.change(default)
        parser.set_defaults(_defaults(default, prefix=name))
    parser.dashes()
    return parser


def _training(parser: Parser, arguments: Sequence[str]) -> Training:
    from s5mars.methods import method_class

    namespace = parser.parse(arguments)
    text = str(parser.dump(namespace, skip_none=False))
    built = parser.instantiate(namespace)
    values = {field.name: built[field.name] for field in fields(TrainConfig)}
    config = TrainConfig(**values)
    method_settings = built[config.method]
    if isinstance(method_settings, jsonargparse.Namespace):
        method_settings = method_class(config.method)(**vars(method_settings))
    _require_used_threshold(config, method_settings)
    return Training(config, method_settings, text)


def _require_used_threshold(config: TrainConfig, method: Any) -> None:
    """Refuse a threshold that nothing would read: FreeMatch learns its own."""
    if config.thresholds != "freematch":
        return
    for name in ("threshold", "hard_threshold", "confident"):
        given = getattr(method, name, 0.0)
        if given > 0 and given != getattr(type(method)(), name):
            raise UserError(
                f"{config.method}.{name} is {given:g}, but thresholds=freematch learns it: add "
                "--thresholds fixed, or flexmatch"
            )


def _early(arguments: Sequence[str], key: str, default: str) -> str:
    """A setting that decides which options exist, looked up before the real parse."""
    found = default
    for i, argument in enumerate(arguments):
        following = arguments[i + 1] if i + 1 < len(arguments) else ""
        name, _, value = argument.partition("=")
        if name == "--config":
            content = read_yaml(Path(value or following))
            if isinstance(content, dict) and isinstance(content.get(key), str):
                found = content[key]
    for i, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == f"--{key}":
            found = value if equals else (arguments[i + 1] if i + 1 < len(arguments) else default)
    return found


def _defaults(settings: Any, *, prefix: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for field in fields(settings):
        value = getattr(settings, field.name)
        key = f"{prefix}.{field.name}"
        values |= (
            _defaults(value, prefix=key) if hasattr(value, "__dataclass_fields__") else {key: value}
        )
    return values


def _underscore_free(argument: str) -> str:
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value


_ABOUT = "Train a segmentation model on a folder of images with a few, sparse labels."
_EXAMPLE = (
    "example: s5mars train --data DATA --method s5mars --labelled 0.125 --steps 600 --batch 6 "
    "--crop 192 --model tf_efficientnet_lite0 --out runs/a | go on with a stopped run: s5mars "
    "train --resume runs/a | the options of a method, such as --s5mars.soft-weight: s5mars train "
    "--method s5mars --help | all settings as YAML: s5mars train --method s5mars --print-config"
)
