"""The command masks."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from s5mars.cli.command import Command, engine_options, splits_option
from s5mars.errors import UserError
from s5mars.settings.keywords import as_option


def _options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "data", type=Path, nargs="?", help="Path to the data set; with --export-json, to the store"
    )
    parser.add_argument(
        "--out", type=Path, metavar="STORE",
        help="Output folder for Parquet files; with --import-json one file, with --show a picture",
    )  # fmt: skip
    parser.add_argument(
        "--proposer",
        choices=["graph", "sam"],
        help="Method that proposes objects (graph)",
    )
    parser.add_argument("--split", help="Split of the images: train, val, test or all (train)")
    splits_option(parser)
    parser.add_argument("--workers", type=int, help="Number of processes (1)")
    engine_options(parser)
    parser.set_defaults(engine=None)  # as for the others, so that an unused option is noticed
    parser.add_argument("--shard", type=int, help="Number of images per file of the store (64)")
    sam = parser.add_argument_group("options of --proposer sam")
    sam.add_argument("--weights", help="Folder or hub id of SAM, SAM 2 or SAM-HQ (transformers)")
    sam.add_argument(
        "--points-per-side", type=int, help="Number of prompts along each side of the grid (32)"
    )
    sam.add_argument(
        "--long-side",
        type=int,
        help="Longer side in pixels while masks are chosen; 0 keeps the size (1024)",
    )
    sam.add_argument(
        "--minimum-iou", type=float, help="Smallest predicted IoU of stored masks (0.88)"
    )
    sam.add_argument(
        "--minimum-stability", type=float, help="Smallest stability score of stored masks (0.95)"
    )
    sam.add_argument(
        "--precision", choices=["fp32", "bf16"], help="Numerical precision (bf16 on a GPU)"
    )
    sam.add_argument("--device", help="Device: auto, cpu, cuda or mps (auto)")
    sam.add_argument("--points", type=int, help="Number of prompts in one forward pass (64)")
    sam.add_argument(
        "--compile",
        action="store_true",
        default=None,
        help="Compile the image encoder with torch.compile",
    )
    other = parser.add_argument_group("other actions")
    other.add_argument(
        "--import-json", type=Path, metavar="DIR", help="Path to a folder of JSON files to import"
    )
    other.add_argument(
        "--export-json", type=Path, metavar="DIR", help="Path to a folder for exported JSON files"
    )
    other.add_argument(
        "--show", type=Path, metavar="STORE", help="Path to a store whose masks are drawn"
    )
    other.add_argument("--images", type=int, help="Number of images in the picture (6)")
    other.add_argument("--seed", type=int, help="Random seed of the choice of images (0)")


_SAM = (
    "weights", "points_per_side", "long_side", "minimum_iou", "minimum_stability", "precision",
)  # fmt: skip
_HARDWARE = ("device", "points", "compile")
_CREATION = ("proposer", "workers", "engine", "address", "shard")
_IMAGES = ("split", "splits")
_PICTURE = ("images", "seed")


def _masks(options: Namespace) -> None:
    actions = {"import_json": _import, "export_json": _export, "show": _show}
    given = list(_given(options, tuple(actions)))
    if len(given) > 1:
        raise UserError(
            f"{' and '.join(map(as_option, given))} cannot be combined: give one at a time"
        )
    (actions[given[0]] if given else _make)(options)


def _make(options: Namespace) -> None:
    _need(options, "out")
    _refuse(options, _PICTURE, "")
    _need(options, "data")
    from s5mars.proposals.command import make_masks

    settings = _given(options, (*_CREATION, *_IMAGES))
    if "shard" in settings:
        settings["shard_images"] = settings.pop("shard")
    make_masks(
        options.data,
        options.out,
        sam=_given(options, _SAM),
        hardware=_given(options, _HARDWARE),
        **settings,
    )


def _import(options: Namespace) -> None:
    _need(options, "out")
    _refuse(options, (*_SAM, *_HARDWARE, *_PICTURE, *_CREATION), "--import-json")
    if options.data is None:
        _refuse(options, _IMAGES, "--import-json without DATA")
    from s5mars.proposals.command import import_masks

    where = _given(options, _IMAGES)
    import_masks(options.import_json, options.out, data=options.data, **where)


def _export(options: Namespace) -> None:
    unused = (*_SAM, *_HARDWARE, *_PICTURE, *_CREATION, *_IMAGES, "out")
    _refuse(options, unused, "--export-json")
    _need(options, "data")
    from s5mars.proposals.command import export_masks

    export_masks(options.data, options.export_json)


def _show(options: Namespace) -> None:
    _need(options, "out")
    _refuse(options, (*_SAM, *_HARDWARE, *_CREATION), "--show")
    _need(options, "data")
    from s5mars.report.masks import show_masks

    settings = _given(options, (*_IMAGES, *_PICTURE))
    print(show_masks(options.data, options.show, options.out, **settings))


def _given(options: Namespace, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def _need(options: Namespace, name: str) -> None:
    if getattr(options, name) is None:
        what = "the folder of the data set or of the store" if name == "data" else "--out"
        raise UserError(f"{what} is missing; see s5mars masks --help")


def _refuse(options: Namespace, names: tuple[str, ...], action: str) -> None:
    """Raise a UserError if an option is given that an action does not use."""
    for name in _given(options, names):
        if name in (*_SAM, *_HARDWARE):
            raise UserError(f"{as_option(name)} is an option of --proposer sam")
        if name in _PICTURE:
            raise UserError(f"{as_option(name)} is an option of --show")
        raise UserError(f"{as_option(name)} has no effect with {action}: leave it out")


COMMANDS = {
    "masks": Command(
        "Make, import, export or draw object masks (figure 7 of the paper).",
        "s5mars masks DATA --proposer graph --out masks",
        _options,
        _masks,
    ),
}
