import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from restore.degradations import degradation_from
from restore.degradations.write import write_degraded
from restore.errors import RestoreError


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    folder = tmp_path / "clean"
    (folder / "deep" / "er").mkdir(parents=True)
    pixels = data.astronaut()
    Image.fromarray(pixels[:90, 100:170]).save(folder / "a.png")
    Image.fromarray(pixels[100:164, 200:301]).save(folder / "deep" / "b.jpg", quality=95)
    Image.fromarray(pixels[:50, 150:200]).convert("L").save(folder / "deep" / "er" / "c.png")
    Image.fromarray(pixels[:1, :1]).save(folder / "dot.png")
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("damage", ["old-photo", "print", "inpaint-medium"])
def test_the_bytes_are_the_same_whatever_the_workers(clean: Path, tmp_path: Path, damage: str) -> None:
    one = write_degraded(clean, tmp_path / "one", damage, seed=3, workers=1)
    three = write_degraded(clean, tmp_path / "three", damage, seed=3, workers=3)
    assert files(tmp_path / "one") == files(tmp_path / "three")
    assert one.written == three.written == one.masks == 4
    assert not one.failed
    names = {"a.png", "deep/b.png", "deep/er/c.png", "dot.png"}
    assert set(files(tmp_path / "one")) == {f"{kind}/{n}" for kind in ("damaged", "masks") for n in names}


def test_another_seed_gives_other_bytes(clean: Path, tmp_path: Path) -> None:
    write_degraded(clean, tmp_path / "three", "noise", seed=3)
    write_degraded(clean, tmp_path / "four", "noise", seed=4)
    assert files(tmp_path / "three")["damaged/a.png"] != files(tmp_path / "four")["damaged/a.png"]


def test_a_picture_is_damaged_alike_with_and_without_its_neighbours(clean: Path, tmp_path: Path) -> None:
    write_degraded(clean, tmp_path / "all", "noise", seed=3)
    (clean / "a.png").unlink()
    write_degraded(clean, tmp_path / "some", "noise", seed=3)
    assert files(tmp_path / "all")["damaged/deep/b.png"] == files(tmp_path / "some")["damaged/deep/b.png"]


def test_masks_are_white_where_the_picture_is_hidden(clean: Path, tmp_path: Path) -> None:
    write_degraded(clean, tmp_path / "out", "inpaint-medium")
    damaged = np.array(Image.open(tmp_path / "out/damaged/a.png"))
    mask = np.array(Image.open(tmp_path / "out/masks/a.png"))
    original = np.array(Image.open(clean / "a.png"))
    assert set(np.unique(mask)) == {0, 255}
    assert mask.shape == original.shape[:2]
    assert (damaged[mask == 0] == original[mask == 0]).all()
    assert (damaged[mask == 255] == 128).all()


def test_no_masks_where_nothing_is_hidden(clean: Path, tmp_path: Path) -> None:
    summary = write_degraded(clean, tmp_path / "out", "jpeg")
    assert summary.masks == 0
    assert not (tmp_path / "out" / "masks").exists()


def test_a_broken_file_is_reported_and_the_rest_goes_on(clean: Path, tmp_path: Path) -> None:
    (clean / "b_broken.png").write_bytes((clean / "a.png").read_bytes()[:200])
    seen = []
    summary = write_degraded(clean, tmp_path / "out", "noise", progress=lambda done, total: seen.append((done, total)))
    assert [path.as_posix() for path, _ in summary.failed] == ["b_broken.png"]
    assert "b_broken.png" in summary.failed[0][1]
    assert summary.written == 4
    assert seen == [(i, 5) for i in range(1, 6)]


def test_what_exists_is_replaced_only_when_told(clean: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "damaged").mkdir(parents=True)
    (out / "damaged" / "dot.png").write_bytes(b"mine")
    with pytest.raises(RestoreError, match=r"dot\.png: the output already exists"):
        write_degraded(clean, out, "noise")
    assert files(out) == {"damaged/dot.png": b"mine"}
    write_degraded(clean, out, "noise", overwrite=True)
    assert files(out)["damaged/dot.png"] != b"mine"


def test_two_pictures_that_would_get_one_name_are_refused(clean: Path, tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(clean / "a.bmp")
    with pytest.raises(RestoreError, match="has the same name as a"):
        write_degraded(clean, tmp_path / "out", "noise")
    assert not (tmp_path / "out").exists()


def test_folders_in_each_other_and_empty_ones_are_refused(clean: Path, tmp_path: Path) -> None:
    for out in (clean, clean / "inside"):
        with pytest.raises(RestoreError, match=r"the output folder is .*, or inside it"):
            write_degraded(clean, out, "noise")
    clean.rename(tmp_path / "damaged")
    with pytest.raises(RestoreError, match="inside, the output folder damaged/"):
        write_degraded(tmp_path / "damaged", tmp_path, "noise")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RestoreError, match="holds no images"):
        write_degraded(tmp_path / "empty", tmp_path / "out", "noise")


def test_a_damage_made_in_code_serves_too(clean: Path, tmp_path: Path) -> None:
    damage = degradation_from([{"name": "noise", "sigma": 0}], "nothing")
    write_degraded(clean, tmp_path / "out", damage)
    assert (np.array(Image.open(tmp_path / "out/damaged/a.png")) == np.array(Image.open(clean / "a.png"))).all()


def test_places_that_cannot_be_written_to_are_refused_before_anything_is(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    for folder, inside in (("one", "damaged"), ("two", "masks"), ("three", "damaged/deep")):
        (tmp_path / folder / inside).parent.mkdir(parents=True)
        (tmp_path / folder / inside).touch()
    for out in ("file", "file/in", "one", "two", "three"):
        before = files(tmp_path)
        with pytest.raises(RestoreError, match="is a file where a folder is needed") as caught:
            write_degraded(clean, tmp_path / out, "inpaint-thin", overwrite=True)
        assert caught.value.exit_code == 2
        assert files(tmp_path) == before
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK and real(path, mode))
    with pytest.raises(RestoreError, match="no permission to write"):
        write_degraded(clean, tmp_path / "new", "noise")
    assert not (tmp_path / "new").exists()


def test_what_a_folder_leaves_out_is_told(clean: Path, tmp_path: Path) -> None:
    (clean / "@eaDir").mkdir()
    (clean / "@eaDir/x.png").touch()
    summary = write_degraded(clean, tmp_path / "out", "inpaint-thin", workers=1)
    assert summary.failed == []
    assert summary.format()[0] == "left out, as hidden or made by a system: @eaDir; name one as CLEAN_DIR"
