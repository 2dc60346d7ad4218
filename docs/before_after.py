"""Draw `docs/before_after.jpg`, the image at the top of the README: degraded and repaired by this package.

    python docs/before_after.py

The photograph is scikit-image's astronaut (NASA, public domain). The left pair is repaired by `--masks auto`, without
any help. The right pair is repaired with the exact mask of its damage.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from skimage import data

PANEL_PX = 400
PRINT = """
steps:
  - {name: grayscale, weight_jitter: [0.1, 0.3]}
  - {name: noise, sigma: [4, 6], correlation: [0.5, 0.8], gray: 1.0}
  - {name: fade}
  - {name: fold}
  - {name: crack, count: [3, 5]}
  - {name: scratch, count: [6, 10], width: [1.0, 2.2], length: [120, 600]}
  - {name: hair, count: [2, 4]}
  - {name: dust, count: [80, 160]}
  - {name: quantize}
"""


def restore(*arguments: object) -> None:
    """Run the command line; stop where it fails."""
    subprocess.run([sys.executable, "-m", "restore.cli", *map(str, arguments)], check=True)


def main() -> None:
    """Degrade the photograph twice, repair it both ways, and put the four panels side by side."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / "clean").mkdir()
        Image.fromarray(data.astronaut()).save(work / "clean" / "astronaut.png")
        (work / "print.yaml").write_text(PRINT)
        panels = []
        for seed, options in (
            (1, ["--masks", "auto"]),
            (2, ["--masks", work / "2/masks", "--mask-dilate", 1, "--clean-up"]),
        ):
            degraded, repaired = work / str(seed) / "damaged", work / str(seed) / "repaired"
            restore("degrade", work / "clean", work / str(seed), "--damage", work / "print.yaml", "--seed", seed)
            restore("fix", degraded, repaired, "--correct-fading", *options)
            panels += [degraded / "astronaut.png", repaired / "astronaut.png"]
        sheet = Image.new("RGB", (PANEL_PX * len(panels), PANEL_PX))
        for number, path in enumerate(panels):
            with Image.open(path) as image:
                panel = image.convert("RGB").resize((PANEL_PX, PANEL_PX), Image.Resampling.LANCZOS)
            sheet.paste(panel, (number * PANEL_PX, 0))
        sheet.save(Path(__file__).with_name("before_after.jpg"), quality=85, subsampling=0)


if __name__ == "__main__":
    main()
