"""Train a small network on a folder of clean photographs, repair degraded copies with it, and score the result.

    python examples/train_and_score.py photographs/ work/ [STEPS]

With 200 steps, this takes some minutes on two CPU cores; a useful network needs thousands of steps.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def restore(*arguments: object) -> None:
    """Run the command line; stop where it fails."""
    subprocess.run([sys.executable, "-m", "restore.cli", *map(str, arguments)], check=True)


def main() -> None:
    """Train, degrade, repair, score."""
    photographs, work = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    steps = sys.argv[3] if len(sys.argv) > 3 else "200"
    small = ["model.args.widths=[16,32]", "model.args.blocks=[1,1]", "data.batch=4", "data.patch=64", "lpips_net=none"]
    run = work / "run"
    restore("train", "photo", f"data.folders=[{photographs}]", f"out={run}", f"total_steps={steps}", *small)
    restore("degrade", photographs, work / "degraded", "--damage", "noise", "--overwrite")
    restore("fix", work / "degraded" / "damaged", work / "repaired", "--model", run, "--overwrite")
    restore(
        "eval", work / "repaired", photographs, "--baseline", work / "degraded" / "damaged", "--metrics", "psnr,ssim"
    )


if __name__ == "__main__":
    main()
