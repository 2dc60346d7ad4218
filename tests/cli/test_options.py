"""Options that are declared once, and old names that still work."""

from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner

from restore.cli.main import app
from restore.cli.options import RENAMED, with_new_names
from restore.errors import RestoreError
from restore.fix.batch_options import BatchOptions, declared
from restore.fix.option_values import flag
from restore.fix.options import DetectOptions, FixOptions
from tests.cli.test_main import commands, restore


@pytest.mark.parametrize(
    ("line", "new"),
    [
        ("fix a b --fade", "fix a b --correct-fading"),
        ("fix a b --truncated accept --html page", "fix a b --allow-truncated --html-report page"),
        ("fix a b --truncated=accept --html=page", "fix a b --allow-truncated --html-report=page"),
        ("fix a b --truncated fail", "fix a b"),
        ("--debug fix --mask-missing clean a b", "--debug fix --mask-missing copy a b"),
        ("fix --mask-missing=clean a b", "fix --mask-missing copy a b"),
        ("detect a b --decode-seconds=3", "detect a b --decode-timeout=3"),
        ("detect a b --threshold 0.3 --tile 0", "detect a b --sensitivity 0.7 --tile 0"),
        ("detect a b --threshold=0.12", "detect a b --sensitivity 0.88"),
        ("detect a b --threshold x", "detect a b --sensitivity x"),
    ],
)
def test_an_old_name_is_replaced_and_the_new_one_named(line: str, new: str) -> None:
    arguments, note = with_new_names(line.split())
    assert " ".join(arguments) == new
    assert note.startswith("note: --")
    assert "\n" not in note


@pytest.mark.parametrize(
    "line", ["", "--help", "fix a b --mask-missing skip", "fix a b -- --fade", "train --fade", "fix a --truncated"]
)
def test_what_is_no_old_name_stays(line: str) -> None:
    assert with_new_names(line.split()) == (line.split(), "")


def test_every_new_name_is_there() -> None:
    known = commands()
    assert set(RENAMED[""].values()) <= known.keys()
    for command in RENAMED.keys() - {""}:
        options = {option for parameter in known[command].params for option in parameter.opts}
        for old, new in RENAMED[command].items():
            assert not new or new.split()[0] in options, f"{command} {new}"
            assert " " in old or old not in options, f"{command} {old}"


def test_an_old_name_works_and_prints_one_line(tmp_path) -> None:
    done = restore("fix", tmp_path / "nowhere", tmp_path / "out", "--fade", "--truncated", "accept")
    note, error = done.stderr.splitlines()
    assert note == (
        "note: --fade is now --correct-fading, --truncated accept is now --allow-truncated; "
        "old names stop working in the next release"
    )
    assert error.startswith("error: ")


@pytest.mark.parametrize(("command", "options"), [("fix", FixOptions), ("detect", DetectOptions)])
def test_every_declared_option_is_on_the_command_line(command: str, options: type[BatchOptions]) -> None:
    shown = {name for parameter in commands()[command].params for name in parameter.opts}
    for name, (_, option) in declared(options).items():
        assert (flag(name) in shown) == option.cli
        assert option.help.endswith(".")


@pytest.mark.parametrize("command", ["fix", "detect"])
def test_help_is_in_panels_and_fits_in_80_columns(command: str) -> None:
    text = restore(command, "--help", COLUMNS="80").stdout
    panels = [
        "Masks:",
        *(["Video:"] if command == "fix" else []),
        "Files:",
        "Speed:",
        "Safety:",
        "Reports:",
        "Options:",
    ]
    assert [line for line in text.splitlines() if line in panels] == panels
    assert max(map(len, text.splitlines())) <= 80
    assert "..." not in text.split("\n\n", 1)[1], "only the usage line has dots: they mean several"
    assert f"\n    restore {command} scans/" in text


def test_help_names_what_a_value_is() -> None:
    """`--out FOLDER`, not `--out <path>`, which is a type of Python."""
    runner = CliRunner()
    for command in commands():
        text = runner.invoke(app, [command, "--help"]).stdout
        assert not re.search(r"<(str|path|Path|int|float|list)\b", text), command


def test_the_list_of_commands_is_not_cut() -> None:
    text = restore("--help", COLUMNS="80").stdout
    assert "..." not in text.split("Commands:")[1]
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"strength": 2}, "--strength: must be a number between 0 and 1, not 2"),
        ({"strength": float("nan")}, "--strength"),
        ({"tile": "big"}, "--tile: must be an integer of at least 0 or auto, not 'big'"),
        ({"tile": -5}, "--tile"),
        ({"mask_dilate": 501}, "--mask-dilate: must be an integer between 0 and 500, auto or scan, not 501"),
        ({"mask_missing": "clean"}, "--mask-missing: must be fail, skip or copy, not 'clean'"),
        ({"overwrite": 1}, "--overwrite: must be True or False, not 1"),
        ({"quality": True}, "--quality"),
        ({"include": "*.png"}, "--include: must be a sequence of strings, not '*.png'"),
        ({"masks": ""}, "--masks: must not be empty"),
        ({"masks": "auto", "mask_invert": True}, "--mask-invert: does not apply to --masks auto"),
        ({"detector": "mine"}, "--detector: only applies with --masks auto"),
        ({"sensitivity": "strong"}, "--sensitivity: only applies with --masks auto"),
        (
            {"masks": "auto", "sensitivity": "weak"},
            "--sensitivity: must be gentle, normal, strong or a number between 0.001 and 0.999, not 'weak'",
        ),
        ({"masks": "auto", "sensitivity": 0}, "--sensitivity"),
        ({"masks": "auto", "sensitivity": 1.0}, "--sensitivity"),
        ({"masks": "auto", "sensitivity": "nan"}, "--sensitivity"),
        ({"masks": "auto", "save_masks": ""}, "--save-masks: must not be empty"),
        ({"overwrite": True, "skip_existing": True}, "--overwrite: cannot be combined with --skip-existing"),
        ({"masks": "m", "match_grain": True, "clean_up": True}, "--match-grain: cannot be combined with --clean-up"),
        ({"ext": "pgn"}, "--ext: cannot write 'pgn'; did you mean 'png'?"),
        ({"suffix": "a/b"}, "--suffix"),
        ({"mask_inver": True}, "--mask-inver: unknown option; did you mean 'mask_invert'?"),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_option(values: dict, words: str) -> None:
    with pytest.raises(RestoreError) as caught:
        FixOptions.from_dict(values)
    assert words in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "name", ["mask_invert", "mask_feather", "save_masks", "uncertainty", "clean_up", "match_grain"]
)
def test_options_about_masks_require_masks(name: str) -> None:
    options = FixOptions(**{name: {"mask_feather": 3, "save_masks": "saved", "uncertainty": "maps"}.get(name, True)})
    options.check_masks(has_masks=True)
    with pytest.raises(RestoreError, match=re.escape(f"{flag(name)}: requires --masks")):
        options.check_masks(has_masks=False)


def test_options_survive_json() -> None:
    import json

    options = FixOptions(masks="auto", tile="512", include=["*.png"], strength=1)
    assert options.tile == 512
    assert FixOptions.from_dict(json.loads(json.dumps(options.to_dict()))) == options
