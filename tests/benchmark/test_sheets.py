"""A benchmark to look at: sheets and the page."""

from pathlib import Path

import numpy as np
import pytest
import skimage

from restore.benchmark.plan import plan_bench
from restore.benchmark.report import table_lines
from restore.benchmark.run import run_bench
from restore.benchmark.sheets import IMAGES_PER_SHEET, write_bench_page, write_sheets
from restore.images import read_rgb8, write_png

WEIGHTS = Path(__file__).parents[2] / "../shared/data/weights/squeezenet1_1_fp16.safetensors"


@pytest.mark.skipif(not WEIGHTS.exists(), reason="no SqueezeNet weights here")
def test_sheets_and_page_show_every_damage(tmp_path: Path) -> None:
    clean = tmp_path / "clean"
    clean.mkdir()
    for i in range(IMAGES_PER_SHEET + 2):
        write_png(clean / f"{i}.png", np.ascontiguousarray(skimage.data.astronaut()[30 * i :][:48, 60:124]))
    plan = plan_bench(
        clean, tmp_path / "out", degradations=["inpaint-thin"], models=["telea"], device="cpu",
        lpips_net="squeeze", lpips_weights=WEIGHTS,
    )  # fmt: skip
    results = run_bench(plan)
    assert all({"psnr_hole", "lpips_hole"} <= s.scores.keys() for s in results.samples)
    sheets = write_sheets(results)
    assert [path.name for path in sheets] == ["inpaint-thin.png"]
    sheet = read_rgb8(sheets[0])
    assert sheet.shape[0] > IMAGES_PER_SHEET * 48
    assert sheet.shape[1] > 3 * 64
    page = write_bench_page(results, table_lines(results))
    data = (page.parent / "data.js").read_text()
    assert data.count('"inpaint-thin \\u00b7 telea"') == IMAGES_PER_SHEET + 2, "a row for every image"
    assert '"psnr_hole"' in data
    assert "inpaint-thin" in page.read_text()
