"""Trains briefly with every adversarial loss, and again with settings that should make each of them collapse.

    python benchmarks/adversaries.py FOLDER --lpips-weights FILE [--steps 120] [--device auto]

The network and degradation are those of `photo`. The discriminator D joins after a third of the steps. "Start" is the
network before its first step. Scores are those of validation images that are not trained on. In the last runs, D has
100 times its learning rate, and the collapse monitor should stop them with exit code 3. Prints Markdown.
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

ADVERSARIES = {
    "vanilla": {"adversarial": "vanilla"},
    "lsgan": {"adversarial": "lsgan"},
    "hinge": {"adversarial": "hinge", "args": {"norm": "none", "spectral_norm": True}},
    "wgan-gp": {"adversarial": "wgan-gp", "args": {"norm": "none"}, "betas": (0.0, 0.99)},
}


def settings(adversary: dict, folder: Path, out: Path, args: argparse.Namespace, rate: float = 1.0) -> TrainConfig:
    """The config of `photo`, with an adversary."""
    photo = load_train_config("photo", [])
    values = photo.model_dump() | {"out": out, "device": args.device, "total_steps": args.steps, "ema": 0.99}
    values["data"] |= {"folders": [str(folder)], "batch": 8, "validation_count": 16}
    values["loss"] |= {
        "adversarial": adversary["adversarial"],
        "adversarial_weight": 0.002,
        "adversarial_start": args.steps // 3,
    }
    values["discriminator"] |= {"args": {"ndf": 32, **adversary.get("args", {})}}
    values["optimizer"] |= {"lr_discriminator": 2e-4 * rate, "betas_discriminator": adversary.get("betas", (0.5, 0.99))}
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
        "accuracy of D, real / repaired",
        "sensitivity",
        "collapse monitor",
    ]
    print("| " + " | ".join(columns) + " |")
    print("|---|---|---|---|---|---|---|", flush=True)
    unstable = {f"{name}, D's rate × 100": adversary for name, adversary in ADVERSARIES.items()}
    for name, adversary in (ADVERSARIES | unstable).items():
        seen: list[dict[str, float]] = []
        scores: list[dict[str, float]] = []
        report = TrainCallbacks(
            logged=lambda step, total, values, seen=seen: seen.append(values),
            validated=lambda step, values, best, scores=scores: scores.append(values),
        )
        outcome = "no collapse"
        with tempfile.TemporaryDirectory() as out:
            config = settings(adversary, args.folder, Path(out), args, 100.0 if "×" in name else 1.0)
            try:
                train(config, report)
            except RestoreError as error:
                outcome = f"exit code {error.exit_code}: {error.what} ({error.hint})"
        if not seen:
            raise SystemExit(f"{name}: {outcome}")
        finite = all(math.isfinite(v) for values in seen for v in values.values()) and not seen[-1]["skipped"]
        psnr, lpips = (
            " → ".join(f"{one[key]:.{digits}f}" for one in (scores[0], scores[-1]) if key in one)
            for key, digits in (("psnr", 2), ("lpips", 4))
        )
        accuracy = " / ".join(f"{seen[-1].get(f'd_accuracy_{side}', math.nan):.2f}" for side in ("real", "fake"))
        sensitive = [values["d_sensitivity"] for values in seen if "d" in values] or [math.nan]
        sensitivity = f"{statistics.median(sensitive):.2f}"
        print(
            f"| {name} | {psnr} | {lpips} | {'yes' if finite else 'NO'} | {accuracy} | {sensitivity} | {outcome} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
