"""Commands and the parsing of their options."""

from __future__ import annotations

import importlib
from argparse import (
    ArgumentError,
    ArgumentParser,
    ArgumentTypeError,
    Namespace,
    RawDescriptionHelpFormatter,
)
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from s5mars.errors import UserError, did_you_mean
from s5mars.files import given_path


@dataclass(frozen=True)
class Command:
    """One command: its help, its options, and the function that it runs."""

    about: str
    example: str
    options: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], object] | str  # or the name of a function with these options
    prints: bool = False  # what ``run`` returns is printed
    passes_on: bool = False  # unknown options go to ``run`` as ``passed_on``
    reads_data: bool = False  # ``data`` is a data set, among the options that it has or passes on

    def call(self, name: str, arguments: Sequence[str]) -> None:
        """Parse the arguments that follow the command's name, and run it.

        Raises:
            UserError: if an option is unknown; it names the nearest one.
        """
        options = self.parse(name, arguments)
        if self.reads_data:
            require_data_set(data_of(options.passed_on) if self.passes_on else options.data)
        if isinstance(self.run, str):
            module, _, function = self.run.rpartition(".")
            found = getattr(importlib.import_module(module), function)(**vars(options))
        else:
            found = self.run(options)
        if self.prints:
            print(found)

    def parse(self, name: str, arguments: Sequence[str]) -> Namespace:
        """Parse the arguments that follow the command's name; errors as in ``call``."""
        parser = self.parser(name)
        # Options may stand between positional arguments, some of which may be left out.
        parse = parser.parse_known_args if self.passes_on else parser.parse_known_intermixed_args
        try:
            namespace, unknown = parse(arguments)
        except ArgumentError as error:
            parser.error(str(error))
        if self.passes_on:
            namespace.passed_on = unknown
        elif unknown:
            known = [o for action in parser._actions for o in action.option_strings]
            wrong = unknown[0].partition("=")[0]
            hint = did_you_mean(wrong, known) or f"; see {parser.prog} --help"
            raise UserError(f"unknown option {wrong}{hint}")
        return namespace

    def parser(self, name: str) -> ArgumentParser:
        """The parser of the command."""
        parser = OneLineParser(
            prog=f"s5mars {name}",
            description=self.about,
            epilog=f"example:\n  {self.example}",
            formatter_class=RawDescriptionHelpFormatter,
            exit_on_error=False,
            allow_abbrev=False,
        )
        self.options(parser)
        for action in parser._actions:
            if action.type is Path:
                action.type = _path
        return parser


def _path(text: str) -> Path:
    try:
        return given_path(text)
    except UserError as error:
        raise ArgumentTypeError(str(error)) from None


def splits_option(parser: ArgumentParser, *, default: str = "DATA/splits") -> None:
    """Where the split lists of a data set are."""
    parser.add_argument(
        "--splits", type=Path, metavar="DIR",
        help=f"Path to the folder where split lists are read and written ({default})",
    )  # fmt: skip


def engine_options(parser: ArgumentParser) -> None:
    """Where many images are worked on."""
    parser.add_argument(
        "--engine", choices=["local", "ray"], default="local", help="Where the work runs (local)"
    )
    parser.add_argument(
        "--address", help="Address of a Ray cluster; auto uses the one on this machine"
    )


def data_of(arguments: Sequence[str]) -> str | None:
    """The folder of the data among the arguments of ``s5mars train``, if it is given."""
    from s5mars.settings.parsing import given

    if arguments and not arguments[0].startswith("-"):
        return arguments[0]
    data = given(arguments, ["data"]).get("data")
    if data is not None and not isinstance(data, str):  # in a settings file
        raise UserError(f"data is {data!r}: expected the path of a folder")
    return data


def require_data_set(data: Path | str | None) -> None:
    """Refuse a folder that is no data set now, and not after seconds of importing torch.

    Raises:
        UserError, MissingFileError: as ``open_dataset``.
    """
    if data is not None:
        from s5mars.data.layouts import check_data_set

        check_data_set(data)


class OneLineParser(ArgumentParser):
    """An ArgumentParser that raises a UserError instead of printing its usage."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing and exiting."""
        raise UserError(f"{message}; see {self.prog} --help")
