"""Compares what common loops and `restore fix` do to files, with a network that changes nothing.

    python benchmarks/file_truth.py

Writes a folder of image files, runs three programs on it, each in its own process, and examines the output with Pillow,
OpenCV and LittleCMS. The loops are those of most repositories: read as RGB tensor, run the network, write under the
same name. Prints Markdown; takes half a minute.
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pyvips
import tifffile
from PIL import ExifTags, Image, ImageCms, ImageOps, PngImagePlugin, TiffImagePlugin, TiffTags
from skimage.color import deltaE_ciede2000, rgb2lab

DESCRIPTION = "Großmutter, Łódź 1938".encode()
#: A caption as IPTC-IIM has it.
CAPTION = b"\x1c\2\x78\0\x07wedding"
PROGRAMS = ("pillow", "opencv", "restore")
TITLES = {"pillow": "Pillow loop", "opencv": "OpenCV loop", "restore": "`restore fix`"}


def pillow_loop(source: Path, target: Path) -> int:
    """Image.open, convert("RGB"), save."""
    for path in sorted(source.iterdir()):
        tensor = np.asarray(Image.open(path).convert("RGB")).astype(np.float32) / 255
        Image.fromarray(np.rint(tensor * 255).astype(np.uint8)).save(target / path.name)
    return 0


def opencv_loop(source: Path, target: Path) -> int:
    """imread, imwrite."""
    for path in sorted(source.iterdir()):
        tensor = cv2.imread(str(path)).astype(np.float32) / 255
        cv2.imwrite(str(target / path.name), np.rint(tensor * 255).astype(np.uint8))
    return 0


def restore_fix(source: Path, target: Path) -> int:
    """The library call behind `restore fix`."""
    from torch import Tensor

    from restore import fix_folder
    from restore.restorers.base import ModelRequirements, Restorer

    class Identity(Restorer):
        name, purpose, requirements = "identity", "changes nothing", ModelRequirements(needs_mask=False)

        def _restore(self, image: Tensor, mask: Tensor | None) -> Tensor:
            return image

    return fix_folder(source, target, Identity()).exit_code


LOOPS: dict[str, Callable[[Path, Path], int]] = {
    "pillow": pillow_loop,
    "opencv": opencv_loop,
    "restore": restore_fix,
}


def run(program: str, source: Path, target: Path, *, limit_bytes: int = 0, dies: bool = False) -> int:
    """A program in a process of its own; its exit code. It may write no file larger than `limit_bytes`: at that size
    writing fails as on a full disk, or the system kills it.
    """
    target.mkdir()

    def prepare() -> None:
        if limit_bytes:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))

    command = [sys.executable, __file__, "--program", program, str(source), str(target)]
    command += ["--die"] if dies else []
    root = os.fspath(Path(__file__).resolve().parents[1])
    path = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH")) if part)
    env = {**os.environ, "PYTHONPATH": path, "OPENCV_LOG_LEVEL": "SILENT"}
    return subprocess.run(command, preexec_fn=prepare, env=env, stderr=subprocess.DEVNULL).returncode


def scene(height: int = 96, width: int = 128) -> np.ndarray:
    """An image that JPEG keeps well."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 250 / width, y * 250 / height, (x + y) * 250 / (width + height)], -1).astype(np.uint8)


def profile(name: str) -> bytes:
    """`p3` or `cmyk`, as libvips brings them along."""
    image = pyvips.Image.black(1, 1, bands=3).copy(interpretation="srgb").icc_transform(name)
    return bytes(image.get("icc-profile-data"))


def make(folder: Path) -> None:
    """One file per question."""
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "A maker"
    exif.get_ifd(ExifTags.IFD.Exif)[0x9003] = "2001:02:03 04:05:06"
    rgb = Image.fromarray(scene())
    rgb.save(folder / "turned.jpg", exif=exif, quality=93, subsampling=0)
    rgb.save(folder / "wide.png", icc_profile=profile("p3"))
    linear = PngImagePlugin.PngInfo()
    linear.add(b"gAMA", (100_000).to_bytes(4, "big"))
    rgb.save(folder / "linear.png", pnginfo=linear)
    cv2.imwrite(str(folder / "deep.png"), np.arange(65536, dtype=np.uint16).reshape(256, 256))
    Image.fromarray(scene()[:, :, 0]).save(folder / "gray.png")
    alpha = np.dstack([scene(), scene()[:, :, 0]])
    Image.fromarray(alpha).save(folder / "alpha.png")
    rgb.quantize(16).save(folder / "palette.png", transparency=3)
    inks = np.dstack([scene(), scene()[:, ::-1, 0] // 4])
    Image.fromarray(inks, "CMYK").save(folder / "inks.tif", icc_profile=profile("cmyk"))
    rgb.save(folder / "pages.tif", save_all=True, append_images=[rgb.rotate(180)])
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags.tagtype |= {270: TiffTags.ASCII, 33723: TiffTags.UNDEFINED}
    tags[270], tags[33723] = DESCRIPTION, CAPTION
    rgb.save(folder / "words.tif", tiffinfo=tags)
    rgb.convert("YCbCr").save(folder / "ycbcr.tif")
    tifffile.imwrite(folder / "small_first.tif", scene()[::4, ::4], photometric="rgb", subfiletype=1, metadata=None)
    tifffile.imwrite(folder / "small_first.tif", scene(), photometric="rgb", append=True, metadata=None)
    infrared = scene()[:, :, 1].astype(np.uint16) * 257
    tifffile.imwrite(folder / "dust.tif", scene(), photometric="rgb", metadata=None)
    tifffile.imwrite(folder / "dust.tif", infrared, photometric="minisblack", subfiletype=2, append=True, metadata=None)
    with tifffile.TiffFile(folder / "dust.tif", mode="r+b") as file:
        file.pages[1].tags["NewSubfileType"].overwrite(4)  # type: ignore[union-attr]
    for path in folder.iterdir():
        os.utime(path, (10**9, 10**9))


def opened(path: Path) -> Image.Image:
    """Decoded by Pillow."""
    image = Image.open(path)
    image.load()
    return image


def managed(image: Image.Image, icc: bytes | None = None) -> np.ndarray:
    """In sRGB, as a color-managed reader shows it: through the image's profile, relative colorimetric."""
    icc = icc or image.info.get("icc_profile")
    if icc is None:
        return np.asarray(image.convert("RGB"))
    shown = ImageCms.profileToProfile(
        image,
        io.BytesIO(icc),
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
    )
    assert shown is not None  # not in place
    return np.asarray(shown)


def delta_e(before: Path, after: Path) -> str:
    """The largest CIEDE2000 between two files in a color-managed reader."""
    one, other = (rgb2lab(managed(opened(path))) for path in (before, after))
    return f"{deltaE_ciede2000(one, other).max():.1f}"


def seen(path: Path) -> np.ndarray:
    """As a viewer shows it."""
    return np.asarray(ImageOps.exif_transpose(opened(path)).convert("RGB")).astype(int)


def yes(answer: bool) -> str:
    """For the table."""
    return "yes" if answer else "no"


def same_orientation(a: Path, b: Path) -> str:
    """JPEG loses a little; a turned image is far off."""
    before, after = seen(a / "turned.jpg"), seen(b / "turned.jpg")
    return yes(before.shape == after.shape and np.abs(before - after).mean() < 4)


def same_exif(a: Path, b: Path) -> str:
    """Tags of both directories."""
    exif = opened(b / "turned.jpg").getexif()
    return yes(exif.get(0x010F) == "A maker" and 0x9003 in exif.get_ifd(ExifTags.IFD.Exif))


def same_compression(a: Path, b: Path) -> str:
    """Quantisation tables and sampling factors."""
    before, after = opened(a / "turned.jpg"), opened(b / "turned.jpg")
    layers = [[part[1:3] for part in image.layer] for image in (before, after)]  # type: ignore[attr-defined]
    return yes(before.quantization == after.quantization and layers[0] == layers[1])  # type: ignore[attr-defined]


def levels(a: Path, b: Path) -> str:
    """Distinct values."""
    return f"{len(np.unique(cv2.imread(str(b / 'deep.png'), cv2.IMREAD_UNCHANGED))):,}"


def same_alpha(name: str) -> Callable[[Path, Path], str]:
    """A question about one file."""

    def check(a: Path, b: Path) -> str:
        before, after = (np.asarray(opened(folder / name).convert("RGBA"))[..., 3] for folder in (a, b))
        return yes(bool((before == after).all()))

    return check


def same_words(a: Path, b: Path) -> str:
    """A description in UTF-8, and an IPTC record."""
    data = (b / "words.tif").read_bytes()
    return yes(DESCRIPTION in data and CAPTION in data)


def same_infrared(a: Path, b: Path) -> str:
    """The second page, which is marked as a mask."""
    with tifffile.TiffFile(a / "dust.tif") as before, tifffile.TiffFile(b / "dust.tif") as after:
        pages = [file.pages[1].asarray() for file in (before, after) if len(file.pages) > 1]
        return yes(len(pages) == 2 and np.array_equal(*pages))


def deviation(name: str) -> Callable[[Path, Path], str]:
    """The largest difference from the scene, in levels; a picture of another size has none."""

    def check(a: Path, b: Path) -> str:
        after = np.asarray(opened(b / name).convert("RGB")).astype(int)
        return str(np.abs(after - scene()).max()) if after.shape == scene().shape else "another image"

    return check


QUESTIONS: tuple[tuple[str, Callable[[Path, Path], str]], ...] = (
    ("EXIF orientation 6: a person sees the same", same_orientation),
    ("EXIF (maker, date) kept", same_exif),
    ("JPEG quality and subsampling as the source's", same_compression),
    ("Display P3 profile: largest ΔE in a color-managed reader", lambda a, b: delta_e(a / "wide.png", b / "wide.png")),
    ("CMYK with a profile: largest ΔE, likewise", lambda a, b: delta_e(a / "inks.tif", b / "inks.tif")),
    ("gamma that a PNG states (gAMA) kept", lambda a, b: yes(opened(b / "linear.png").info.get("gamma") == 1.0)),
    ("levels left of a 16-bit gradient's 65,536", levels),
    ("gray stays gray", lambda a, b: yes(opened(b / "gray.png").mode == "L")),
    ("alpha kept", same_alpha("alpha.png")),
    ("transparency of a palette kept", same_alpha("palette.png")),
    ("pages left of a TIFF's 2", lambda a, b: str(getattr(opened(b / "pages.tif"), "n_frames", 1))),
    ("a TIFF's description in UTF-8, and its IPTC record, kept", same_words),
    ("a TIFF in YCbCr: largest difference, in levels", deviation("ycbcr.tif")),
    ("a TIFF whose first page is a thumbnail: largest difference, in levels", deviation("small_first.tif")),
    ("a film scanner's infrared page kept", same_infrared),
    ("modification time kept", lambda a, b: yes((b / "gray.png").stat().st_mtime == 10**9)),
)


def broken_row(program: str, work: Path) -> tuple[str, str]:
    """Nine good images and a truncated one in their middle: outputs, exit code."""
    source, target = work / "nine", work / f"nine_{program}"
    if not source.exists():
        source.mkdir()
        for number in range(10):
            Image.fromarray(scene()).save(source / f"{number}.png")
        (source / "4.png").write_bytes((source / "4.png").read_bytes()[:40])
    code = run(program, source, target)
    return str(sum(1 for path in target.glob("*.png") if path.name != "4.png")), str(code)


def torn_row(program: str, work: Path, *, dies: bool) -> tuple[str, str]:
    """The disk is full, or the program is killed, halfway through: is half an image there? And the exit code."""
    source, target = work / "large", work / f"large_{program}_{dies}"
    if not source.exists():
        source.mkdir()
        noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
        Image.fromarray(noise).save(source / "x.png")
    code = run(program, source, target, limit_bytes=100_000, dies=dies)
    return yes((target / "x.png").exists()), str(code)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", choices=PROGRAMS, help=argparse.SUPPRESS)
    parser.add_argument("--die", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("folders", nargs="*", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.program:
        if arguments.die:  # Python ignores this signal by itself
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        sys.exit(LOOPS[arguments.program](*arguments.folders))
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        make(work / "in")
        for program in PROGRAMS:
            run(program, work / "in", work / program)
        rows = [
            (question, *(check(work / "in", work / program) for program in PROGRAMS)) for question, check in QUESTIONS
        ]
        broken = [broken_row(program, work) for program in PROGRAMS]
        full, killed = ([torn_row(program, work, dies=dies) for program in PROGRAMS] for dies in (False, True))
    rows += [
        ("one broken file among ten: good ones written, of 9", *(count for count, _ in broken)),
        ("its exit code", *(code for _, code in broken)),
        ("a disk that is full halfway: half an image under the output's name", *(half for half, _ in full)),
        ("its exit code", *(code for _, code in full)),
        ("killed halfway through a file: half an image under the output's name", *(half for half, _ in killed)),
    ]
    print(f"| | {' | '.join(TITLES[program] for program in PROGRAMS)} |")
    print(f"|---|{'---|' * len(PROGRAMS)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
