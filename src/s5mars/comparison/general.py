"""The rows of table VI: general models that were not trained on Mars.

They need pretrained weights. A row whose weights are missing stays in the table without a number,
with the reason, and is tried again the next time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from s5mars.comparison.grid import Row
from s5mars.errors import MissingFileError
from s5mars.models.pretrained import pretrained_folder
from s5mars.settings.config import EncoderSettings
from s5mars.settings.keywords import as_option

GROUP = "zero_shot"
UNAVAILABLE = "weights not available here"

_OF_THE_MODEL = {
    "--model", "--weights", "--recipe", "--freeze-norm", "--encoder-rate",
    *map(as_option, EncoderSettings.__dataclass_fields__),
}  # fmt: skip
_OF_THE_OPTIMISER = {"--optimiser", "--learning-rate", "--momentum", "--weight-decay", "--clip"}
_OF_LENGTH = {"--steps", "--epochs"}


@dataclass(frozen=True, kw_only=True)
class GeneralWeights:
    """Paths or hub ids of the weights; None if not given."""

    sam: str | None = None  # folder or hub id
    clip: str | None = None  # folder or hub id
    san: str | None = None  # the authors' checkpoint of the side adapter


def table_vi_rows(weights: GeneralWeights, out: Path) -> tuple[Row, ...]:
    """Return the rows SAM-CLS, SAN without training, and SAN fine-tuned.

    Args:
        out: folder of the comparison, which stores the features that all cells of SAM-CLS share.
    """
    sam = (
        "--model=sam-cls",
        f"--weights={weights.sam or 'none'}",
        f"--sam.features={out / 'features'}",
    )
    san = (
        "--model=san",
        f"--weights={weights.clip or 'none'}",
        *([f"--side-adapter.checkpoint={weights.san}"] if weights.san else []),
        "--recipe=san",
    )
    side = frozenset(_OF_THE_MODEL | _OF_THE_OPTIMISER)
    return (
        Row(
            f"{GROUP}/sam_cls", "SAM-CLS", GROUP, "supervised", arguments=sam,
            without=frozenset(_OF_THE_MODEL | {"--scale", "--crops"}),
        ),
        Row(
            f"{GROUP}/san", "SAN", GROUP, "san", arguments=(*san, "--steps=0"),
            without=side | _OF_LENGTH,
        ),
        Row(f"{GROUP}/san_ft", "SAN-FT", GROUP, "san", arguments=san, without=side),
    )  # fmt: skip


def missing_weights(row: Row, weights: GeneralWeights) -> str:
    """Return why a row cannot be measured here; "" if it can be.

    Weights on a hub are downloaded.

    Raises:
        UserError: if the weights are of the wrong kind.
    """
    if row.group != GROUP:
        return ""
    from s5mars.models import sam_cls, san

    def sam_is_here() -> None:
        pretrained_folder(str(weights.sam), list(sam_cls.USABLE), option="--sam-weights")

    def clip_is_here() -> None:
        pretrained_folder(
            str(weights.clip), san.KINDS, processor=False, option="--clip-weights",
            patterns=san.PATTERNS,
        )  # fmt: skip

    def adapter_is_here() -> None:
        if not Path(str(weights.san)).is_file():
            raise MissingFileError(f"no weights file at {weights.san}")

    needed: list[tuple[str, str | None, Callable[[], None]]] = (
        [("--sam-weights", weights.sam, sam_is_here)]
        if row.method == "supervised"
        else [
            ("--clip-weights", weights.clip, clip_is_here),
            ("--san-weights", weights.san, adapter_is_here),
        ]
    )
    for option, given, look in needed:
        if given is None:
            return f"{UNAVAILABLE}: {option} was not given"
        try:
            look()
        except FileNotFoundError as error:
            return f"{UNAVAILABLE}: {' '.join(str(error).split())}"
    return ""
