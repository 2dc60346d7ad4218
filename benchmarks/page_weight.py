"""Measures the size of an HTML report with many images, and how fast headless Chromium loads it.

    python benchmarks/page_weight.py      # 1,000 images of 500×400: half a minute on two cores
    python benchmarks/page_weight.py --images 5000 --keep OUT

The images are synthetic (smooth fields with noise, harder to compress than photographs), in three versions each. The
browser opens the page from disk with a new profile every time; times are medians of its own clock.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, os.fspath(Path(__file__).parent.parent))

from restore.html import Column, Row, write_page
from tests.html.browser import chromium, opened, started

HEIGHT, WIDTH = 400, 500
SORT = """() => {
    const before = performance.now();
    document.querySelector("#head [data-key='0'] button").click();
    document.body.getBoundingClientRect();
    return performance.now() - before;
}"""


def made(count: int) -> Iterator[Row]:
    """Rows of a degraded, a restored and a clean image, with a hole."""
    for number in range(count):
        random = np.random.default_rng(number)
        coarse = random.integers(0, 256, (10, 12, 3)).astype(np.uint8)
        true = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        texture = cv2.GaussianBlur(random.normal(0, 1, true.shape).astype(np.float32), (0, 0), 1.5) * 40
        true = np.clip(true + texture, 0, 255).astype(np.uint8)
        strength = random.uniform(10, 50)
        damaged = np.clip(true + random.normal(0, strength, true.shape), 0, 255).astype(np.uint8)
        restored = cv2.bilateralFilter(damaged, 5, 60, 3)
        mask = np.zeros((HEIGHT, WIDTH), bool)
        top, left = random.integers(0, 300, 2)
        mask[top : top + 80, left : left + 120] = True
        error = float(np.mean((restored.astype(np.float32) - true) ** 2))
        scores = {"psnr": 10 * np.log10(255**2 / error), "ssim": 1 - strength / 100, "lpips": strength / 150}
        yield Row(
            f"album {number % 7}/photograph {number:04d}",
            scores,
            {"damaged": damaged, "restored": restored, "true": true},
            mask,
            "synthetic" if number % 50 == 0 else "",
            f"strength {int(strength) // 10 * 10}",
        )


def main() -> None:
    """Write the page, measure it, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--keep", type=Path, help="folder for the page; by default it is removed")
    options = parser.parse_args()
    if chromium() is None:
        sys.exit("Chromium is not installed")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary) / "page"
        begun = time.monotonic()
        columns = [
            Column("psnr", "PSNR (dB)", "higher", 2),
            Column("ssim", "SSIM", "higher", 4),
            Column("lpips", "LPIPS", "lower", 4),
        ]
        index = write_page(folder, title="Weight", rows=made(options.images), columns=columns, reference="true")
        seconds = time.monotonic() - begun
        sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
        own = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
        print(f"images                {options.images:,}")
        print(f"written in            {seconds:.1f} s, including making the images")
        print(f"folder                {sum(sizes) / 1e6:.1f} MB in {len(sizes):,} files")
        print(f"without images        {own / 1e6:.2f} MB")
        ready, loaded, sorting, read = [], [], [], []
        for _ in range(options.times):
            with started() as browser, opened(browser, index) as page:
                page.wait_for_timeout(500)
                timing = page.evaluate("performance.getEntriesByType('navigation')[0].toJSON()")
                ready.append(timing["domContentLoadedEventEnd"])
                loaded.append(timing["loadEventEnd"])
                files = {Path(url).name for url in page.requests}
                read.append(sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and p.name in files))
                sorting.append(page.evaluate(SORT))
        print(f"DOMContentLoaded      {statistics.median(ready):.0f} ms")
        print(f"load                  {statistics.median(loaded):.0f} ms")
        print(f"read until then       {statistics.median(read) / 1e6:.2f} MB")
        print(f"sorted and laid out   {statistics.median(sorting):.0f} ms")


if __name__ == "__main__":
    main()
