"""A short run of every adversarial loss on photographs, and one that is made to collapse.

    python benchmarks/adversaries.py FOLDER --lpips-weights FILE [--steps 120] [--device auto]

`photo`'s unet and damage; the adversary joins after a third of the steps, with a weight at which it has a say. "Start"
is the network before its first step, on validation pictures that are never trained on. A run whose watch speaks is
named with its words. In the last runs D has a hundred times its rate: the watch should speak, and the exit code be 3.
Prints Markdown.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
from pathlib import Path

from restore.errors import RestoreError
from restore.training.config import TrainConfig, load_train_config
from restore.training.loop import TrainCallbacks, train

GAMES = {
    "vanilla": {"adversarial": "vanilla"},
    "lsgan": {"adversarial": "lsgan"},
    "hinge": {"adversarial": "hinge", "args": {"norm": "none", "spectral_norm": True}},
    "wgan-gp": {"adversarial": "wgan-gp", "args": {"norm": "none"}, "betas": (0.0, 0.99)},
}


def settings(game: dict, folder: Path, out: Path, args: argparse.Namespace, rate: float = 1.0) -> TrainConfig:
    """`photo`, with an adversary."""
    photo = load_train_config("photo", [])
    values = photo.model_dump() | {"out": out, "device": args.device, "total_steps": args.steps, "ema": 0.99}
    values["data"] |= {"folders": [str(folder)], "batch": 8, "validation_count": 16}
    values["loss"] |= {
        "adversarial": game["adversarial"],
        "adversarial_weight": 0.002,
        "adversarial_start": args.steps // 3,
    }
    values["discriminator"] |= {"args": {"ndf": 32, **game.get("args", {})}}
    values["optimizer"] |= {"lr_discriminator": 2e-4 * rate, "betas_discriminator": game.get("betas", (0.5, 0.99))}
    values |= {"lpips_net": "squeeze", "lpips_weights": args.lpips_weights, "best_by": "last"}
    values |= {"log_every": 5, "validate_every": args.steps, "save_every": args.steps}
    return TrainConfig.model_validate(values)


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--lpips-weights", type=Path)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    columns = [
        "adversary",
        "PSNR, start → end",
        "LPIPS",
        "all finite",
        "D right, real / repaired",
        "sensitivity",
        "watch",
    ]
    print("| " + " | ".join(columns) + " |")
    print("|---|---|---|---|---|---|---|", flush=True)
    wild = {f"{name}, D's rate × 100": game for name, game in GAMES.items()}
    for name, game in (GAMES | wild).items():
        seen: list[dict[str, float]] = []
        scores: list[dict[str, float]] = []
        report = TrainCallbacks(
            logged=lambda step, total, values, seen=seen: seen.append(values),
            validated=lambda step, values, best, scores=scores: scores.append(values),
        )
        words = "silent"
        with tempfile.TemporaryDirectory() as out:
            config = settings(game, args.folder, Path(out), args, 100.0 if "×" in name else 1.0)
            try:
                train(config, report)
            except RestoreError as error:
                words = f"exit code {error.exit_code}: {error.what} ({error.hint})"
        if not seen:
            raise SystemExit(f"{name}: {words}")
        finite = all(math.isfinite(v) for values in seen for v in values.values()) and not seen[-1]["skipped"]
        psnr, lpips = (
            " → ".join(f"{one[key]:.{digits}f}" for one in (scores[0], scores[-1]) if key in one)
            for key, digits in (("psnr", 2), ("lpips", 4))
        )
        right = " / ".join(f"{seen[-1].get(f'd_accuracy_{side}', math.nan):.2f}" for side in ("real", "fake"))
        sensitive = [values["d_sensitivity"] for values in seen if "d" in values] or [math.nan]
        sensitivity = f"{statistics.median(sensitive):.2f}"
        print(
            f"| {name} | {psnr} | {lpips} | {'yes' if finite else 'NO'} | {right} | {sensitivity} | {words} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
