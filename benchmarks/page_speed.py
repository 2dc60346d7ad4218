"""Measures how fast the page of `restore open` answers, in headless Chromium on this machine.

    python benchmarks/page_speed.py                      # some minutes on two cores
    python benchmarks/page_speed.py --detect --keep OUT  # with the detector; OUT keeps the photographs
    python benchmarks/page_speed.py --undo 10 --busy 1   # only undo on 100 megapixels, while another process computes

Photographs are synthetic: 60 small ones, one of 12 megapixels, one of 100. Times are those that a user waits, until the
browser has drawn the change. `restore open` opens the networks in the background; the times of repairs begin when they
are open.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

sys.path.insert(0, os.fspath(Path(__file__).parent.parent))

from tests.html.browser import chromium, started

SMALL = (800, 600)
LARGE = {"12 MP": (4000, 3000), "100 MP": (11_600, 8700)}

#: Frames while something happens, and the time from a pointer event to the end of the frame that draws it.
WATCH = """() => {
    const watch = window.watch = { frames: [], lags: [], on: true };
    let last = performance.now(), pending = [];
    const frame = () => {
        const now = performance.now();
        watch.frames.push(now - last);
        last = now;
        const drawn = pending;
        pending = [];
        const channel = new MessageChannel();
        channel.port1.onmessage = () => { for (const at of drawn) watch.lags.push(performance.now() - at); };
        channel.port2.postMessage(0);
        if (watch.on) requestAnimationFrame(frame);
    };
    document.getElementById("stage").addEventListener("pointermove", (event) => {
        for (const one of event.getCoalescedEvents()) pending.push(one.timeStamp);
    }, { capture: true });
    requestAnimationFrame(frame);
}"""

#: Do something, and wait until a pixel in the middle of a canvas has changed: milliseconds.
UNTIL_CHANGED = """async ([canvas, what]) => {
    const context = document.getElementById(canvas).getContext("2d");
    const pixel = () => String(context.getImageData(context.canvas.width / 2, context.canvas.height / 2, 1, 1).data);
    const before = pixel(), began = performance.now();
    document.getElementById(what).click();
    while (pixel() === before && performance.now() - began < 120_000) await new Promise(requestAnimationFrame);
    return performance.now() - began;
}"""

SLIDE = """async () => {
    const slider = document.getElementById("sensitivity"), times = [];
    for (let step = 0; step < 20; step++) {
        const began = performance.now();
        slider.value = -4 + step * 0.4;
        slider.dispatchEvent(new Event("input"));
        await new Promise((done) => requestAnimationFrame(() => {
            const channel = new MessageChannel();
            channel.port1.onmessage = done;
            channel.port2.postMessage(0);
        }));
        times.push(performance.now() - began);
    }
    return Math.max(...times);
}"""


def photograph(width: int, height: int, seed: int) -> np.ndarray:
    """Smooth fields with noise, and scratches."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (12, 16, 3)).astype(np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    noise = random.integers(0, 16, (512, 512, 1), np.uint8)
    image = cv2.add(image, np.tile(noise, (-(-height // 512), -(-width // 512), 3))[:height, :width])
    for _ in range(8):
        ends = random.integers(0, (width, height), (2, 2)).tolist()
        cv2.line(image, ends[0], ends[1], (250, 250, 250), max(width // 1000, 2), cv2.LINE_AA)
    return image


def write_photographs(folder: Path) -> None:
    """Write all photographs."""
    for number in range(60):
        cv2.imwrite(os.fspath(folder / f"{number:02d}.jpg"), photograph(*SMALL, number))
    for name, size in LARGE.items():
        cv2.imwrite(os.fspath(folder / f"z {name}.jpg"), photograph(*size, 100))


@contextlib.contextmanager
def opened(folder: Path, work: Path) -> Iterator[str]:
    """The server of `restore open` as its own process; its address."""
    command = [
        sys.executable,
        "-m",
        "restore.cli",
        "open",
        os.fspath(folder),
        "--no-browser",
        "--work",
        os.fspath(work),
    ]
    with subprocess.Popen(command, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if found := re.search(r"http://\S+", line):
                    yield found[0]
                    break
            else:
                raise RuntimeError("the server did not start")
        finally:
            process.terminate()
            process.wait(60)


def wait_for(page: Any, expression: str, seconds: float = 300) -> None:
    """Wait until an expression is true."""
    deadline = time.monotonic() + seconds
    while not page.evaluate(expression):
        if time.monotonic() > deadline:
            raise TimeoutError(expression)
        page.wait_for_timeout(20)


def open_photograph(page: Any, name: str) -> float:
    """Click its card; seconds until the editor shows it."""
    page.fill("#filter", name)
    began = time.monotonic()
    page.click("#cards button")
    wait_for(page, "!document.getElementById('find').disabled")
    wait_for(page, "document.getElementById('ground').getContext('2d').getImageData(300, 300, 1, 1).data[3] > 0")
    return time.monotonic() - began


def tell(what: str, value: str) -> None:
    """Print a row."""
    print(f"| {what} | {value} |", flush=True)


def stroke(page: Any) -> tuple[list[float], list[float]]:
    """Paint for some seconds; frame times and lags in milliseconds."""
    box = page.locator("#stage").bounding_box()
    page.evaluate(WATCH)
    page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + box["height"] * 0.3)
    page.mouse.down()
    for step in range(250):
        page.mouse.move(
            box["x"] + box["width"] * (0.2 + step * 0.0024), box["y"] + box["height"] * (0.3 + step % 40 / 100)
        )
    watch = page.evaluate("(window.watch.on = false, window.watch)")
    page.mouse.up()
    return watch["frames"][2:], watch["lags"]


def tell_stroke(page: Any, where: str) -> None:
    """Print frame times and lags of a stroke."""
    frames, lags = stroke(page)
    frames.sort()
    lags.sort()
    share = lambda values, part: values[min(int(len(values) * part), len(values) - 1)]  # noqa: E731
    tell(
        f"stroke, {where}: frame, median / 95 % / longest",
        f"{statistics.median(frames):.1f} / {share(frames, 0.95):.1f} / {frames[-1]:.1f} ms",
    )
    tell(
        f"stroke, {where}: behind the pointer, median / 95 % / longest",
        f"{statistics.median(lags):.1f} / {share(lags, 0.95):.1f} / {lags[-1]:.1f} ms",
    )


def measure(folder: Path, work: Path, *, detect: bool) -> None:
    """Print the table."""
    print("| | |\n|---|---|")
    with started() as browser:
        context = browser.new_context(viewport={"width": 1280, "height": 860})
        page = context.new_page()
        began = time.monotonic()
        with opened(folder, work) as address:
            tell("command to server", f"{time.monotonic() - began:.2f} s")
            page.goto(address)
            wait_for(page, "[...document.querySelectorAll('#cards img')].some((image) => image.naturalWidth > 0)")
            tell("command to first thumbnail", f"{time.monotonic() - began:.2f} s")
            wait_for(
                page, "[...document.querySelectorAll('#cards img[src]')].filter((i) => i.naturalWidth > 0).length > 20"
            )
            # Until the models are open: their job is of no file.
            page.wait_for_timeout(1000)

            tell("12 MP: open", f"{open_photograph(page, '12 MP'):.2f} s")
            page.wait_for_timeout(2000)
            tell_stroke(page, "12 MP, whole")
            page.wait_for_timeout(1500)
            page.keyboard.press("1")
            page.wait_for_timeout(1500)
            tell_stroke(page, "12 MP, at 100 %")
            page.click("#clear")
            page.wait_for_timeout(1000)
            for attempt in ("first, opens the model", "then"):
                page.evaluate(
                    "const size = document.getElementById('size'); size.value = 100 * Math.log(100) / Math.log(2000);"
                    " size.dispatchEvent(new Event('input'));"
                )
                box = page.locator("#stage").bounding_box()
                page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
                page.wait_for_timeout(800)
                began = time.monotonic()
                milliseconds = page.evaluate(UNTIL_CHANGED, ["ground", "repair"])
                tell(f"12 MP: hole of 100×100 filled and shown ({attempt})", f"{milliseconds / 1000:.2f} s")
                wait_for(
                    page, "document.getElementById('work').hidden && !document.getElementById('result-panel').hidden"
                )
                tell("12 MP: the whole photograph repaired", f"{time.monotonic() - began:.2f} s")
                page.wait_for_timeout(1500)
                page.click("[data-side=original]")
                page.click("#undo")
                page.wait_for_timeout(1500)
            if detect:
                began = time.monotonic()
                page.keyboard.press("0")
                page.click("#find")
                wait_for(page, "!document.getElementById('found-panel').hidden", 900)
                tell("12 MP: find damage", f"{time.monotonic() - began:.1f} s")
                page.wait_for_timeout(1500)
                tell("12 MP: slider of sensitivity, longest", f"{page.evaluate(SLIDE):.1f} ms")

            page.click("#back")
            tell("100 MP: open", f"{open_photograph(page, '100 MP'):.2f} s")
            page.wait_for_timeout(2000)
            tell_stroke(page, "100 MP, whole")
            page.wait_for_timeout(1500)
            page.keyboard.press("x")
            page.keyboard.press("x")
            tell_undo(page, 3)
        context.close()


def tell_undo(page: Any, times: int) -> None:
    """Invert the mask of the open photograph, undo and redo that several times; the median time until it is shown."""
    taken: dict[str, list[float]] = {"invert": [], "undo": [], "redo": []}
    for _ in range(times):
        for what in ("invert", "undo", "redo", "undo"):
            taken[what].append(page.evaluate(UNTIL_CHANGED, ["marks", what]))
            page.wait_for_timeout(1500)
    for what, name in (("invert", "invert the mask"), ("undo", "undo that"), ("redo", "redo it")):
        tell(
            f"100 MP: {name}, shown: median / longest of {len(taken[what])}",
            f"{statistics.median(taken[what]):.0f} / {max(taken[what]):.0f} ms"
            f" ({' '.join(f'{milliseconds:.0f}' for milliseconds in taken[what])})",
        )


def measure_undo(folder: Path, work: Path, times: int) -> None:
    """Print only how fast undo is shown on the largest photograph."""
    print("| | |\n|---|---|")
    with started() as browser, opened(folder, work) as address:
        page = browser.new_context(viewport={"width": 1280, "height": 860}).new_page()
        page.goto(address)
        wait_for(page, "document.querySelectorAll('#cards button').length > 0")
        open_photograph(page, "100 MP")
        page.wait_for_timeout(3000)
        stroke(page)
        page.wait_for_timeout(1500)
        tell_undo(page, times)


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """Other processes that compute."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detect", action="store_true", help="also run the detector on 12 megapixels")
    parser.add_argument("--keep", type=Path, help="folder for the photographs; they are made if it is missing")
    parser.add_argument("--undo", type=int, metavar="N", help="measure only undo on 100 megapixels, N times")
    parser.add_argument("--busy", type=int, default=0, metavar="N", help="processes that compute meanwhile")
    arguments = parser.parse_args()
    if chromium() is None:
        parser.error("no Chromium here")
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary) / "photographs"
        if not folder.exists():
            folder.mkdir(parents=True)
            write_photographs(folder)
        with busy(arguments.busy):
            if arguments.undo:
                measure_undo(folder, Path(temporary) / "work", arguments.undo)
            else:
                measure(folder, Path(temporary) / "work", detect=arguments.detect)


if __name__ == "__main__":
    main()
