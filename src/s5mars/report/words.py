"""What a run and its evaluation mean, in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from s5mars.report.numbers import count, number, plural, share
from s5mars.report.run import Run

_PAPER_CROP = 1024
_GRAVE = ("synthetic", "unreadable", "skipped")  # notes that forbid to take a score at its word


@dataclass(frozen=True)
class Notice:
    """Something that changes how the numbers are to be read."""

    kind: str  # "warning" or "note"
    text: str


def protocol_of(evaluation: Mapping[str, Any]) -> Mapping[str, Any]:
    """How the evaluation was done; empty if it does not say."""
    protocol = evaluation.get("protocol")
    if isinstance(protocol, str):
        return {"name": protocol}
    return protocol if isinstance(protocol, Mapping) else {}


def split_of(evaluation: Mapping[str, Any]) -> str:
    """The split that was scored; "" if the evaluation does not say."""
    return str(protocol_of(evaluation).get("split") or evaluation.get("split") or "")


def protocol_sentence(evaluation: Mapping[str, Any]) -> str:
    """How the score came about."""
    protocol = protocol_of(evaluation)
    split, images = split_of(evaluation), len(evaluation.get("per_image") or [])
    number_of_images = number(protocol.get("images")) or number(evaluation.get("images")) or images
    what = f"the {split} split" if split else "a split that was not written down"
    if number_of_images:
        what += f" ({plural(round(number_of_images), 'image')})"
    sentences = [f"Scored on {what} with the {_network(protocol, evaluation)}."]
    sentences += _geometry(protocol)
    sentences.append(
        "All pixels of the split are counted in one confusion matrix; unlabelled pixels are left "
        "out, and so are classes that the ground truth does not hold."
    )
    ignored = protocol.get("ignored_by") or evaluation.get("ignored_by")
    if ignored:
        sentences.append(f"Also ignored: {ignored}.")
    return " ".join(sentences)


def interval_sentence(evaluation: Mapping[str, Any]) -> str:
    """What the interval says, and what it does not."""
    if not evaluation.get("intervals"):
        return "No interval was computed for these scores."
    return (
        "The interval is a bootstrap over the images of the split: it says how much the score "
        "depends on which images are in it, not how much it would change with another seed."
    )


def notices(run: Run, evaluation: Mapping[str, Any]) -> list[Notice]:
    """What a reader has to know before believing the numbers; warnings first."""
    # What training noted about the choice of the checkpoint is said here in more words.
    notes = [note for note in run.notes if "chosen on the test split" not in note]
    grave = [note for note in notes if any(word in note.lower() for word in _GRAVE)]
    return [
        *_choice_of_checkpoint(run, evaluation),
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
    if (seed := number(run.metrics.get("seed"))) is not None:
        parts.append(f"seed {count(seed)}")
    return " · ".join(parts)


def network_word(run: Run) -> str:
    """``"teacher"`` or ``"student"``: the network that is scored and shared."""
    return str(run.metrics.get("network") or "network")


def crop_of(evaluation: Mapping[str, Any]) -> int | None:
    """Side of the centre crop that was scored; ``None`` for whole images."""
    protocol = protocol_of(evaluation)
    if side := number(protocol.get("crop")):
        return round(side)
    return _PAPER_CROP if _name(protocol) == "paper" else None


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


def _network(protocol: Mapping[str, Any], evaluation: Mapping[str, Any]) -> str:
    network = protocol.get("network") or evaluation.get("network")
    return {
        "teacher": "teacher (the moving average of the trained network)",
        "student": "student (the trained network itself)",
    }.get(str(network), str(network or "network of the checkpoint"))


def _name(protocol: Mapping[str, Any]) -> str:
    return str(protocol.get("name") or protocol.get("protocol") or "")


def _geometry(protocol: Mapping[str, Any]) -> list[str]:
    name = _name(protocol)
    crop, window = number(protocol.get("crop")), number(protocol.get("window"))
    overlap = number(protocol.get("overlap"))
    sliding = ""
    if window:
        sliding = f"in overlapping windows of {round(window)} × {round(window)} pixels"
        if overlap is not None:
            sliding += f" that share at least {share(overlap, 1)} with their neighbour"
        sliding += ", where it is larger than one"
    if name == "paper" or crop:
        side = round(crop or _PAPER_CROP)
        return [f"Protocol “paper”: the centre crop of {side} × {side} pixels of each image."]
    if name == "full":
        return [f"Protocol “full”: the whole image{', ' + sliding if sliding else ''}."]
    return [f"Protocol: {name}."] if name else []


def _choice_of_checkpoint(run: Run, evaluation: Mapping[str, Any]) -> list[Notice]:
    chosen, scored = run.selection_split, split_of(evaluation)
    if chosen.startswith("test"):
        return [
            Notice(
                "warning",
                f"the checkpoint was chosen on the {chosen} split, so its score there is the best "
                "of many looks and too high; numbers from a run that was chosen on a validation "
                "split do not compare with it.",
            )
        ]
    if chosen and chosen == scored:
        return [
            Notice(
                "warning",
                f"the scores are of the {scored} split, on which the checkpoint was chosen, too; "
                "they are too high. Evaluate on a split that the run has not seen.",
            )
        ]
    return []


def _unfinished(run: Run) -> list[Notice]:
    done, total = number(run.metrics.get("steps")), number(run.metrics.get("total_steps"))
    if done is None or total is None or done >= total:
        return []
    text = f"the run stopped at step {count(done)} of {count(total)}"
    return [Notice("warning", f"{text}; `s5mars train --resume {run.folder}` goes on.")]
