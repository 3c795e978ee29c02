"""What a run and its evaluation mean, in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from s5mars.report.folder import Run
from s5mars.report.numbers import count, number, plural, share

_GRAVE = ("synthetic", "unreadable", "skipped")  # notes that forbid to take a score at its word


@dataclass(frozen=True)
class Notice:
    """Something that changes how the numbers are to be read."""

    kind: str  # "warning" or "note"
    text: str


_STALE = Notice(
    "warning",
    "The weights are newer than the evaluation that is shown; run `s5mars evaluate` again.",
)


def protocol_of(evaluation: Mapping[str, Any]) -> Mapping[str, Any]:
    """How the evaluation was done; empty if it does not say."""
    protocol = evaluation.get("protocol")
    if isinstance(protocol, str):
        return {"name": protocol}
    return protocol if isinstance(protocol, Mapping) else {}


def split_of(evaluation: Mapping[str, Any]) -> str:
    """The split that was scored; "" if the evaluation does not say."""
    return str(protocol_of(evaluation).get("split") or evaluation.get("split") or "")


def protocol_sentence(evaluation: Mapping[str, Any], *, several: bool = False) -> str:
    """How the score came about.

    Args:
        evaluation: the content of an evaluation file.
        several: of several runs at once, whose networks differ in kind.
    """
    protocol = protocol_of(evaluation)
    split = split_of(evaluation)
    images = number(protocol.get("images")) or len(evaluation.get("per_image") or [])
    what = f"the {split} split" if split else "a split that was not written down"
    if images:
        what += f" ({plural(round(images), 'image')}"
        if empty := number(protocol.get("images_without_labels")):
            what += f", {count(empty)} of them without any label"
        what += ")"
    network = (
        "teacher (the moving average of the trained network) of each run, or with the trained "
        "network itself where the method has no teacher"
        if several
        else _network(protocol)
    )
    sentences = [f"Scored on {what} with the {network}."]
    sentences += _geometry(protocol)
    sentences.append(
        "All pixels of the split are counted in one confusion matrix; unlabelled pixels are left "
        "out, and so are classes that the ground truth does not hold."
    )
    if ignored := protocol.get("ignored_by"):
        sentences.append(f"Also ignored: {ignored}.")
    if merged := protocol.get("merged"):
        sentences.append(f"Counted as one class: {', '.join(map(str, merged))}.")
    return " ".join(sentences)


def comparable(evaluation: Mapping[str, Any]) -> str:
    """What two evaluations must have in common for their scores to compare, in short."""
    protocol = protocol_of(evaluation)
    parts = [_name(protocol) or "unknown protocol", f"{split_of(evaluation) or 'unknown'} split"]
    parts += [
        f"{key} {protocol[key]}" for key in ("window", "overlap", "images") if key in protocol
    ]
    parts += [f"merged {merged}" for merged in protocol.get("merged") or []]
    return ", ".join(parts)


def interval_sentence(evaluation: Mapping[str, Any]) -> str:
    """What the interval says, and what it does not."""
    intervals = evaluation.get("intervals")
    if not isinstance(intervals, Mapping) or not intervals:
        return "No interval was computed for these scores."
    draws = number(intervals.get("draws"))
    how = f" ({plural(round(draws), 'draw')})" if draws else ""
    return (
        f"The 95\u00a0% interval is a bootstrap over the images of the split{how}: it says how "
        "much the score depends on which images are in it, not how much it would change with "
        "another seed of the training."
    )


def notices(run: Run, evaluation: Mapping[str, Any], *, stale: bool = False) -> list[Notice]:
    """What a reader has to know before believing the numbers; warnings first.

    Args:
        run: the run.
        evaluation: the content of its evaluation file.
        stale: whether the weights changed after the evaluation.
    """
    # What training noted about the choice of the checkpoint is said here in more words.
    notes = [note for note in run.notes if "chosen on the test split" not in note]
    grave = [note for note in notes if any(word in note.lower() for word in _GRAVE)]
    return [
        *_choice_of_checkpoint(run, evaluation),
        *([_STALE] if stale else []),
        *_unfinished(run),
        *(Notice("warning", note) for note in grave),
        *(Notice("note", note) for note in notes if note not in grave),
    ]


def labelled_share(run: Run) -> str:
    """``"20 images, 12.5 % of the train split"``, as far as it is known."""
    images = number(run.metrics.get("labelled_images"))
    train = number(run.metrics.get("train_images"))
    if images is None:
        return "not recorded"
    text = plural(round(images), "image")
    if train:
        return f"{text}, {share(images, train)} of the train split"
    if (fraction := number(run.metrics.get("labelled"))) is not None and fraction <= 1:
        return f"{text}, {share(fraction, 1)} of the train split"
    return text


def lead(run: Run) -> str:
    """One line below the title."""
    parts = [f"{labelled_share(run)} labelled"]
    pool = number(run.metrics.get("pool_images"))
    if pool:
        parts.append(f"pool of {plural(round(pool), 'image')}")
    if (steps := number(run.metrics.get("steps"))) is not None:
        parts.append(plural(round(steps), "step"))
    if crops := pool_crops(run):
        parts.append(f"{crops} crops of the pool")
    if (seed := number(run.metrics.get("seed"))) is not None:
        parts.append(f"seed {count(seed)}")
    return " · ".join(parts)


def pool_crops(run: Run) -> str:
    """How many crops of the pool the whole run sees; "" for methods without one."""
    crops = number(run.metrics.get("pool_crops"))
    return count(crops) if crops else ""


def network_word(run: Run) -> str:
    """``"teacher"`` or ``"student"``: the network that is scored and shared."""
    return str(run.metrics.get("network") or "network")


def crop_of(evaluation: Mapping[str, Any]) -> int | None:
    """Side of the centre crop that was scored; ``None`` for whole images."""
    protocol = protocol_of(evaluation)
    side = number(protocol.get("crop"))
    return None if side is None else round(side)


def images_part(evaluation: Mapping[str, Any]) -> str:
    """What is seen of each image, where that is not all of it; else ""."""
    crop = crop_of(evaluation)
    if crop is None:
        return ""
    return f"Shown is the centre crop of {crop} × {crop} pixels that is scored."


def images_sentence(evaluation: Mapping[str, Any]) -> str:
    """How the images were chosen, and what is seen of each."""
    chosen = "Chosen by the mIoU of the single image, over the classes that its ground truth holds."
    return f"{chosen} {images_part(evaluation)}".strip()


def pseudo_label_sentence(run: Run) -> str:
    """What the numbers about pseudo-labels are measured on."""
    records = [e["pseudo_labels"] for e in run.history if isinstance(e.get("pseudo_labels"), dict)]
    threshold = next((t for r in records if (t := number(r.get("confidence"))) is not None), None)
    above = "its threshold" if threshold is None else f"{threshold:g}"
    return (
        f"A pixel counts as confident where the {network_word(run)} gives its class a probability "
        f"above {above}. Measured on the labelled pixels of the {run.selection_split or 'val'} "
        "split, which training never reads."
    )


def _network(protocol: Mapping[str, Any]) -> str:
    network = str(protocol.get("network") or "network of the checkpoint")
    return {
        "teacher": "teacher (the moving average of the trained network)",
        "student": "student (the trained network itself)",
    }.get(network, network)


def _name(protocol: Mapping[str, Any]) -> str:
    return str(protocol.get("name") or protocol.get("protocol") or "")


def _geometry(protocol: Mapping[str, Any]) -> list[str]:
    name, crop = _name(protocol), number(protocol.get("crop"))
    if not name:
        return []
    part = str(protocol.get("words") or ("the whole image" if not crop else "the centre crop"))
    text = f"Protocol “{name}”: {part}"
    window, overlap = number(protocol.get("window")), number(protocol.get("overlap"))
    if window:
        text += f", in windows of {round(window)} × {round(window)} pixels"
        if overlap is not None:
            text += f" that overlap by at least {share(overlap, 1)}"
        text += " where it is larger"
    return [f"{text}."]


def _choice_of_checkpoint(run: Run, evaluation: Mapping[str, Any]) -> list[Notice]:
    chosen, scored = run.selection_split, split_of(evaluation)
    if chosen.startswith("test"):
        return [
            Notice(
                "warning",
                f"The checkpoint was chosen on the {chosen} split, so its score there is the best "
                "of many looks and too high; numbers from a run that was chosen on a validation "
                "split do not compare with it.",
            )
        ]
    if chosen and chosen == scored:
        return [
            Notice(
                "warning",
                f"The scores are of the {scored} split, on which the checkpoint was chosen, too; "
                "they are too high. Evaluate on a split that the run has not seen.",
            )
        ]
    return []


def _unfinished(run: Run) -> list[Notice]:
    done, total = number(run.metrics.get("steps")), number(run.metrics.get("total_steps"))
    if done is None or total is None or done >= total:
        return []
    text = f"The run stopped at step {count(done)} of {count(total)}"
    return [Notice("warning", f"{text}; `s5mars train --resume {run.folder}` goes on.")]
