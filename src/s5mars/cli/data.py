"""Commands about data: fetch, synth, stats, split, show."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

from s5mars.cli.command import Command, splits_option


def _fetch_options(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="Name of the data set: s5mars or ai4mars")
    parser.add_argument("--out", type=Path, required=True, help="Path to the new folder")
    parser.add_argument(
        "--from", dest="local", type=Path, metavar="DIR", help="Path to a copy of the hub's files"
    )
    parser.add_argument("--dry-run", action="store_true", help="Only show the size and the licence")


def _synth_options(parser: ArgumentParser) -> None:
    parser.add_argument("out", type=Path, help="Path to the new folder")
    parser.add_argument("--images", type=int, default=60, help="Number of labelled scenes (60)")
    parser.add_argument("--size", type=int, default=512, help="Side of a scene in pixels (512)")
    parser.add_argument(
        "--unlabelled", type=int, default=0, help="Number of further scenes without labels (0)"
    )
    parser.add_argument("--seed", type=int, default=0, help="Random seed of the scenes (0)")


def _split_options(parser: ArgumentParser) -> None:
    parser.add_argument("data", type=Path, help="Path to the folder of the data set")
    parser.add_argument(
        "--labelled",
        type=float,
        nargs="+",
        default=[0.2, 0.5],
        help="Shares of the train split (0.2 0.5)",
    )
    parser.add_argument("--seed", type=int, default=0, help="Random seed of the partitions (0)")
    parser.add_argument("--out", type=Path, required=True, help="Path to the folder for the lists")
    splits_option(parser)


def _stats_options(parser: ArgumentParser) -> None:
    parser.add_argument("data", type=Path, help="Path to the folder of the data set")
    parser.add_argument(
        "--out", type=Path, required=True, help="Path to the folder for JSON and figures"
    )
    parser.add_argument("--split", help="Name of one split (train, val and test together)")
    splits_option(parser)


def _show_options(parser: ArgumentParser) -> None:
    parser.add_argument("data", type=Path, help="Path to the folder of the data set")
    parser.add_argument(
        "--augmentations",
        default="augin",
        help="Augmentations to show: strong, augin, mixing or objects (augin)",
    )
    parser.add_argument("--image", help="Name of the image (drawn at random)")
    parser.add_argument("--seed", type=int, default=0, help="Random seed (0)")
    parser.add_argument(
        "--objects", type=Path, help="Path to object proposals (graph segmentation)"
    )
    parser.add_argument("--out", type=Path, required=True, help="Path to the PNG file")
    splits_option(parser)


COMMANDS = {
    "fetch": Command(
        "Download a public data set as a folder that --data reads; resumes after a stop.",
        "s5mars fetch ai4mars --out data/ai4mars",
        _fetch_options,
        "s5mars.data.hub.fetch",
    ),
    "synth": Command(
        "Render synthetic Mars scenes with sparse labels.",
        "s5mars synth scenes --images 60 --size 512 --seed 0",
        _synth_options,
        "s5mars.data.synthetic.write_synthetic",
    ),
    "stats": Command(
        "Write colour and label statistics of a data set (table II and figure 2 of the paper).",
        "s5mars stats DATA --out stats",
        _stats_options,
        "s5mars.report.statistics.write_statistics",
        reads_data=True,
    ),
    "split": Command(
        "Write stratified, nested lists of the images whose labels may be used.",
        "s5mars split DATA --labelled 0.2 0.5 --seed 0 --out partitions",
        _split_options,
        "s5mars.data.partition_lists.write_partitions",
        reads_data=True,
    ),
    "show": Command(
        "Draw the augmentations of one image (figures 6 and 8 of the paper).",
        "s5mars show DATA --augmentations augin --seed 0 --out sheet.png",
        _show_options,
        "s5mars.report.augmentations.show_augmentations",
        prints=True,
        reads_data=True,
    ),
}
