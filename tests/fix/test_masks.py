"""What the values of a mask mean: soft, stored with losses, or marking more than anybody can mean."""

from __future__ import annotations

import numpy as np

from restore.fix import reader
from tests.fix.conftest import Filler, fix_with, hole, load, photo, save


def test_a_mask_that_marks_nearly_everything_is_told(tmp_path, monkeypatch):
    save(tmp_path / "in/x.png", photo(40, 40))
    save(tmp_path / "mask.png", 255 - hole(40, 40, (10, 10, 20, 20)))
    for pixels in (10**9, 1000):
        monkeypatch.setattr(reader, "HUGE_PIXELS", pixels)
        summary = fix_with(tmp_path / "in", tmp_path / f"{pixels}", Filler(), masks=tmp_path / "mask.png")
        (warning,) = summary.warnings
        assert "the mask covers 94% of the image" in warning
        assert "--mask-invert" in warning
    summary = fix_with(tmp_path / "in", tmp_path / "other", Filler(), masks=tmp_path / "mask.png", mask_invert=True)
    assert summary.warnings == []


def test_a_feathered_selection_fades_from_the_repair_to_the_source(tmp_path):
    """255 is replaced, 128 half of either, 0 as it was: whatever else the picture goes through to get there."""
    array = photo(16, 256)
    ramp = np.tile(np.arange(256, dtype=np.uint8), (16, 1))
    save(tmp_path / "in/x.png", array)
    save(tmp_path / "mask.png", ramp)
    expected = np.rint(array + ramp[:, :, None] / 255.0 * (255.0 - array))
    fix_with(tmp_path / "in", tmp_path / "out", Filler(), masks=tmp_path / "mask.png")
    out = load(tmp_path / "out/x.png").astype(float)
    assert np.abs(out - expected).max() <= 1
    assert np.array_equal(out[:, 0], array[:, 0])
    assert (out[:, 255] == 255).all()

    deep = photo(16, 256, dtype=np.uint16, channels=1)
    save(tmp_path / "deep/x.png", deep)
    fix_with(tmp_path / "deep", tmp_path / "deep_out", Filler(), masks=tmp_path / "mask.png")
    expected = deep + ramp / 255.0 * (65535.0 - deep)
    assert np.abs(load(tmp_path / "deep_out/x.png") - expected).max() <= 1


def test_what_a_soft_mask_half_hides_is_hidden_from_the_model(tmp_path):
    """Else the scratch under a soft brush's edge would be smeared inwards."""
    seen = []

    class Looker(Filler):
        def _restore(self, image, mask):
            seen.append((image.clone(), mask.clone()))
            return super()._restore(image, mask)

    save(tmp_path / "in/x.png", np.full((9, 9, 3), 200, np.uint8))
    mask = np.zeros((9, 9), np.uint8)
    mask[3:6, 3:6], mask[4, 4] = 40, 255
    save(tmp_path / "mask.png", mask)
    fix_with(tmp_path / "in", tmp_path / "out", Looker(), masks=tmp_path / "mask.png")
    ((image, shown_mask),) = seen
    assert (shown_mask[0, 0].numpy() == (mask > 0)).all()
    assert (image[0, :, mask > 0] == 0.5).all()


def test_a_mask_stored_as_jpeg_marks_no_more_than_was_painted(tmp_path):
    array = photo(96, 96)
    painted = np.zeros((96, 96), np.uint8)
    painted[30:60, 37:51] = 255
    save(tmp_path / "in/x.png", array)
    save(tmp_path / "mask.jpg", painted, quality=75)
    assert (load(tmp_path / "mask.jpg") > 0).sum() > 1.2 * (painted > 0).sum(), "around edges black is not quite black"
    fix_with(tmp_path / "in", tmp_path / "out", Filler(), masks=tmp_path / "mask.jpg")
    changed = (load(tmp_path / "out/x.png") != array).any(axis=2)
    assert (changed & (painted == 0)).sum() < 0.03 * (painted > 0).sum()
    assert (load(tmp_path / "out/x.png")[painted > 0] >= 250).mean() > 0.97
