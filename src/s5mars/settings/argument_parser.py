"""jsonargparse as the commands use it: dashes in options, and errors of one line."""

from __future__ import annotations

import itertools
import json
import re
from argparse import ArgumentError
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin

import jsonargparse
import yaml

from s5mars.errors import UserError, did_you_mean
from s5mars.files.reading import parse_yaml
from s5mars.settings.config import EncoderSettings
from s5mars.settings.keywords import as_option
from s5mars.settings.networks import misplaced

_MODE = "s5mars"
# A settings file may come from a stranger: jsonargparse reads it with the same guarded parser.
jsonargparse.set_loader(_MODE, parse_yaml, exceptions=(yaml.YAMLError, ValueError))

_PRINT_CONFIG = (
    "Print all settings as YAML and exit; =skip_default leaves out those that have their default."
)
_OF_A_GROUP = ("Path to a configuration file.", "Path to a YAML file of these settings.")


class Parser(jsonargparse.ArgumentParser):
    """jsonargparse with dashes in option names, and errors that offer the nearest option."""

    def __init__(self, *args: Any, model: str, **kwargs: Any) -> None:
        self.model = model  # whose options it has
        super().__init__(
            *args,
            exit_on_error=False,
            allow_abbrev=False,
            parser_mode=_MODE,
            print_config="--print-%s",
            **kwargs,
        )

    def set_known_defaults(self, values: Mapping[str, Any], *, source: str) -> None:
        """Set defaults, or raise a UserError that names an option that does not exist."""
        known = {action.dest for action in self._actions}
        if unknown := [name for name in values if name not in known]:
            raise UserError(f"{source} sets {unknown[0]}, which --model {self.model} does not have")
        self.set_defaults(dict(values))

    def dashes(self) -> None:
        """Show ``--save-every`` for the field ``save_every``; let a boolean go without a value.

        The options that jsonargparse adds get help texts in the words of this project.
        """
        for action in self._actions:
            renamed = [option.replace("_", "-") for option in action.option_strings]
            action.option_strings = renamed
            if "--print-config" in renamed:
                action.help = _PRINT_CONFIG
            elif action.help == _OF_A_GROUP[0]:
                action.help = _OF_A_GROUP[1]
            self._option_string_actions.update(dict.fromkeys(renamed, action))
            if getattr(action, "_typehint", None) is bool:
                action.nargs, action.const = "?", True

    def parse(self, arguments: Sequence[str]) -> jsonargparse.Namespace:
        """Parse, or raise a UserError of one line."""
        self._require_paths(arguments)
        try:
            namespace = self.parse_args([_dashed(a) for a in files_first(arguments)])
        except (ArgumentError, jsonargparse.ParserError) as error:
            raise UserError(self._explain(str(error))) from error
        self._require_values(namespace)
        return namespace

    def _require_paths(self, arguments: Sequence[str]) -> None:
        """Raise for an empty path, which would be the current folder."""
        for argument, after in zip(arguments, [*arguments[1:], "-"], strict=True):
            option, equals, value = _dashed(argument).partition("=")
            kind = getattr(self._option_string_actions.get(option), "_typehint", None)
            if Path in (kind, *get_args(kind)) and not (value if equals else after):
                raise UserError(f"{option}: the path is empty: give one, or leave the option out")

    def _require_values(self, namespace: jsonargparse.Namespace) -> None:
        """Raise for a key of a settings file without its value or options.

        jsonargparse accepts both.
        """
        types = {action.dest: getattr(action, "_typehint", None) for action in self._actions}
        for key, value in namespace.items():
            if value is not None and any(name.startswith(f"{key}.") for name in types):
                raise UserError(f"{key} is {value!r}: expected a group of options")
            # The key of a group has no type.
            if value is None and key != "config" and NoneType not in get_args(types.get(key)):
                raise UserError(f"{key} has no value in the settings: give one, or remove the key")

    def _explain(self, message: str) -> str:
        message = " ".join(message.split())
        if found := re.search(r"unrecognized arguments: (\S+)", message):
            wrong = found.group(1).partition("=")[0]
            if not wrong.startswith("--"):
                return f"unexpected argument {wrong!r}; see --help"
            return f"unknown option {wrong}" + self._nearest(wrong)
        if found := re.search(
            r"(?:Group '(?P<group>\S+)' does not accept option|Option|Key) '(?P<key>[^']+)'",
            message,
        ):
            wrong = ".".join(part for part in (found["group"], found["key"]) if part)
            return f"unknown key {wrong!r} in the settings" + self._nearest(wrong)
        if found := re.search(r'key "(\S+)": Unable to load config [\'"]?(.*?)[\'"]? - ', message):
            within = next(a.dest for a in self._actions if a.dest.startswith(f"{found[1]}."))
            example = as_option(within)
            return f"{found[1]} is {found[2]!r}: expected a group of options, such as {example}"
        if found := re.search(r'key "(\S+)":.*(?:value: |Got value: )(.*)$', message):
            kind = re.search(r"Literal(\[.*?\])", message)
            types = re.findall(r"Expected a <class '(\w+)'>", message)
            types = [name for name in dict.fromkeys(types) if name != "NoneType"]
            of_tuple = self._numbers_of(found[1])
            wanted = of_tuple or (kind.group(1) if kind else " or ".join(types) or "another type")
            return f"{found[1]} is {found[2]!r}: expected {wanted}"
        if found := re.search(r"arguments are required: (.*)", message):
            return f"missing options: --{found[1].replace(', ', ', --')}; see --help"
        return message

    def _numbers_of(self, dest: str) -> str:
        """What an option for several numbers expects; empty for another one."""
        hints = {action.dest: getattr(action, "_typehint", None) for action in self._actions}
        if get_origin(hint := hints.get(dest)) is not tuple:
            return ""
        default = json.dumps(self.get_defaults()[dest])
        return f"{len(get_args(hint))} numbers, such as {default}"

    def _nearest(self, wrong: str) -> str:
        name = wrong.lstrip("-").replace("-", "_")
        if name in EncoderSettings.__dataclass_fields__:
            return f"; it is for a timm encoder, not {self.model}"
        if reason := misplaced(name, self.model):
            return f"; {reason}"
        known = [a.dest for a in self._actions if a.dest not in {"help", "config"}]
        if wrong.startswith("--"):
            known = [as_option(dest) for dest in known]
        return did_you_mean(wrong, known) or "; see --help"


def files_first(arguments: Sequence[str]) -> list[str]:
    """The arguments with all ``--config FILE`` before the others, which override the files."""
    files: list[str] = []
    others: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "--config":
            files += [word, *itertools.islice(words, 1)]
        else:
            (files if word.startswith("--config=") else others).append(word)
    return [*files, *others]


def _dashed(argument: str) -> str:
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value
