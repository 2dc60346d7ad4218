"""`restore eval --html-report`: the page shows what the report says, of the files that it is about."""

from pathlib import Path

import numpy as np
import pytest

from restore.evaluation.html_report import write_report_page
from restore.evaluation.scoring import score_folders
from restore.images import write_png
from tests.cli.test_main import restore
from tests.html.test_write import data_of


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Pairs: a good one, an identical one, one of two sizes, one broken; and a file without a partner."""
    random = np.random.default_rng(0)
    for name in ("good", "sub/same", "sizes", "broken", "alone"):
        clean = random.integers(0, 200, (40, 50, 3)).astype(np.uint8)
        baseline, repaired = clean + np.uint8(50), clean + np.uint8(10)
        restored = {"sub/same": clean, "sizes": repaired[:30]}.get(name, repaired)
        for folder, pixels in (("true", clean), ("restored", restored), ("baseline", baseline)):
            path = tmp_path / folder / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            if name != "alone" or folder == "restored":
                write_png(path, np.ascontiguousarray(pixels))
        mask = np.zeros((40, 50, 1), np.uint8)
        mask[10:20, 10:20] = 255
        (tmp_path / "masks" / "sub").mkdir(parents=True, exist_ok=True)
        if name in ("good", "sub/same"):
            write_png(tmp_path / "masks" / f"{name}.png", mask)
    (tmp_path / "restored" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    return tmp_path


def test_every_pair_stands_on_the_page_with_its_scores_or_the_reason(folders: Path) -> None:
    restored, true, masks = folders / "restored", folders / "true", folders / "masks"
    report = score_folders(restored, true, masks=masks, metrics=["psnr", "ssim"], device="cpu")
    told: list[int] = []
    index = write_report_page(
        folders / "page", report, restored, true, masks=masks, baseline=folders / "baseline", progress=told.append
    )
    data = data_of(index.parent)
    assert [column["key"] for column in data["columns"]] == list(report.metrics)
    assert (data["reference"], told[-1]) == ("true", 4)
    rows = {row["name"]: row for row in data["rows"]}
    assert list(rows) == ["broken", "good", "sizes", "sub/same"]
    assert rows["good"]["scores"][0] == pytest.approx(report.images[0].scores["psnr"])
    assert list(rows["good"]["views"][0]["images"]) == ["baseline", "restored", "true"]
    assert list(rows["good"]["views"][0]["errors"]) == ["baseline", "restored"]
    assert rows["good"]["views"][0]["outline"]
    assert (rows["sub/same"]["scores"][0], rows["sub/same"]["group"]) == ("inf", "sub")
    assert rows["sizes"]["scores"][0] is None
    assert "the sizes differ" in rows["sizes"]["note"]
    assert "restored cannot be shown" in rows["broken"]["note"]
    assert list(rows["broken"]["views"][0]["images"]) == ["baseline", "true"]
    html = index.read_text()
    assert "alone.png: restored, but without a reference" in html
    assert "data range" in html, "the convention is on the page"


def test_the_option(folders: Path) -> None:
    arguments = (folders / "restored", folders / "true", "--metrics", "psnr", "--html-report")
    done = restore("eval", *arguments, folders / "page")
    assert done.returncode == 1, "as without a page"
    assert f"page: {folders / 'page' / 'index.html'}" in done.stderr
    assert len(data_of(folders / "page")["rows"]) == 4
    again = restore("eval", *arguments, folders / "page")
    assert again.returncode == 1, "an earlier page is replaced"


@pytest.mark.parametrize(("where", "words"), [("masks", "not empty"), ("true/page", "inside"), ("restored", "inside")])
def test_a_page_goes_nowhere_else(folders: Path, where: str, words: str) -> None:
    before = sorted(folders.rglob("*"))
    done = restore(
        "eval", folders / "restored", folders / "true", "--metrics", "psnr", "--html-report", folders / where
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert sorted(folders.rglob("*")) == before
