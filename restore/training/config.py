"""The training config: every key, its range and its default.

The docstring below a key is its description in the JSON schema (`restore train --schema`).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from restore.config import Settings, find_config, load, message_of
from restore.data.config import DataConfig
from restore.degradations.pipeline import rename_old_step_keys
from restore.errors import RestoreError
from restore.training.config_checks import check_consistency
from restore.training.network_config import DiscriminatorConfig, ModelConfig
from restore.training.stage_config import Stage

Beta = Annotated[float, Field(ge=0, lt=1)]

_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)min)?(?:(\d+(?:\.\d+)?)s)?")
_UNITS = (86400, 3600, 60, 1)


class LossConfig(Settings):
    """The loss of the generator: a weighted sum of terms.

    Pixel losses compare values in [0, 1], everything that D sees is in [-1, 1]. A pixel weight that was published for
    values in [-1, 1] has to be doubled.
    """

    RENAMED: ClassVar[dict[str, str]] = {"r1_every": "r1_interval"}

    pixel: Literal["l1", "charbonnier"] = "l1"
    """Pixel loss between output and clean image. charbonnier equals l1, but is smooth at zero. pix2pix uses l1."""
    pixel_weight: float = Field(1.0, ge=0)
    """Weight of the pixel loss, on values in [0, 1]. Raise it if the discriminator makes the generator invent detail.
    pix2pix's λ of 100, on values in [-1, 1], is 200 here.
    """
    hole_weight: float = Field(1.0, gt=0)
    """Weight of a pixel in the hole, relative to a pixel outside. With .inf only the hole counts: right for inpainting,
    where pixels outside the hole are copied from the input. With 20, the zero error outside kept a network at its
    initial output for a thousand steps.
    """
    gradient: float = Field(0.0, ge=0)
    """Weight of the L1 distance between gradients of output and clean image, for sharper edges. Try 0.5 × pixel_weight.
    0: off.
    """
    frequency: float = Field(0.0, ge=0)
    """Weight of the L1 distance between the Fourier transforms of output and clean image, for texture and against
    periodic patterns. MIMO-UNet uses 0.1 beside L1 with weight 1, on patches of 256 px. 0: off.
    """
    ms_ssim: float = Field(0.0, ge=0)
    """Weight of 1 - MS-SSIM, for local contrast. Zhao et al. use 0.84 beside L1 with pixel_weight 0.16. 0: off."""
    adversarial: Literal["none", "vanilla", "lsgan", "hinge", "wgan-gp"] = "none"
    """Adversarial loss. hinge with spectral norm is the most stable; vanilla is what pix2pix uses; lsgan has smaller
    gradients if D is too strong; wgan-gp is for when the others collapse: it is slower, and D must not use batch norm.
    """
    adversarial_weight: float = Field(0.01, ge=0)
    """Weight of the adversarial loss of G. Raise it for more texture, lower it if G invents detail. pix2pix uses 1 with
    pixel_weight 200.
    """
    adversarial_start: int = Field(0, ge=0)
    """Train G for N steps without D, so that D starts with plausible images."""
    gradient_penalty: float = Field(10.0, ge=0)
    """Weight of the gradient penalty of wgan-gp, on the gradient by D's input in [-1, 1], as in the paper. The paper's
    value, 10, rarely needs a change.
    """
    r1: float = Field(0.0, ge=0)
    """Weight of the R1 penalty: γ in γ/2 ‖∇D‖², by D's input in [-1, 1], as published. Try 1 to 10 if D's logits grow.
    0: off.
    """
    r1_interval: int = Field(16, ge=1)
    """Apply R1 every N steps, scaled by N (lazy regularization). Saves time. 1: at every step."""
    feature_matching: float = Field(0.0, ge=0)
    """Weight of the feature matching loss between D's activations for restored and clean images, the mean over D's
    layers. Stabilizes training; try 10 × adversarial_weight. pix2pixHD's 10 is on the sum over four layers, so it is
    40 × adversarial_weight here. 0: off.
    """
    perceptual: Literal["none", "lpips", "features"] = "none"
    """Perceptual loss: a distance between features of an image classifier, for texture instead of blur. lpips has
    learned weights; features is the unweighted L1 distance.
    """
    perceptual_weight: float = Field(0.1, ge=0)
    """Weight of the perceptual loss. Raise it for more texture, lower it if patterns appear that the image lacks."""
    perceptual_net: Literal["alex", "vgg", "squeeze"] = "vgg"
    """Backbone of the perceptual loss. Validate with a different one (`lpips_net`)."""
    perceptual_weights: Path | None = None
    """File with the ImageNet weights of `perceptual_net`, for machines that cannot download them. null: download."""
    cycle: float = Field(10.0, ge=0)
    """Unpaired only: weight of the L1 distance between an image and what comes back from the other kind, on values in
    [-1, 1], as published. Lower it to let outputs differ more from their inputs. CycleGAN uses 10.
    """
    identity: float = Field(0.5, ge=0)
    """Unpaired only: weight of the L1 distance between an image of the target kind and the generator's output for it,
    relative to `cycle`. It keeps colors, and clean images clean. CycleGAN uses 0.5. 0: off.
    """
    supervised: float = Field(10.0, ge=0)
    """Unpaired only, with `damage`: weight of the L1 distance between an image of B and what the generator makes of it
    once `damage` has degraded it, on values in [-1, 1]. Raise it if drawn damage is like that of A.
    """
    contrastive: float = Field(1.0, gt=0)
    """One-sided only: weight of the contrastive loss (PatchNCE), by which patches of an output resemble those of the
    input at the same place. Lower it to let outputs differ more from their inputs. CUT uses 1, FastCUT 10.
    """
    contrastive_identity: float = Field(1.0, ge=0)
    """One-sided only: weight of the same loss on images of B, which should stay as they are. It keeps colors, and clean
    images clean. CUT uses 1, FastCUT 0, which saves time.
    """
    contrastive_flip: bool = False
    """One-sided only: compare half of the outputs with their mirrored inputs, mirrored back, as FastCUT does."""
    positive_weight: float = Field(3.0, gt=0)
    """Detection only: weight of a damaged pixel in the cross-entropy, relative to an intact one. Raise it if damage is
    missed, lower it if intact pixels are detected.
    """
    dice_weight: float = Field(1.0, ge=0)
    """Detection only: weight of the Dice loss, added to the cross-entropy. Raise it for small damage. 0: off."""


class OptimizerConfig(Settings):
    """The optimizers of both networks: AdamW, and on request another for G."""

    kind: Literal["adamw", "muon", "schedule-free"] = "adamw"
    """Optimizer of G; D always has AdamW. muon: Muon for the kernels of convolutions, and AdamW for all else; try it if
    steps are expensive, because it needs fewer. It needs PyTorch 2.9, and fp32 or bf16. schedule-free: AdamW without a
    schedule, whose averaged weights take the place of `ema`; for runs of unknown length. It needs the extra
    `schedule-free`, and a higher rate than AdamW.
    """
    lr_kernels: float = Field(0.01, gt=0)
    """Peak learning rate of Muon, with `kind: muon`. Lower it if the loss jumps."""
    lr: float = Field(2e-4, gt=0)
    """Peak learning rate of G. Lower it if the loss jumps or steps are skipped."""
    lr_discriminator: float | None = Field(None, gt=0)
    """Peak learning rate of D. Raise it above G's (TTUR) if D is too weak. null: same as G."""
    betas: tuple[Beta, Beta] = (0.9, 0.99)
    """Adam's β₁ and β₂ for G. Lower β₁ if adversarial training oscillates. pix2pix uses [0.5, 0.999]."""
    betas_discriminator: tuple[Beta, Beta] | None = None
    """Adam's β₁ and β₂ for D. null: same as G. [0, 0.99] suits wgan-gp; its paper uses [0, 0.9] for both networks."""
    weight_decay: float = Field(0.0, ge=0)
    """Weight decay for both networks, against overfitting on few images. 0: off."""
    clip_norm: float | None = Field(None, gt=0)
    """Clip the gradient norm of G to this value, against outlier batches. null: no clipping."""
    clip_norm_discriminator: float | None = Field(None, gt=0)
    """Clip the gradient norm of D to this value, against outlier batches. null: no clipping."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """Learning rate schedule. cosine decays to zero and is best for a fixed number of steps; linear is constant for the
    first half and then decays, as in pix2pix; constant is for open-ended runs.
    """
    warmup_steps: int = Field(0, ge=0)
    """Raise the learning rate linearly from zero over N steps; for high rates. Runs that start from `init` use 100 if
    this is 0.
    """


class CollapseConfig(Settings):
    """Limits beyond which a run is stopped because it diverged. Counts are log lines, except `max_nonfinite_steps`."""

    RENAMED: ClassVar[dict[str, str]] = {
        "nonfinite_steps": "max_nonfinite_steps",
        "diversity": "min_diversity",
        "pixel_rise": "max_pixel_loss_ratio",
        "growth": "max_d_growth",
        "blind": "min_d_sensitivity",
        "slope": "max_gradient_penalty",
        "logits": "max_logit",
    }

    max_nonfinite_steps: int = Field(20, ge=1)
    """Stop after N consecutive steps whose gradient contains NaN or Inf (each is skipped). fp16 skips some at the
    start.
    """
    patience: int = Field(5, ge=1)
    """Stop after N consecutive log lines beyond a limit. Raise it if runs recover by themselves."""
    min_diversity: float = Field(0.1, ge=0, lt=1)
    """Stop if outputs for different inputs differ by less than this fraction of how much the clean images differ. Lower
    it if restored images should look alike. 0: off.
    """
    max_pixel_loss_ratio: float = Field(4.0, ge=0)
    """Stop if the pixel loss exceeds this multiple of its lowest value since D joined. Raise it to give the adversarial
    loss more room. 0: off.
    """
    max_d_growth: float = Field(1.25, ge=0)
    """Stop if the norm of D's filters grows by more than this factor within 200 steps, faster than G can follow. Those
    under spectral norm do not count. 0: off. Measured: 1.00 to 1.06 at usual learning rates, 1.3 to 27 at 100 times D's
    usual rate.
    """
    min_d_sensitivity: float = Field(0.1, ge=0, lt=1)
    """Stop if D's sensitivity, as the median of `patience` log lines, is lower: D then gives the same output for any
    image. 0: off. Measured: 0.2 and more at usual learning rates, 0.01 to 0.1 at 100 times D's usual rate.
    """
    max_gradient_penalty: float = Field(10.0, ge=0)
    """Stop if the gradient penalty of wgan-gp, before its weight, is higher. 0: off. Healthy: below 1."""
    max_logit: float = Field(200.0, ge=0)
    """Stop if D's mean logits exceed this value (not with wgan-gp, whose outputs have no scale). Raise it if G still
    improves. 0: off.
    """


class ResumeConfig(Settings):
    """What may change when a run resumes."""

    allow: tuple[str, ...] = ()
    """Keys that may have other values than in the run so far, although they decide what it learns: `[data.batch,
    data.patch]`. Rates, schedule, length, validation, logging and limits may change without being named here.
    """

    @field_validator("allow", mode="before")
    @classmethod
    def _from_one_key(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class TrackerConfig(Settings):
    """A tracker: a program that collects the values of runs."""

    kind: Literal["wandb", "mlflow", "aim"]
    """Which tracker. Each needs the extra of its name."""
    project: str | None = None
    """Project or experiment that the run belongs to. null: WANDB_PROJECT or MLFLOW_EXPERIMENT_NAME, else `restore`."""
    name: str | None = None
    """Name of the run. null: WANDB_NAME or MLFLOW_RUN_NAME, else the name of the run's folder."""
    url: str | None = None
    """Server, database or repository. null: WANDB_BASE_URL or MLFLOW_TRACKING_URI, else wandb's own server; mlflow and
    aim write into the run's folder.
    """


class TrainConfig(Settings):
    """A training run."""

    RENAMED: ClassVar[dict[str, str]] = {
        "target": "task",
        "watch": "collapse",
        "accumulate": "grad_accumulation",
        "keep": "keep_checkpoints",
    }
    RENAMED_VALUES: ClassVar[dict[str, dict[str, str]]] = {"task": {"picture": "restoration", "mask": "detection"}}

    out: Path | None = None
    """Folder of the run. Use a new folder to start from scratch instead of resuming. null: runs/<config name>."""
    seed: int = Field(0, ge=0)
    """Seed of all randomness. Change it to repeat a run with different random numbers."""
    total_steps: int = Field(..., ge=1)
    """Steps of the whole run, each on `data.batch` crops. Raise it to continue a finished run."""
    budget: str | None = None
    """Time that the run may take on this machine, start to end: 10min, 2h, 1h30min. Its first steps are measured, and
    `total_steps`, the starts of the stages and `loss.adversarial_start` are stretched or shortened together, so that
    the schedule ends in time. Warm-up, validation and saving keep their steps. null: `total_steps` decides.
    """
    init: str | None = None
    """Start from these weights with a new optimizer, to save time or to fine-tune: the name of a model, a weights file,
    the folder of a run (its best weights), a run's `last/` (its averaged weights), a `.pth` or `.ckpt` with the state
    dict of this network, or a pix2pix `*_net_G.pth`. null: random weights.
    """
    init_strict: bool = True
    """Refuse weights of `init` and `discriminator.init` that do not fit in full. false: also take weights of other
    networks and projects. Those whose names and shapes fit are used, or those whose order and shapes fit if the names
    differ. The rest is drawn at random, and a line says what did not fit.
    """
    task: Literal["restoration", "detection", "unpaired", "one-sided", "generation"] = "restoration"
    """What the network learns. restoration: the clean image. detection: the mask of the damage, from the damaged image
    alone, for `restore detect`. Detection needs undamaged images in training (`clean_probability`), or the detector
    reports damage everywhere. unpaired: to translate images of `data.a` into images like those of `data.b`, and back
    (CycleGAN), where no clean twin of a damaged image exists. one-sided: likewise from `data.a` to `data.b` alone, by a
    contrast of patches (CUT), in less time and memory. generation: to draw images like those in `data.folders`
    from noise, for `restore sample`.
    """
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda, cuda:N or mps. Set it to choose among GPUs. cuda without a number uses
    `devices` GPUs.
    """
    devices: int = Field(1, ge=1)
    """GPUs per machine (or processes, on a CPU) that share each batch."""
    nodes: int = Field(1, ge=1)
    """Machines that share each batch. Start the command on each of them with torchrun or srun."""
    timeout_minutes: float = Field(10.0, gt=0)
    """With several processes: end the run if one does not arrive at the start, or does not answer later, within this
    time. Raise it if machines start at very different times.
    """
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = "auto"
    """Number format of the networks. Use fp32 if steps are skipped or results are compared. tf32: float32 with fast
    matrix products, on NVIDIA GPUs. auto: on a GPU bf16 if it is fast at it, fp16 on other NVIDIA GPUs, else fp32; on a
    CPU fp32 or bf16, by timing both when the run begins.
    """
    threads: int | None = Field(None, ge=1)
    """Threads of the networks on a CPU. null: OMP_NUM_THREADS; without it, one for each processor that other programs
    leave idle when the run begins, at least half of all. Set it, and `precision`, to repeat a run bit for bit.
    """
    data: DataConfig
    """Training images, and how crops are taken from them. Set this first."""
    damage: str | list[Any] | dict[str, Any] | None = None
    """How clean images are degraded: the name of a damage config, a file, a folder of masks (with a slash in its path),
    or the steps. Required with `data.folders`, unless `data.masks` is set; must be null with real pairs, which are
    already damaged. With `task: unpaired`, images of `data.b` are degraded, and G also learns from these pairs
    (`loss.supervised`). With `model.builder: enlarge`, images are made smaller first, by bicubic filtering as in
    Pillow; null: only that.
    """
    model: ModelConfig = ModelConfig()
    """The generator, which restores images. Change it for a larger or smaller network, or one without a mask."""
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    """The discriminator, used if `loss.adversarial` is set. Change it if it is too weak or too strong."""
    loss: LossConfig = LossConfig()
    """Loss of the generator. Change it to trade fidelity for texture."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """Learning rates and schedule. Change them if the loss jumps or does not fall."""
    collapse: CollapseConfig = CollapseConfig()
    """When to stop a run that diverged. Change it if a healthy run is stopped."""
    grad_accumulation: int = Field(1, ge=1)
    """Split each batch into N parts and accumulate their gradients, for batches that do not fit in memory."""
    compile: bool = False
    """Compile both networks with torch.compile: a start of minutes, then faster steps on a GPU."""
    cuda_graph: bool = True
    """On a single GPU, record each step as a CUDA graph. Small steps are several times faster, and equal up to
    rounding. Set it to false if memory is short.
    """
    ema: float = Field(0.999, ge=0, lt=1)
    """Decay per step of the exponential moving average of the weights, which is validated and exported. Lower it for
    short runs. 0: use the latest weights.
    """
    best_by: Literal["psnr", "ssim", "lpips", "f1", "fid", "kid", "last"] = "psnr"
    """Validation score that selects `best.safetensors`; f1 for detection. last: the latest weights, for adversarial
    training, which lowers PSNR while images look better.
    """
    lpips_net: Literal["none", "alex", "vgg", "squeeze"] = "alex"
    """Backbone of LPIPS in validation; choose a different one from the loss. none: no LPIPS, which saves its time and
    download.
    """
    lpips_weights: Path | None = None
    """File with the ImageNet weights of `lpips_net`, for machines that cannot download them. null: download."""
    sample_scores: bool = False
    """Generation only: score samples against the validation images: FID, KID, Inception Score, precision, recall, and
    with `lpips_net` their LPIPS diversity. It needs the extra `fid`.
    """
    fid_weights: Path | None = None
    """File with the weights of Inception v3, for machines that cannot download them. null: download."""
    log_every: int = Field(20, ge=1)
    """Steps between log lines; `collapse` is checked at each. Lower it to see more of a short run."""
    validate_every: int = Field(500, ge=1)
    """Steps between validations, at which `best.safetensors` is chosen. Raise it if scoring is slow."""
    early_stop: int | None = Field(None, ge=1)
    """Stop after N consecutive validations without a better `best_by` score. null: never."""
    save_every: int = Field(500, ge=1)
    """Steps between saved states. A crash loses at most this many; Ctrl-C saves first."""
    keep_checkpoints: int = Field(0, ge=0)
    """Keep the N states before the last in checkpoints/. Each can be resumed from or exported, and takes as much disk
    space as last/.
    """
    trackers: tuple[TrackerConfig, ...] = ()
    """Trackers that get all values of `metrics.jsonl`: `[wandb]`, `[mlflow]`, `[aim]`, or with options `[{kind: wandb,
    project: scans, name: first}]`; also `url`. TensorBoard's logs are always written if it is installed.
    """

    stages: tuple[Stage, ...] = ()
    """Keys that take other values from some step on: `[{start: 1000, data: {patch: 192, batch: 4}, optimizer: {lr:
    1e-4}}]`. A stage keeps the values of the one before, except those that it sets. For patches that grow, and for
    fine-tuning.
    """
    resume: ResumeConfig = ResumeConfig()
    """What may change when a run resumes. Change it to continue a run with, for example, another batch or patch."""

    @field_validator("trackers", mode="before")
    @classmethod
    def _trackers_from_names(cls, value: Any) -> Any:
        listed = [value] if isinstance(value, (str, dict)) else value
        if isinstance(listed, (list, tuple)):
            return [{"kind": one} if isinstance(one, str) else one for one in listed]
        return listed

    @field_validator("trackers")
    @classmethod
    def _each_tracker_once(cls, trackers: tuple[TrackerConfig, ...]) -> tuple[TrackerConfig, ...]:
        if len({tracker.kind for tracker in trackers}) < len(trackers):
            raise ValueError("each kind of tracker can be used once")
        return trackers

    @field_validator("budget", mode="before")
    @classmethod
    def _duration(cls, value: Any) -> Any:
        if isinstance(value, str) and not _seconds_of(value):
            raise ValueError("is not a time such as 10min, 2h or 1h30min")
        return value

    @property
    def budget_seconds(self) -> float | None:
        """`budget` in seconds."""
        return None if self.budget is None else _seconds_of(self.budget)

    @field_validator("damage", mode="before")
    @classmethod
    def _with_current_step_keys(cls, damage: Any) -> Any:
        return rename_old_step_keys(damage, where="damage")

    @model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        check_consistency(self)
        return self

    def stage_configs(self) -> list[TrainConfig]:
        """The config before the first stage, and in each stage; without stages themselves.

        Raises:
            ValueError: a stage sets a value that is not allowed.
        """
        values = self.model_dump() | {"stages": ()}
        configs = [self.model_copy(update={"stages": ()})]
        for number, stage in enumerate(self.stages):
            values = stage.applied_to(values)
            try:
                configs.append(TrainConfig.model_validate(values))
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(["stages", str(number), *map(str, first["loc"])])
                raise ValueError(f"{where}: {message_of(first)}") from error
        return configs


def _seconds_of(duration: str) -> float:
    """A time such as 1h30min in seconds; 0 if it is not one."""
    found = _DURATION.fullmatch(duration.replace(" ", ""))
    return 0.0 if found is None else sum(float(n or 0) * unit for n, unit in zip(found.groups(), _UNITS))


def load_train_config(name_or_path: str, overrides: list[str]) -> TrainConfig:
    """Load a training config by name or path. `out` defaults to `runs/<config name>`.

    Args:
        name_or_path: the name of a shipped config, or a YAML file.
        overrides: `key=value` each. An override of `data.folders`, of `data.input` and `data.target`, or of
            `data.side_by_side`, or of `data.a` and `data.b` replaces whichever of these sources the config has.

    Raises:
        RestoreError: no such config, an unknown key, a value out of range.
    """
    keys = {override.partition("=")[0] for override in overrides if not override.endswith("=null")}
    if {"budget", "total_steps"} <= keys:
        raise RestoreError(
            "cannot be given together with a budget, which decides how many steps there are",
            where="total_steps",
            hint="leave out one of the two",
        )
    path = find_config(name_or_path, "train")
    config = load(TrainConfig, path, [*_without_other_sources(overrides), *overrides])
    return config if config.out is not None else config.model_copy(update={"out": Path("runs") / path.stem})


_SOURCES = (("data.folders",), ("data.input", "data.target"), ("data.side_by_side",), ("data.a", "data.b"))
_LISTS = ("data.folders", "data.a", "data.b")


def _without_other_sources(overrides: list[str]) -> list[str]:
    """Overrides that unset the sources of data that `overrides` does not name; empty if it names none or several."""
    values = dict(override.partition("=")[::2] for override in overrides)
    named = [source for source in _SOURCES if any(values.get(key, "null") not in ("null", "", "[]") for key in source)]
    if len(named) != 1:
        return []
    unset = [f"{key}={'[]' if key in _LISTS else 'null'}" for s in _SOURCES if s not in named for key in s]
    # Real pairs are already damaged, so the config's damage goes with its folders; images of B may be degraded.
    return unset if named[0] in (("data.folders",), ("data.a", "data.b")) else [*unset, "damage=null"]
