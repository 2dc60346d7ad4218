"""The recipe and the options of `restore fix` that it stands for."""

import pytest

from restore.errors import RestoreError
from restore.fix.options import FixOptions
from restore.serve.page.recipe import FILLING_MODELS, RECIPE, checked, defaults, fix_options


def test_the_defaults_are_those_of_a_painted_mask() -> None:
    options = fix_options(defaults(), masks="mask.png")
    plain = FixOptions(masks="mask.png")
    for name in ("correct_fading", "mask_dilate", "match_grain", "strength"):
        assert getattr(options, name) == getattr(plain, name), name
    assert options.cleans_up == plain.cleans_up
    assert checked({}) == defaults()


def test_every_setting_reaches_the_options() -> None:
    recipe = checked({"correct_fading": True, "mask_dilate": True, "clean_up": True, "strength": 0.4, "model": "telea"})
    options = fix_options(recipe, masks="mask.png")
    assert (options.correct_fading, options.mask_dilate, options.cleans_up, options.strength) == (
        True,
        "auto",
        True,
        0.4,
    )
    assert fix_options(checked({"match_grain": True}), masks="mask.png").match_grain
    found = fix_options(checked({"sensitivity": "strong"}), masks="auto")
    assert (found.masks, found.sensitivity, found.cleans_up) == ("auto", "strong", False)


def test_models_are_those_that_fill_holes() -> None:
    from restore.restorers.registry import list_restorers

    infos = {info.name: info for info in list_restorers()}
    assert all(infos[name].needs_mask and not infos[name].finds for name in FILLING_MODELS)


def test_each_setting_is_explained_in_one_line_and_takes_its_default() -> None:
    for one in RECIPE:
        assert one.label
        assert "\n" not in one.help
        assert one.help.endswith(".")
        assert checked({one.name: one.default})[one.name] == one.default


@pytest.mark.parametrize(
    "values",
    [
        {"strength": "1"}, {"strength": True}, {"strength": float("nan")}, {"model": "detector"}, {"find": 0},
        {"sensitivity": 0.5}, {"masks": "/etc"}, {"match_grain": True, "clean_up": True},
    ],
)  # fmt: skip
def test_wrong_values_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(RestoreError):
        checked(values)
