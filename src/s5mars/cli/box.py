"""Commands about the models that are installed with the package: models."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from s5mars.cli.command import Command


def _models_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "name",
        nargs="?",
        help="Name of the model whose card is printed; a list of all models if omitted",
    )


def _models(options: Namespace) -> object:
    from s5mars.models.installed import card_of, list_installed

    text = list_installed() if options.name is None else card_of(options.name)
    print(text)
    return text


COMMANDS = {
    "models": Command(
        "List the installed models, or print the card of one.",
        "s5mars models navcam",
        _models_options,
        _models,
    ),
}
