"""A model card: what a stranger has to know before using a model, from what its run wrote down."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s5mars.classes import Taxonomy, hex_colour
from s5mars.evaluation.calibrate import at_threshold
from s5mars.methods import method_title
from s5mars.report.numbers import number, plural, score
from s5mars.report.words import interval_sentence, protocol_sentence

_KEPT_AT = 0.6
_WEAK = 30  # percent of IoU


def model_card(
    name: str,
    facts: Mapping[str, Any],
    taxonomy: Taxonomy,
    *,
    evaluation: Mapping[str, Any] | None = None,
    calibration: Mapping[str, Any] | None = None,
    licence: str | None = None,
) -> str:
    """README.md of a repository on the hub.

    Args:
        name: ``OWNER/NAME``.
        facts: the JSON of the checkpoint.
        taxonomy: its classes.
        evaluation: what ``s5mars evaluate`` wrote, if it ran.
        calibration: what ``s5mars calibrate`` wrote, if it ran.
        licence: of the weights, an identifier such as ``apache-2.0``.
    """
    training, model = facts["training"], facts["model"]
    data = Path(str(training.get("data") or "unknown data")).name
    method = method_title(str(training.get("method") or "unknown method"))
    blocks = [
        _front_matter(licence),
        f"# {name}",
        f"Terrain segmentation of Mars rover images into {len(taxonomy)} classes: "
        f"{model.get('network', 'DeepLabV3+')} with the encoder `{model.get('encoder')}`, trained "
        f"with {method} on `{data}` by s5mars.",
        _use(name),
        _scores(training, evaluation),
        _classes(taxonomy, evaluation),
        _training(training, model, data, method),
        _confidence(calibration),
        _limits(training, taxonomy, evaluation, data),
        f"## Licence\n\n{_licence(licence)}",
    ]
    return "\n\n".join(blocks) + "\n"


def _front_matter(licence: str | None) -> str:
    lines = ["---", *([f"license: {licence}"] if licence else []), "library_name: s5mars"]
    lines += ["pipeline_tag: image-segmentation", "tags:", "- mars", "- semantic-segmentation"]
    return "\n".join([*lines, "- terrain", "---"])


def _use(name: str) -> str:
    return (
        "## How to use it\n\n```python\nimport s5mars\n\n"
        f'predictor = s5mars.load("hf:{name}")\n'
        "labels = predictor.predict(image)  # (H, W, 3) uint8 → (H, W) class index\n```\n\n"
        f"or `s5mars predict hf:{name} IMAGES --out maps`. Images of any size, RGB or grey, in 8 "
        "bits; normalisation is inside. The weights are safetensors; nothing is unpickled."
    )


def _scores(training: Mapping[str, Any], evaluation: Mapping[str, Any] | None) -> str:
    if evaluation is None:
        validation = training.get("validation") or {}
        split = training.get("split_for_selection") or "val"
        return (
            f"## Scores\n\nNot evaluated. On the {split} split, on which its weights were chosen "
            f"(so the number is too high), mIoU was {score(number(validation.get('mIoU')))} %."
        )
    return (
        f"## Scores\n\nmIoU **{score(number(evaluation.get('mIoU')))} %**, mean accuracy "
        f"{score(number(evaluation.get('mAcc')))} %, pixel accuracy "
        f"{score(number(evaluation.get('pixel_accuracy')))} %. "
        f"{interval_sentence(evaluation)}\n\n{protocol_sentence(evaluation)}"
    )


def _classes(taxonomy: Taxonomy, evaluation: Mapping[str, Any] | None) -> str:
    rows = ["| index | class | colour | IoU, % | accuracy, % | pixels | criterion |"]
    rows += ["|---|---|---|---|---|---|---|"]
    for index, entry in enumerate(taxonomy.classes):
        found = ((evaluation or {}).get("classes") or {}).get(entry.name) or {}
        iou, acc = (score(number(found.get(key))) for key in ("iou", "acc"))
        support = found.get("support")
        rows.append(
            f"| {index} | {_cell(entry.name)} | {hex_colour(entry.colour)} | {iou} | {acc} | "
            f"{'–' if support is None else f'{support:,}'} | {_cell(entry.criterion) or '–'} |"
        )
    rows.append("\n255 in a class map means no class: no data, or too little confidence.")
    return "## Classes\n\n" + "\n".join(rows)


def _training(training: Mapping[str, Any], model: Mapping[str, Any], data: str, method: str) -> str:
    labelled = training.get("labelled")
    share = f"{labelled:g} of the train split" if isinstance(labelled, int | float) else "a list"
    rows = {
        "data": f"`{data}` ({training.get('layout', 'unknown')} layout)",
        "method": method,
        "labelled partition": f"{share}: {training.get('labelled_images', '?')} of "
        f"{training.get('train_images', '?')} images",
        "images without labels": f"{training.get('pool_images', 0)} in the pool",
        "step": f"{training.get('step', '?')} of {training.get('total_steps', '?')}, chosen on the "
        f"{training.get('split_for_selection', '?')} split",
        "batch and crop": f"{training.get('batch', '?')} images of {training.get('crop', '?')} "
        "pixels",
        "seed": training.get("seed", "?"),
        "encoder": f"`{model.get('encoder')}`"
        + (f", output stride {stride}" if (stride := model.get("output_stride")) else ""),
        "encoder weights": str(training.get("encoder_weights", "?")).removeprefix(
            "encoder weights: "
        ),
        "ignored": training.get("ignored_by") or "unlabelled pixels",
    }
    lines = [f"| {key} | {_cell(str(value))} |" for key, value in rows.items()]
    return "\n".join(["## Training", "", "| | |", "|---|---|", *lines])


def _confidence(calibration: Mapping[str, Any] | None) -> str:
    if calibration is None:
        return (
            "## Confidence\n\nNot calibrated: a confidence of 0.8 need not be right in 80 % of the "
            "pixels."
        )
    before, after, on = calibration["before"], calibration["after"], calibration["fitted_on"]
    left, risk = at_threshold(after, _KEPT_AT)
    return (
        f"## Confidence\n\nLogits are divided by the temperature "
        f"{calibration['temperature']:.3f}, fitted on {on['pixels']:,} pixels of the {on['split']} "
        f"split; expected calibration error there ({calibration['bins']} bins): "
        f"{100 * before['ece']:.2f} % before, {100 * after['ece']:.2f} % after. "
        f"`s5mars.load(..., abstain={_KEPT_AT})` leaves {100 * left:.1f} % of those pixels a class"
        + (f", of which {100 * risk:.1f} % are wrong." if risk is not None else ".")
    )


def _limits(
    training: Mapping[str, Any],
    taxonomy: Taxonomy,
    evaluation: Mapping[str, Any] | None,
    data: str,
) -> str:
    limits = [
        f"It has seen the rovers, cameras, sites and light of `{data}`; on others its scores are "
        "unknown.",
        "A map of classes is no map of hazards: nothing here was tested for driving a rover.",
    ]
    if evaluation is not None:
        found = evaluation["classes"]
        absent = [n for n in taxonomy.names if not (found.get(n) or {}).get("support")]
        ious = {name: number((found.get(name) or {}).get("iou")) for name in taxonomy.names}
        weak = [name for name, iou in ious.items() if iou is not None and iou < _WEAK]
        if absent:
            limits.append(
                f"Not in the ground truth of the scores, so unknown: {', '.join(absent)}."
            )
        if weak:
            limits.append(f"Weak (IoU below {_WEAK} %): {', '.join(weak)}.")
        images = number((evaluation.get("protocol") or {}).get("images"))
        if images:
            limits.append(
                f"Scores come from {plural(round(images), 'image')}; neighbouring frames are "
                "alike, so the intervals over images are too narrow rather than too wide."
            )
    if str(training.get("split_for_selection", "")).startswith("test"):
        limits.append("The checkpoint was chosen on the test split: the score on it is too good.")
    if "synthetic" in str(training.get("dataset", "")):
        limits.append("The images are synthetic: no score on them means anything about Mars.")
    return "## Limits\n\n" + "\n".join(f"- {limit}" for limit in limits)


def _licence(licence: str | None) -> str:
    if licence is None:
        return "None was stated for the weights: ask their owner before you use or pass them on."
    return f"Weights: {licence}. The images they were trained on have terms of their own."


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
