"""Settings from the command line and YAML: what is set, what wins, and what is refused."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path

import pytest
import yaml

from s5mars.cli import main
from s5mars.errors import UserError
from s5mars.methods import METHODS
from s5mars.methods.s5mars import S5Mars
from s5mars.methods.supervised import Supervised
from s5mars.settings.config import TrainConfig
from s5mars.settings.networks import GENERAL_MODELS, NETWORKS, DeepLabOptions
from s5mars.settings.parsing import parse_training, training_from_yaml, training_parser
from s5mars.settings.recipes import RECIPES, find_recipe
from s5mars.settings.used import require_used, used_only, without_unused

BASE = ["--data", "d", "--out", "o", "--steps", "5"]


def refused(*arguments: str) -> str:
    with pytest.raises(ValueError) as caught:
        parse_training([*BASE, *arguments])
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("arguments", [["--out", ""], ["--out="], ["--object_cache", ""]])
def test_an_empty_path_is_not_the_current_folder(arguments: list[str]) -> None:
    assert "the path is empty: give one, or leave the option out" in refused(*arguments)
    parse_training([*BASE, "--teacher", "t", "--ablation", ""])  # no path


def test_the_signatures_hold_what_the_paper_says() -> None:
    settings = parse_training([*BASE, "--recipe", "paper"])
    assert settings.config == TrainConfig(data=Path("d"), out=Path("o"), steps=5, recipe="paper")
    assert settings.method == S5Mars()


def test_the_default_recipe_fits_short_runs_and_changes_one_field_of_the_method() -> None:
    settings = parse_training(BASE)
    assert settings.config == TrainConfig(
        data=Path("d"), out=Path("o"), steps=5, **find_recipe("default").training
    )
    assert settings.method == S5Mars(photometric="fixmatch")
    assert parse_training([*BASE, "--method", "supervised"]).method == Supervised()


def test_every_kind_of_value() -> None:
    config = parse_training(
        [*BASE, "--labelled=0.125", "--scale", "[0.75, 1.5]", "--deeplab.multi_grid", "[1, 2, 4]",
         "--learning-rate", "1e-3", "--save_every", "7", "--devices", "2", "--precision", "bf16",
         "--objects", "store.parquet"]
    ).config  # fmt: skip
    assert config.labelled == 0.125 and isinstance(config.labelled, float)
    assert config.scale == (0.75, 1.5)
    assert config.network == DeepLabOptions(multi_grid=[1, 2, 4])
    assert config.learning_rate == 0.001
    assert config.save_every == 7
    assert config.devices == 2
    assert config.precision == "bf16"
    assert config.objects == Path("store.parquet")
    assert parse_training([*BASE, "--labelled", "lists/0.2.txt"]).config.labelled == "lists/0.2.txt"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], False),
        (["--skip-bad"], True),
        (["--skip-bad", "--seed", "4"], True),
        (["--skip_bad=true"], True),
        (["--skip-bad", "false"], False),
    ],
)
def test_a_switch_may_stand_alone(arguments: list[str], expected: bool) -> None:
    assert parse_training([*BASE, *arguments]).config.skip_bad is expected


def test_fields_of_the_method() -> None:
    method = parse_training(
        [*BASE, "--thresholds=fixed", "--s5mars.hard-threshold", "0.5", "--s5mars.swap=both",
         "--s5mars.mix.source", "rectangles", "--s5mars.mix.rescale", "[0.5, 1.0]"]
    ).method  # fmt: skip
    assert isinstance(method, S5Mars)
    default = find_recipe("default").method("s5mars", S5Mars())
    mix = replace(default.mix, source="rectangles", rescale=(0.5, 1.0))
    assert method == replace(default, hard_threshold=0.5, swap="both", mix=mix)


@pytest.mark.parametrize("method", [*METHODS, "san"])
@pytest.mark.parametrize("model", ["resnet50", *GENERAL_MODELS])
def test_every_option_says_what_it_is(method: str, model: str) -> None:
    parser = training_parser(["--method", method, "--model", model])
    silent = [
        a.dest for a in parser._actions if not str(a.help or "").partition("(type:")[0].strip()
    ]
    assert not silent


@pytest.mark.parametrize("method", ["supervised", "s5mars"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_yaml_round_trip(tmp_path: Path, method: str, recipe: str) -> None:
    given = parse_training(
        [*BASE, "--method", method, "--recipe", recipe, "--labelled", "0.125", "--skip-bad",
         "--ohem", "--deeplab.multi_grid", "[1, 2, 4]", "--seed", "9"]
    )  # fmt: skip
    path = tmp_path / "config.yaml"
    path.write_text(given.text)
    again = training_from_yaml(path)
    assert again == given
    assert yaml.safe_load(given.text)["ohem"] is True


def test_printed_settings_parse_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*BASE, "--recipe", "as_released", "--s5mars.soft-weight", "0.25", "--crop", "64"]
    with pytest.raises(SystemExit) as ended:
        main(["train", *arguments, "--print-config"])
    assert not ended.value.code
    path = tmp_path / "printed.yaml"
    path.write_text(capsys.readouterr().out)
    settings = training_from_yaml(path)
    expected = parse_training(arguments)
    assert (settings.config, settings.method) == (expected.config, expected.method)
    assert settings.config.crop == 64


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("data: d\nout: o\nsteps: 5\nmethod: supervised\nbatch: 3\nseed: 4\n")
    settings = parse_training(["--config", str(path), "--batch", "2"])
    assert isinstance(settings.method, Supervised)  # the file decides which options exist
    assert (settings.config.batch, settings.config.seed) == (2, 4)
    assert isinstance(parse_training([f"--config={path}", "--method=s5mars"]).method, S5Mars)


def test_a_recipe_changes_defaults_and_gives_way() -> None:
    released = parse_training([*BASE, "--recipe", "as_released"])
    assert released.config.model == "resnet50s"
    assert released.config.network == DeepLabOptions(
        normalisation="as_released", multi_grid=[1, 2, 4]
    )
    assert released.config.select_on == "test"
    assert released.config.ramp == released.config.teacher_span == 0
    assert released.config.freeze_at == pytest.approx(200 / 240)
    assert isinstance(released.method, S5Mars)
    assert released.config.ohem and released.method.mix.extra_rectangle
    assert released.method.swap == "none"
    assert released.method.hard_over == "all" and released.method.soft_over == "kept"
    # Every pixel is kept: no confidence is below the threshold.
    assert released.method.hard_threshold < 0

    paper = parse_training([*BASE, "--recipe", "paper"])
    assert (paper.config.ramp, paper.config.teacher_span) == (0, 0)
    assert paper.method == S5Mars() and paper.config.model == "resnet50"

    changed = parse_training(
        [*BASE, "--recipe", "as_released", "--model", "resnet18", "--ohem", "false",
         "--ramp", "0.1"]
    )  # fmt: skip
    assert changed.config.model == "resnet18" and changed.config.ramp == 0.1
    assert isinstance(changed.method, S5Mars)
    assert not changed.config.ohem and changed.method.mix.extra_rectangle
    supervised = parse_training([*BASE, "--recipe", "as_released", "--method", "supervised"])
    assert supervised.method == Supervised() and supervised.config.ohem


def test_a_recipe_may_stand_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("data: d\nout: o\nsteps: 5\nrecipe: as_released\n")
    assert training_from_yaml(path).config.model == "resnet50s"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stepz", "5"], "unknown option --stepz; did you mean '--steps'"),
        (["--learningrate=1"], "unknown option --learningrate; did you mean '--learning-rate'"),
        (["--s5mars.hard-treshold", "1"], "did you mean '--s5mars.hard-threshold'"),
        (["--method", "supervised", "--s5mars.swap", "std"], "unknown option --s5mars.swap"),
        (["--method", "s5mar"], "unknown method 's5mar'; nearest first: s5mars, "),
        (["--recipe", "papr"], "nearest first: paper"),
        (["extra"], "unexpected argument 'extra'"),
        (["--batch", "x"], "batch is 'x': expected int"),
        (["--batch", "2.5"], "batch is '2.5': expected int"),
        (["--precision", "fp64"], "precision is 'fp64': expected .*bf16"),
        (["--s5mars.swap", "variance"], "s5mars.swap is 'variance': expected .*'std'"),
        (["--batch", "0"], r"--batch must be above 0 \(got 0\)"),
        (["--crop", "16"], r"--crop must be at least 32 pixels \(got 16\)"),
        (["--scale", "[2.0, 0.5]"], "smallest and the largest"),
        (["--epochs", "2"], "--steps and --epochs are both given"),
        (["--deeplab.decodr", "light"], "did you mean '--deeplab.decoder'"),
        (["--deeplab.decoder", "ligth"], "deeplab.decoder is 'ligth': expected .*'light'"),
        (["--deeplab.output-stride", "7"], r"output_stride is '7': expected \[8, 16, 32\]"),
        (["--head", "light"], r"head is 'light': expected \['auto', 'deeplab', 'dpt', 'linear'\]"),
        (["--model=san", "--freeze=encoder"], "--freeze; it is for a timm encoder, not san"),
        (["--model=sam-cls", "--crops=tiles"], "--crops; --model sam-cls has fixed crops"),
        (["--layer-decay", "0"], r"--layer-decay must be in \(0, 1\]"),
        (["--side-adapter.checkpoint", "a"], "it is for --model san, not resnet50"),
        (["--model=san", "--deeplab.decoder=light"], "it is for a timm encoder, not san"),
        (["--model=sam-cls", "--scale", "[1, 1]"], "--scale; --model sam-cls has fixed crops"),
        (["--model=san", "--recipe=as_released"], "deeplab.multi_grid, which --model san does not"),
        (["--model=san", "--side-adapter.input-side=8"], "input-side must be at least 32"),
        (["--ramp", "1.5"], r"--ramp must be in \[0, 1\)"),
    ],
)
def test_mistakes_on_the_command_line(arguments: list[str], message: str) -> None:
    assert re.search(message, refused(*arguments))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("batch:", "batch has no value in the settings: give one, or remove the key"),
        ("scale:\n- 0.5\n-", "scale"),
        ("deeplab:", "deeplab has no value in the settings"),
        ("deeplab: 5", "deeplab is 5: expected a group of options"),
        ("s5mars:\n  mix:\n    flip:", r"s5mars\.mix\.flip has no value in the settings"),
        ("batchh: 3", "unknown key 'batchh' in the settings; did you mean 'batch'"),
        ("s5mars: {soft_wieght: 3}", "'s5mars.soft_wieght'.* did you mean 's5mars.soft_weight'"),
        ("s5mars: {mix: {rotatoin: 3}}", "did you mean 's5mars.mix.rotation'"),
        ("batch: many", "batch is 'many': expected int"),
        ("method: s5mar", "nearest first: s5mars"),
    ],
)
def test_mistakes_in_the_file(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(f"data: d\nout: o\nsteps: 5\n{text}\n")
    with pytest.raises(ValueError, match=message):
        training_from_yaml(path)


def test_the_help_has_headings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--model", "san", "--help-all"]) == 0
    shown = capsys.readouterr().out
    headings = re.findall(r"^(\w[^:\n]*).*:$", shown, re.MULTILINE)
    assert headings == [
        "options", "Run", "Data", "Model", "Objective", "Optimiser", "Schedule", "Hardware",
        "The side adapter of SAN of table VI, --model san", "examples",
    ]  # fmt: skip
    assert "--side-adapter.checkpoint" in shown and "--deeplab" not in shown
    assert "configuration" not in shown and "Print all settings as YAML" in shown


def test_files_that_are_no_settings(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is not a training run"):
        training_from_yaml(tmp_path / "config.yaml")
    for text in ("steps: [5\n", "only text\n"):
        (tmp_path / "config.yaml").write_text(text)
        with pytest.raises(ValueError, match="config") as caught:
            training_from_yaml(tmp_path / "config.yaml")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &a [x, x]\nb: &b [*a, *a]\nlabelled: *b\n", "aliases such as .a are not supported"),
        ("labelled: " + "[" * 2000 + "]" * 2000, "nested more than 64 deep"),
        ("# " + "x" * (1 << 20), "larger than the limit of 1,048,576 bytes"),
    ],
)
def test_hostile_settings(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=rf"config\.yaml: .*{said}"):
        training_from_yaml(tmp_path / "config.yaml")


def test_settings_that_are_no_regular_file(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").symlink_to("/dev/zero")
    with pytest.raises(UserError, match=r"config\.yaml is a device, not a regular file"):
        training_from_yaml(tmp_path / "config.yaml")


def test_words_that_are_no_truth_in_yaml_1_2_stay_words(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("data: no\nout: o\nsteps: 5\nselect_on: yes\nlearning_rate: 1e-3\n")
    config = training_from_yaml(path).config
    assert (config.data, config.select_on, config.learning_rate) == (Path("no"), "yes", 1e-3)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ValueError, match="missing options: --out, --data"):
        parse_training(["--steps", "5"])
    with pytest.raises(ValueError, match="either --steps or --epochs"):
        parse_training(BASE[:4])


def test_an_option_without_its_value_is_refused() -> None:
    for option in ("--method", "--recipe", "--ablation", "--config"):
        assert "expected one argument" in refused(option)


def test_the_help_of_every_setting_is_a_phrase_of_its_own() -> None:
    documented = [*TrainConfig.__bases__, *NETWORKS]
    lines = [line for each in documented for line in str(each.__doc__).splitlines()]
    helps = [found[1] for line in lines if (found := re.match(r" {8}\w+: (.*)", line))]
    assert len(helps) == sum(len(fields(each)) for each in documented)
    # Fragments such as "Of SGD." or "At the start." say nothing without the name of the option.
    wrong = [text for text in helps if re.match(r"(Of|At|For|In|Any|What|Which|To)\b|``", text)]
    assert not wrong


def test_a_threshold_that_freematch_would_not_read_is_refused() -> None:
    freematch = ["--thresholds", "freematch"]
    wanted = ["--s5mars.hard-threshold", "0.9"]
    assert "which learns it" in refused(*freematch, *wanted)
    of_class_mix = [*freematch, "--method", "classmix", "--classmix.confident", "0.5"]
    assert "classmix.confident (got 0.5) has no effect" in refused(*of_class_mix)
    of_prev_match = ["--method", "prevmatch", "--prevmatch.unimatch.threshold", "0.3"]
    said = refused(*freematch, *of_prev_match)
    assert "prevmatch.unimatch.threshold (got 0.3) has no effect" in said
    by_name = parse_training([*BASE, "--ablation", "hard_threshold/0.9"])
    assert by_name.config.thresholds == "fixed"
    for kind in ("fixed", "flexmatch"):
        assert parse_training([*BASE, *wanted, "--thresholds", kind]).config.thresholds == kind
    every = parse_training([*BASE, *freematch, "--s5mars.hard-threshold", "0"])
    assert every.config.thresholds == "freematch"


@pytest.mark.parametrize(
    ("method", "option", "words"),
    [
        (
            "s5mars",
            "--s5mars.mix.rescale=[0,1]",
            "mix.rescale must be the smallest and the largest factor",
        ),
        (
            "s5mars",
            "--s5mars.mix.rescale=[1.33,0.75]",
            "must be the smallest and the largest factor",
        ),
        ("s5mars", "--s5mars.mix.flip=7", "mix.flip must be in [0, 1] (got 7.0)"),
        ("unimatch", "--unimatch.dropped=1", "dropped must be in [0, 1) (got 1.0)"),
        ("mean_teacher", "--mean_teacher.noise=-1", "noise must be at least 0 (got -1.0)"),
        ("s5mars", "--s5mars.mix.rescale=[1,.inf]", "must be the smallest and the largest factor"),
        ("s5mars", "--s5mars.mix.rotation=-20", "mix.rotation must be at least 0 (got -20.0)"),
        ("s5mars", "--s5mars.mix.rotation=.inf", "mix.rotation must be finite (got inf)"),
        ("s5mars", "--s5mars.soft_weight=-1", "soft_weight must be at least 0"),
        ("ranpaste", "--ranpaste.beta=0", "beta must be above 0 (got 0.0)"),
        ("ranpaste", "--ranpaste.beta=.nan", "beta must be finite (got nan)"),
        ("u2pl", "--u2pl.anchors=0", "anchors must be at least 1 (got 0)"),
        ("u2pl", "--u2pl.negatives=0", "negatives must be at least 1 (got 0)"),
        ("u2pl", "--u2pl.temperature=0", "temperature must be above 0 (got 0.0)"),
        ("u2pl", "--u2pl.cutmix=2", "cutmix must be in [0, 1] (got 2.0)"),
        ("u2pl", "--u2pl.low_rank=-1", "low_rank must be at least 0 (got -1)"),
        ("u2pl", "--u2pl.queue=0", "queue must be at least 1 (got 0)"),
        ("classmix", "--classmix.class_share=2", "class_share must be in [0, 1] (got 2.0)"),
        ("fixmatch", "--fixmatch.rectangle=2", "rectangle must be in [0, 1] (got 2.0)"),
        ("unimatch", "--unimatch.strong_weights=[1,-1]", "strong_weights must be at least 0"),
        ("unimatch_v2", "--unimatch_v2.undropped=-1", "undropped must be in [0, 1] (got -1.0)"),
        ("prevmatch", "--prevmatch.unimatch.rectangle=2", "rectangle must be in [0, 1]"),
        ("self_training", "--self_training.erased=2", "erased must be in [0, 1] (got 2.0)"),
        ("augseg", "--augseg.unsupervised_weight=-1", "unsupervised_weight must be at least 0"),
    ],
)
def test_numbers_that_no_method_can_work_with(method: str, option: str, words: str) -> None:
    said = refused("--method", method, option)
    assert said.startswith(f"method {method}: ") and words in said


def test_options_override_a_settings_file_in_any_order(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("steps: 7\nbatch: 3\nscale: [0.5, 1.5]\n")
    for words in (["--config", str(file), *BASE], [*BASE, f"--config={file}"]):
        config = parse_training(words).config
        assert (config.steps, config.batch, config.scale) == (5, 3, (0.5, 1.5))
    later = tmp_path / "b.yaml"
    later.write_text("batch: 4\n")
    assert parse_training([*BASE, f"--config={file}", f"--config={later}"]).config.batch == 4
    assert parse_training([*BASE, f"--config={later}", f"--config={file}"]).config.batch == 3


@pytest.mark.parametrize("text", ["", "- 1\n- 2\n", "7\n", "1: 2\n"])
def test_a_settings_file_without_options_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(text)
    said = refused(f"--config={tmp_path / 'e.yaml'}")
    assert said == f"--config {tmp_path / 'e.yaml'} must contain options with their values"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--deeplab=x", "deeplab is 'x': expected a group of options, such as --deeplab.decoder"),
        ("--deeplab x", "deeplab is 'x': expected a group of options, such as --deeplab.decoder"),
        ("--s5mars.mix=x", "s5mars.mix is 'x': expected a group of options, such as --s5mars.mix."),
        ("--scale=[1]", "scale is '[1]': expected 2 numbers, such as [0.5, 2.0]"),
        ("--epochs=0", "--epochs must be above 0 (got 0.0)"),
        ("--epochs=2", "--steps and --epochs are both given: leave one of them out"),
        ("--model=", "--model is empty: give a value, or leave it out"),
        ("--labelled=", "--labelled is empty: give a value, or leave it out"),
        ("--workers=-2", "--workers must be at least -1 (got -2)"),
        ("--resolution=3000000000", "the longer side in pixels, from 32 to 65536 (got '30000"),
        ("--resolution=1/70000", "the longer side in pixels, from 32 to 65536 (got '1/70000')"),
        (f"--resolution={'9' * 5000}", f"from 32 to 65536 (got '{'9' * 40}…')"),
    ],
)
def test_values_that_mean_nothing_are_refused_in_one_line(arguments: str, message: str) -> None:
    assert message in refused(*arguments.split())


@pytest.mark.parametrize(
    ("method", "option", "message"),
    [
        ("s5mars", "--snapshots=6", "--snapshots must be at most the number of steps, 5 (got 6)"),
        ("supervised", "--keep=after-warm-up", "--keep after-warm-up is for methods that use a po"),
        ("supervised", "--alignment-power=0.5", "--alignment-power is for methods that use a po"),
        ("s5mars", "--momentum=0.8", "--momentum has no effect with --optimiser adamw: choose --o"),
        ("s5mars", "--alignment-power=0.5", "--alignment-power has no effect with --alignment 0:"),
        ("s5mars", "--alignment-coverage=0", "--alignment-coverage has no effect with --alignmen"),
        ("s5mars", "--threshold-momentum=0.9", "--threshold-momentum has no effect with --thresho"),
    ],
)
def test_options_without_an_effect_are_refused(method: str, option: str, message: str) -> None:
    config, kind, _ = parse_training([*BASE, f"--method={method}", option])
    with pytest.raises(UserError) as caught:
        require_used(config, {method: kind.needs})
    assert message in str(caught.value)
    for allowed in ("--keep=last", "--snapshots=5", "--optimiser=sgd --momentum=0.8"):
        config, kind, _ = parse_training([*BASE, f"--method={method}", *allowed.split()])
        require_used(config, {method: kind.needs})


def test_the_values_of_a_recipe_are_no_options_without_an_effect() -> None:
    plain = TrainConfig(data=Path("d"), out=Path("o"), steps=5)
    for name, recipe in RECIPES.items():
        for method, kind in METHODS.items():
            needs = kind().needs
            own = {"method": method, "recipe": name, **recipe.training_of(method)}
            own = {key: value for key, value in own.items() if hasattr(plain, key)}
            config = replace(plain, **(own | {"model": plain.model}))
            require_used(config, {method: needs})
            assert used_only(config, needs) == config
            assert without_unused(config, needs) == []


def test_the_partner_of_an_option_gives_it_an_effect() -> None:
    together = ["--alignment=0.99", "--alignment-power=0.5", "--alignment-coverage=0.5"]
    together += ["--thresholds=freematch", "--threshold-momentum=0.9"]
    config, kind, _ = parse_training([*BASE, "--method=s5mars", *together])
    require_used(config, {"s5mars": kind.needs})
    # Without a pool, all of them are what the recipe says.
    config, kind, _ = parse_training([*BASE, "--method=supervised", *together])
    kept = used_only(config, kind.needs)
    assert (kept.alignment, kept.alignment_coverage, kept.thresholds) == (0, 0.9, "fixed")
    words = [*BASE, "--method=supervised", *together, *without_unused(config, kind.needs)]
    assert parse_training(words).config == kept
