"""The gallery shows every degradation, each stronger to the right."""

from pathlib import Path

import numpy as np
import pytest
import skimage
from typer.testing import CliRunner

from restore.cli.main import app
from restore.degradations import gallery, key
from restore.degradations.gallery import KINDS, STRENGTHS, Kind, _damaged, draw_gallery
from restore.degradations.pipeline import STEPS, degradation_from
from restore.images import read_rgb8, write_png


def test_every_degradation_is_shown() -> None:
    without = {"quantize", "overlay", "masks"}  # rounding has no strengths; shapes and masks are the user's
    assert {kind.step["name"] for kind in KINDS} == STEPS.keys() - without


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.title)
def test_strength_grows_to_the_right(kind: Kind) -> None:
    clean = np.ascontiguousarray(skimage.data.astronaut()[:198, 100:364])
    assert {len(values) for values in kind.varied.values()} == {STRENGTHS}
    errors = []
    for i in range(STRENGTHS):
        values = {setting: choices[i] for setting, choices in kind.varied.items()}
        damage = degradation_from([{**kind.step, **values}], kind.title)
        errors.append(float(np.abs(_damaged(clean, damage, key(0, kind.title)).astype(int) - clean).mean()))
        assert kind.caption.format(**values)
    assert min(errors) > 0
    if kind.title not in ("film grain", "gray"):  # the grain gets coarser, not stronger; all are gray
        assert errors == sorted(errors)


def test_the_command_draws_the_same_sheet_for_the_same_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "KINDS", [kind for kind in KINDS if kind.title in ("noise", "scratches", "stains")])
    write_png(tmp_path / "photo.png", np.ascontiguousarray(skimage.data.chelsea()[:150, :200]))
    for name, arguments in (
        ("a", ["photo.png"]), ("b", ["photo.png"]), ("c", ["photo.png", "--seed", "1"]),
    ):  # fmt: skip
        command = ["degrade", "--gallery", f"{tmp_path}/{name}.png", f"{tmp_path}/{arguments[0]}", *arguments[1:]]
        assert CliRunner().invoke(app, command).exit_code == 0
    a, b, c = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert a == b
    assert a != c
    assert read_rgb8(tmp_path / "a.png").shape == draw_gallery(tmp_path / "photo.png").shape


def test_without_a_photograph_there_is_one() -> None:
    assert draw_gallery().shape[2] == 3
