"""Describe a run and its evaluation in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from s5mars.errors import as_typed
from s5mars.evaluation.bootstrap import FEWEST
from s5mars.report.folder import Run
from s5mars.text.numbers import count, interval, mapping, number, plural, share
from s5mars.training.notes import Note


def protocol_of(evaluation: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the protocol of the evaluation; empty if it was not recorded."""
    return mapping(evaluation.get("protocol"))


def split_of(evaluation: Mapping[str, Any]) -> str:
    """Return the split that was scored; "" if it was not recorded."""
    return str(protocol_of(evaluation).get("split") or "")


def protocol_sentence(evaluation: Mapping[str, Any], *, several: bool = False) -> str:
    """Describe how the score was measured.

    Args:
        several: describe several runs, which may differ in the network that is scored.
    """
    if not evaluation:
        return "There is no score, because no labelled image was set aside."
    protocol = protocol_of(evaluation)
    split = split_of(evaluation)
    images = number(protocol.get("images")) or len(evaluation.get("per_image") or [])
    what = f"the {split} split" if split else "a split that was not recorded"
    if images:
        what += f" ({plural(round(images), 'image')}"
        if empty := number(protocol.get("images_without_labels")):
            what += f", {count(empty)} of them without any label"
        what += ")"
    network = (
        "teacher (the moving average of the trained network) of each run, or the trained network "
        "itself if the method has no teacher"
        if several
        else _network(protocol)
    )
    sentences = [f"The scores are for {what} and the {network}."]
    sentences += _geometry(protocol)
    sentences.append(
        "All pixels of the split are counted in one confusion matrix. Unlabelled pixels, and "
        "classes that are absent from the ground truth, are ignored."
    )
    if ignored := protocol.get("ignored_by"):
        sentences.append(f"Also ignored: {ignored}.")
    if merged := protocol.get("merged"):
        sentences.append(f"Counted as one class: {', '.join(map(str, merged))}.")
    return " ".join(sentences)


def comparable(evaluation: Mapping[str, Any]) -> str:
    """Summarise what two evaluations must share for their scores to be comparable."""
    protocol = protocol_of(evaluation)
    parts = [_name(protocol) or "unknown protocol", f"{split_of(evaluation) or 'unknown'} split"]
    parts += [
        f"{key} {protocol[key]}" for key in ("window", "overlap", "images") if key in protocol
    ]
    parts += [f"merged {merged}" for merged in protocol.get("merged") or []]
    return ", ".join(parts)


def images_of(evaluation: Mapping[str, Any]) -> frozenset[str]:
    """Return the names of the scored images; empty if they were not recorded."""
    entries = evaluation.get("per_image")
    return frozenset(
        str(entry["name"])
        for entry in (entries if isinstance(entries, list) else [])
        if isinstance(entry, Mapping) and "name" in entry
    )


def same_images(evaluations: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether all evaluations that recorded their images are of the same ones."""
    return len({images_of(evaluation) for evaluation in evaluations} - {frozenset()}) < 2


def interval_sentence(evaluation: Mapping[str, Any]) -> str:
    """Explain what the interval shows and what it does not."""
    intervals = evaluation.get("intervals")
    if not isinstance(intervals, Mapping) or not intervals:
        return "No interval was computed for these scores."
    if interval(intervals.get("mIoU")) is None:
        return f"There is no interval, because fewer than {FEWEST} images have labels."
    draws = number(intervals.get("draws"))
    how = f" ({plural(round(draws), 'draw')})" if draws else ""
    return (
        f"The 95\u00a0% interval is a bootstrap over the images of the split{how}. It shows how "
        "much the score depends on the choice of images, not how much it would change with another "
        "training seed."
    )


def notices(run: Run, evaluation: Mapping[str, Any], *, stale: bool = False) -> list[Note]:
    """Return remarks on the reliability of the scores; warnings first."""
    found = [Note("warning", text) for text in _warnings(run, evaluation, stale)]
    # ``_warnings`` replaces what training noted about the choice of the checkpoint.
    found += [note for note in run.notes if note.kind != "selection"]
    return sorted(found, key=lambda note: note.kind != "warning")


def _warnings(run: Run, evaluation: Mapping[str, Any], stale: bool) -> Iterator[str]:
    chosen, scored = run.selection_split, split_of(evaluation)
    if chosen.startswith("test"):
        yield (
            f"The checkpoint was chosen on the {chosen} split, so its score on that split is "
            "too high and not comparable with that of a run whose checkpoint was chosen on a "
            "validation split."
        )
    elif chosen and chosen == scored:
        yield (
            f"The checkpoint was chosen on the {scored} split, which is also the one that is "
            "scored, so the scores are too high. Evaluate on another split."
        )
    fitted_on = protocol_of(evaluation).get("class_biases_fitted_on")
    if fitted_on and fitted_on == scored != chosen:
        yield f"The class biases were fitted on the {scored} split, so its scores are too high."
    if stale:
        yield (
            "The weights or their class biases are newer than the evaluation on this page; run "
            "`s5mars evaluate` again."
        )
    done, total = number(run.metrics.get("steps")), number(run.metrics.get("total_steps"))
    if done is not None and total is not None and done < total:
        yield (
            f"The run stopped at step {count(done)} of {count(total)}; "
            f"`s5mars train --resume {as_typed(run.folder)}` continues it."
        )


def labelled_share(run: Run) -> str:
    """``"20 images, 12.5 % of the train split"``, as far as it is recorded."""
    images = number(run.metrics.get("labelled_images"))
    train = number(run.metrics.get("train_images"))
    if images is None:
        return "not recorded"
    text = plural(round(images), "image")
    fraction = number(run.metrics.get("labelled"))
    if train:
        return f"{text}, {share(images, train)} of the train split"
    if fraction is not None and fraction <= 1:
        return f"{text}, {share(fraction, 1)} of the train split"
    return text


def lead(run: Run) -> str:
    """Return the line below the title."""
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
    """Return the number of pool crops of the whole run; "" for methods without a pool."""
    crops = number(run.metrics.get("pool_crops"))
    return count(crops) if crops else ""


def network_word(run: Run) -> str:
    """``"teacher"`` or ``"student"``: the network that is scored and exported."""
    return str(run.metrics.get("network") or "network")


def crop_of(evaluation: Mapping[str, Any]) -> int | None:
    """Return the side of the scored centre crop; None for whole images."""
    side = number(protocol_of(evaluation).get("crop"))
    return None if side is None else round(side)


def images_part(evaluation: Mapping[str, Any]) -> str:
    """Say which part of each image is shown; "" if all of it."""
    crop = crop_of(evaluation)
    if crop is None:
        return ""
    return f"Only the scored centre crop of {crop} × {crop} pixels is shown."


def images_sentence(evaluation: Mapping[str, Any]) -> str:
    """Say how the images were chosen, and which part of each is shown."""
    if not evaluation:
        return "No image was set aside, so these are examples of all images."
    chosen = "Images are chosen by their own mIoU, over the classes in their ground truth."
    return f"{chosen} {images_part(evaluation)}".strip()


def pseudo_label_sentence(run: Run) -> str:
    """Say what the statistics of pseudo-labels are measured on."""
    records = [e["pseudo_labels"] for e in run.history if isinstance(e.get("pseudo_labels"), dict)]
    threshold = next((t for r in records if (t := number(r.get("confidence"))) is not None), None)
    above = "its threshold" if threshold is None else f"{threshold:g}"
    confident = (
        f"A pixel is confident if the {network_word(run)} gives its class a probability above "
        f"{above}."
    )
    if not run.selection_split:
        return confident
    return (
        f"{confident} The values are measured on the labelled pixels of the {run.selection_split} "
        "split, which are not used for training."
    )


def curves_sentence(run: Run) -> str:
    """Say what the scores over the steps are measured on."""
    if not run.selection_split:
        return "There is no val split, so there are losses and no scores."
    return f"Scores of the {network_word(run)} on the {run.selection_split} split."


def _network(protocol: Mapping[str, Any]) -> str:
    network = str(protocol.get("network") or "network of the checkpoint")
    return {
        "teacher": "teacher (the moving average of the trained network)",
        "student": "student (the trained network itself)",
    }.get(network, network)


def _name(protocol: Mapping[str, Any]) -> str:
    return str(protocol.get("name") or "")


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
        text += " if it is larger"
    return [f"{text}."]
