"""Write a model card from the records of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from s5mars.classes import Taxonomy, hex_colour
from s5mars.data.resolution import FULL, Resolution
from s5mars.evaluation.calibrate import at_threshold
from s5mars.evaluation.class_biases import describe_class_biases
from s5mars.methods import method_title
from s5mars.models.domain import Domain
from s5mars.models.licences import Licence, from_facts
from s5mars.report.words import interval_sentence, protocol_sentence
from s5mars.text.numbers import at, interval, number, plural, score

LICENCE_FILE = "LICENSE.md"

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
    domain: Domain | None = None,
    further: Sequence[str] = (),
    terms: str = "The training images have their own terms.",
) -> str:
    """The README.md of a repository on the hub, or the card of an installed model.

    Args:
        name: ``OWNER/NAME`` on the hub, or the name of an installed model, without ``/``.
        facts: the JSON file of the checkpoint.
        licence: licence of the weights, an identifier such as ``apache-2.0``.
        further: sections of Markdown to add before the limits.
        terms: licence of the training images, a sentence.
    """
    training, model = facts["training"], facts["model"]
    encoder = from_facts(training)
    data = Path(str(training.get("data") or "unknown data")).name
    method = method_title(str(training.get("method") or "unknown method"))
    blocks = [
        *([_front_matter(licence, encoder)] if "/" in name else []),
        f"# {name}",
        f"Terrain segmentation of Mars rover images into {len(taxonomy)} classes: "
        f"{model.get('network', 'DeepLabV3+')} with the encoder `{model.get('encoder')}`, trained "
        f"with {method} on `{data}` by s5mars.",
        _use(name),
        _scores(training, evaluation),
        _classes(taxonomy, evaluation),
        _training(facts, data, method),
        *_class_biases(facts, taxonomy),
        _confidence(calibration),
        *([_domain(domain, facts)] if domain is not None else []),
        *further,
        _limits(training, taxonomy, evaluation, data),
        f"## Licence\n\n{_licence(licence, encoder, terms)}",
    ]
    return "\n\n".join(blocks) + "\n"


def _front_matter(licence: str | None, encoder: Licence | None) -> str:
    lines = ["---", *([f"license: {licence}"] if licence else [])]
    if encoder is not None and encoder.passes_on:
        # The hub lists other licences by a name and a link to their text.
        lines = ["---", "license: other", f"license_name: {encoder.identifier}"]
        lines += [f"license_link: {LICENCE_FILE}"]
    lines += ["library_name: s5mars"]
    lines += ["pipeline_tag: image-segmentation", "tags:", "- mars", "- semantic-segmentation"]
    return "\n".join([*lines, "- terrain", "---"])


def _use(name: str) -> str:
    name = f"hf:{name}" if "/" in name else name
    return (
        "## How to use it\n\n```python\nimport s5mars\n\n"
        f'predictor = s5mars.load("{name}")\n'
        "labels = predictor.predict(image)  # (H, W, 3) uint8 → (H, W) class index\n```\n\n"
        f"or `s5mars predict {name} IMAGES --out maps`. Images may have any size, in 8-bit RGB "
        "or grey; the model normalises them. The weights are safetensors; nothing is unpickled."
    )


def _scores(training: Mapping[str, Any], evaluation: Mapping[str, Any] | None) -> str:
    if evaluation is None:
        split = training.get("split_for_selection") or "val"
        return (
            f"## Scores\n\nThe model was not evaluated. On the {split} split, mIoU was "
            f"{score(at(training, 'validation', 'mIoU'))} %, which is too high because the weights "
            "were selected on it."
        )
    return (
        f"## Scores\n\nmIoU **{score(evaluation.get('mIoU'))} %**, mean accuracy "
        f"{score(evaluation.get('mAcc'))} %, pixel accuracy "
        f"{score(evaluation.get('pixel_accuracy'))} %. "
        f"{interval_sentence(evaluation)}\n\n{protocol_sentence(evaluation)}"
    )


def _classes(taxonomy: Taxonomy, evaluation: Mapping[str, Any] | None) -> str:
    rows = ["| index | class | colour | IoU, % | accuracy, % | pixels | criterion |"]
    rows += ["|---|---|---|---|---|---|---|"]
    for index, entry in enumerate(taxonomy.classes):
        found = at(evaluation, "classes", entry.name)
        iou, acc, support = score(at(found, "iou")), score(at(found, "acc")), at(found, "support")
        rows.append(
            f"| {index} | {_cell(entry.name)} | {hex_colour(entry.colour)} | {iou} | {acc} | "
            f"{'–' if support is None else f'{support:,}'} | {_cell(entry.criterion) or '–'} |"
        )
    rows.append("\nThe value 255 in a class map means no class: no data, or too little confidence.")
    return "## Classes\n\n" + "\n".join(rows)


def _training(facts: Mapping[str, Any], data: str, method: str) -> str:
    training, model = facts["training"], facts["model"]
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
        "resolution": _resolution(facts),
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


def _resolution(facts: Mapping[str, Any]) -> str:
    resolution = Resolution.parse(facts.get("resolution", str(FULL)))
    if resolution.side is not None:
        return f"images are resized to {resolution.side} pixels on the longer side"
    return "images are used as they are" if resolution == FULL else f"{resolution} of each side"


def _domain(domain: Domain, facts: Mapping[str, Any]) -> str:
    resolution = Resolution.parse(facts.get("resolution", str(FULL)))
    return (
        f"## Domain\n\nThe model was trained on {domain.about}. `s5mars predict` "
        f"marks other images in the index, in the overlay and in its last line. "
        f"{domain.rule(resolution)}"
    )


def _class_biases(facts: Mapping[str, Any], taxonomy: Taxonomy) -> list[str]:
    entry = at(facts, "class_biases", at(facts, "training", "network"))
    if not entry or not any(entry["values"]):
        return []
    found = describe_class_biases(entry, taxonomy.names)
    return [
        "## Class biases\n\nA bias for each class is added to its logits, to raise the mIoU: "
        f"{found}."
    ]


def _confidence(calibration: Mapping[str, Any] | None) -> str:
    if calibration is None:
        return (
            "## Confidence\n\nThe model is not calibrated: pixels of confidence 0.8 need not be "
            "80 % correct."
        )
    before, after, on = calibration["before"], calibration["after"], calibration["fitted_on"]
    left, risk = at_threshold(after, _KEPT_AT)
    return (
        f"## Confidence\n\nLogits are divided by the temperature "
        f"{calibration['temperature']:.3f}, fitted on {on['pixels']:,} pixels of the {on['split']} "
        f"split, where the expected calibration error ({calibration['bins']} bins) was "
        f"{100 * before['ece']:.2f} % before and {100 * after['ece']:.2f} % after. With "
        f"`s5mars.load(..., abstain={_KEPT_AT})`, {100 * left:.1f} % of these pixels keep a class"
        + (f", and {100 * risk:.1f} % of them are wrong." if risk is not None else ".")
    )


def _limits(
    training: Mapping[str, Any],
    taxonomy: Taxonomy,
    evaluation: Mapping[str, Any] | None,
    data: str,
) -> str:
    limits = [
        f"The model was trained on the rovers, cameras, sites and light of `{data}`; its accuracy "
        "on others is unknown.",
        "A class map is not a hazard map: the model was not tested for driving a rover.",
    ]
    if evaluation is not None:
        absent = [n for n in taxonomy.names if not at(evaluation, "classes", n, "support")]
        ious = {name: number(at(evaluation, "classes", name, "iou")) for name in taxonomy.names}
        weak = [name for name, iou in ious.items() if iou is not None and iou < _WEAK]
        if absent:
            limits.append(
                f"Scores of these classes are unknown (no ground truth): {', '.join(absent)}."
            )
        if weak:
            limits.append(f"Classes with IoU below {_WEAK} %: {', '.join(weak)}.")
        images = number(at(evaluation, "protocol", "images"))
        if images:
            limits.append(
                f"Scores are computed on {plural(round(images), 'image')}{_narrow(evaluation)}."
            )
    if str(training.get("split_for_selection", "")).startswith("test"):
        limits.append("The checkpoint was selected on the test split, so that score is too high.")
    if "synthetic" in str(training.get("dataset", "")):
        limits.append("The images are synthetic, so scores are not evidence about images of Mars.")
    return "## Limits\n\n" + "\n".join(f"- {limit}" for limit in limits)


def _narrow(evaluation: Mapping[str, Any]) -> str:
    if interval(at(evaluation, "intervals", "mIoU")) is None:
        return ""
    return "; neighbouring frames are similar, so the intervals over images are probably too narrow"


def _licence(licence: str | None, encoder: Licence | None, terms: str) -> str:
    if encoder is not None and encoder.passes_on:
        return (
            f"The weights were made from an encoder under {encoder.identifier} "
            f"([its text]({LICENCE_FILE}), [source]({encoder.link})) and may be used and shared "
            f"under the same licence only. {' '.join(encoder.terms)} {terms}"
        )
    about = ""
    if encoder is not None:
        limit = ", which forbids commercial use" if encoder.limited else ""
        about = f" The encoder was initialised with weights under {encoder.identifier}{limit}."
    if licence is None:
        return (
            "No licence was given for the weights; ask their owner before you use or share them."
            + about
        )
    return f"Weights: {licence}.{about} {terms}"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
