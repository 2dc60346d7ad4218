"""The recipe: the steps of a repair as the page offers them, and the options of `restore fix` that they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from restore.errors import RestoreError, did_you_mean
from restore.fix.options import FixOptions

Value = bool | int | float | str
Recipe = dict[str, Value]

#: The models of `restore models` that fill holes; others only by the command line, as no path may come from a browser.
FILLING_MODELS = ("inpaint", "telea", "navier-stokes", "biharmonic")


@dataclass(frozen=True)
class Ingredient:
    """A setting of the recipe, as the page shows it.

    Attributes:
        name: as in `FixOptions`; `model` and `find` are not there.
        label, help: for the user; the help is one line.
        kind: of its value.
        default: its value unless the user chooses another.
        minimum, maximum: of a number.
        choices: of a choice.
    """

    name: str
    label: str
    help: str
    kind: Literal["bool", "number", "integer", "choice"]
    default: Value
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


RECIPE = (
    Ingredient(
        "correct_fading",
        "Correct fading",
        "Brings back blacks, whites and contrast that the photograph has lost.",
        "bool",
        False,
    ),
    Ingredient(
        "mask_dilate",
        "Fit the mask to the damage",
        "Widens masks that are painted too tight, up to the end of the damage.",
        "bool",
        False,
    ),
    Ingredient(
        "model", "Filled by", "The model that fills the masked parts; inpaint suits photographs.", "choice", "inpaint",
        choices=FILLING_MODELS,
    ),
    Ingredient(
        "match_grain",
        "Match the grain",
        "Adds grain to filled parts to match their surroundings. Cannot be combined with the clean-up.",
        "bool",
        False,
    ),
    Ingredient(
        "clean_up",
        "Clean up",
        "Removes noise, blur and JPEG artifacts from the whole photograph, outside the mask, too.",
        "bool",
        False,
    ),
    Ingredient(
        "strength", "Strength", "Blends between the original (0) and the repair (1).", "number", 1.0, 0.0, 1.0
    ),
    Ingredient(
        "seed", "Fill", "Each number fills deep holes with a different texture. Only for inpaint.",
        "integer", 0, 0, (1 << 31) - 1,
    ),
    Ingredient(
        "find",
        "Find damage",
        "When the recipe is applied to all, the detector makes the mask of each photograph.",
        "bool",
        True,
    ),
    Ingredient(
        "sensitivity",
        "Sensitivity",
        "How readily pixels count as damage when the recipe is applied to all.",
        "choice",
        "normal",
        choices=("gentle", "normal", "strong"),
    ),
)  # fmt: skip

_BY_NAME = {one.name: one for one in RECIPE}


def defaults() -> Recipe:
    """The recipe unless the user changes it."""
    return {one.name: one.default for one in RECIPE}


def checked(values: Mapping[str, Any]) -> Recipe:
    """A recipe from some of its values; the others have their defaults.

    Raises:
        RestoreError: exit code 2; an unknown name, a wrong value, or values that exclude each other.
    """
    recipe = defaults()
    for name, value in values.items():
        one = _BY_NAME.get(name)
        if one is None:
            raise RestoreError("unknown setting", where=name, hint=did_you_mean(name, _BY_NAME))
        recipe[name] = _value(one, value)
    fix_options(recipe, masks="auto" if recipe["find"] else "mask.png")
    return recipe


def _value(one: Ingredient, value: Any) -> Value:
    if one.kind == "bool" and isinstance(value, bool):
        return value
    if one.kind == "choice" and value in one.choices:
        return str(value)
    if one.kind in ("number", "integer") and isinstance(value, int | float) and not isinstance(value, bool):
        low, high = one.minimum, one.maximum
        if (low is None or value >= low) and (high is None or value <= high):
            if one.kind == "number":
                return float(value)
            if value == int(value):
                return int(value)
    expected = {
        "bool": "true or false",
        "choice": f"one of {', '.join(one.choices)}",
        "number": f"a number between {one.minimum or 0:g} and {one.maximum or 0:g}",
        "integer": f"an integer between {one.minimum or 0:.0f} and {one.maximum or 0:.0f}",
    }[one.kind]
    raise RestoreError(f"must be {expected}, not {value!r}", where=one.name)


def fix_options(recipe: Recipe, *, masks: str) -> FixOptions:
    """The options of `restore fix`.

    Args:
        recipe: complete.
        masks: the file of the mask, or `auto`: what the detector finds.

    Raises:
        RestoreError: exit code 2; values that exclude each other.
    """
    found: dict[str, Any] = {"sensitivity": recipe["sensitivity"]} if masks == "auto" else {}
    return FixOptions(
        masks=masks,
        correct_fading=bool(recipe["correct_fading"]),
        mask_dilate="auto" if recipe["mask_dilate"] else 0,
        match_grain=bool(recipe["match_grain"]),
        clean_up=bool(recipe["clean_up"]),
        strength=float(recipe["strength"]),
        seed=int(recipe["seed"]) if recipe["model"] == "inpaint" else 0,  # others fill in one way
        **found,
    )
