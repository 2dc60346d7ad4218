"""The models of a repair: opened as the options say, and checked against them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from restore.errors import RestoreError
from restore.fix.batch_options import FilePath
from restore.fix.options import FixOptions, Sensitivity
from restore.fix.plan import FixPlan
from restore.fix.sensitivity import threshold_of

# What needs PyTorch is imported where it is used: a run that has nothing to do ends in the time of its plan.
if TYPE_CHECKING:
    from restore.fix.steps import Models
    from restore.restorers.base import Restorer

#: What repairs: a name from `restore models`, the path of a weights file or a run folder; or opened already, with or
#: without the further models of a repair. A sequence has one for each device.
ModelLike: TypeAlias = "FilePath | Restorer | Models | Sequence[Restorer | Models]"


def open_models(
    model: ModelLike | None, options: FixOptions, *, on_event: Callable[[str], None] = lambda line: None
) -> list[Models]:
    """Open the models of a repair, once for each device.

    Args:
        model: as for `fix_folder`. `Models` are taken as they are; what is missing beside a `Restorer` is opened on its
            device.
        options: `clean_up`, `masks` and `detector` say which models take part; `device`, `precision` and `engine` where
            and how.
        on_event: called with a line when a network is prepared for an engine, and if the fastest engine cannot run it.

    Raises:
        RestoreError: exit code 2; no such model, device or engine, or a file that cannot be read.
    """
    from restore.fix.steps import Models
    from restore.restorers.base import Restorer
    from restore.restorers.registry import open_restorer, open_restorers

    how: dict[str, Any] = {"precision": options.precision, "engine": options.engine, "on_event": on_event}
    opened: Sequence[Any]
    cleaners: Sequence[Restorer] = ()
    if model is not None and options.deflicker and options.masks is None:
        raise RestoreError(
            "without --masks, no model runs",
            where="--deflicker",
            hint="leave out --model, and restore the result in a run of its own",
        )
    if model is None and not options.needs_model:
        return [Models()]
    if model is None or isinstance(model, str | os.PathLike):
        name = options.default_model if model is None else os.fspath(model)
        opened = open_restorers(name, device=options.device, args=options.model_args, **how)
        for restorer in opened:
            _as_original_pix2pix(restorer, options)
        if options.cleans_up:
            cleaners = open_restorers("photo", device=options.device, **how)
    else:
        if options.model_args:
            raise RestoreError("needs a model by path", where="--model-args", hint="give it to `open_restorer`")
        for option, asked, method in _pix2pix_options(options):
            if asked:
                raise RestoreError(
                    "needs a model by name or path, because an open one would change",
                    where=option,
                    hint=f"call `model.network.{method}` yourself",
                )
        opened = model if isinstance(model, list | tuple) else [model]
        for one in opened:
            if not isinstance(one, Restorer | Models):
                raise RestoreError(
                    f"must be a name, a path, a Restorer or Models, not {type(one).__name__}", where="model"
                )
    models = []
    for number, one in enumerate(opened):
        if isinstance(one, Restorer):
            cleaner = detector = None
            if options.cleans_up:
                cleaner = cleaners[number] if cleaners else open_restorer("photo", device=str(one.device), **how)
            if options.masks == "auto":
                from restore.restorers.detector import open_detector

                detector = open_detector(os.fspath(options.detector), device=str(one.device), **how)
            found, enlarger = with_enlarger(one, options, partial(open_restorer, device=str(one.device), **how))
            one = Models(found, cleaner, detector, enlarger)
        models.append(one)
    return models


def with_enlarger(
    restorer: Restorer, options: FixOptions, open: Callable[[str], Restorer]
) -> tuple[Restorer | None, Restorer | None]:
    """The models that repair and enlarge: a model that enlarges by `options.scale` does so after all other steps.

    Holes are then filled by `inpaint`.

    Args:
        restorer: the model that was named, or the default one.
        options: of the repair.
        open: opens a model by its name.

    Raises:
        RestoreError: exit code 2; the model enlarges by another factor, or there is none that enlarges.
    """
    if options.scale is None:
        return restorer, None
    own = restorer.requirements.scale
    if own == options.scale:
        return None if options.masks is None else open("inpaint"), restorer
    if own != 1:
        raise RestoreError(
            f"{restorer.name} enlarges {own} times", where=f"--scale {options.scale}", hint="choose another --model"
        )
    return restorer, open(f"enlarge-x{options.scale}")


def _pix2pix_options(options: FixOptions) -> list[tuple[str, bool, str]]:
    """The options of pix2pix networks, whether they are given, and the method of the network that each calls."""
    seed = options.pix2pix_dropout
    return [
        ("--pix2pix-batch-norm", options.pix2pix_batch_norm == "instance", "use_image_statistics()"),
        ("--pix2pix-dropout", seed is not None, f"use_dropout({seed})"),
    ]


def _as_original_pix2pix(restorer: Restorer, options: FixOptions) -> None:
    """Make a pix2pix network normalize by each image, or drop activations, if the options say so.

    Raises:
        RestoreError: it is no pix2pix network, or has no batch norm.
    """
    if not any(asked for _, asked, _ in _pix2pix_options(options)):
        return
    from restore.models.pix2pix import Pix2Pix

    network = restorer.network
    by_image, seed = options.pix2pix_batch_norm == "instance", options.pix2pix_dropout
    if by_image and not (isinstance(network, Pix2Pix) and network.use_image_statistics()):
        raise RestoreError(
            f"{restorer.name} is not a pix2pix network with batch norm",
            where="--pix2pix-batch-norm",
            hint="leave it out",
        )
    if seed is not None:
        if not isinstance(network, Pix2Pix):
            raise RestoreError(
                f"{restorer.name} is not a pix2pix network", where="--pix2pix-dropout", hint="leave it out"
            )
        network.use_dropout(seed)


def models_for(plan: FixPlan, models: Sequence[Models], options: FixOptions) -> list[Models]:
    """The models that take part in a repair.

    Raises:
        RestoreError: exit code 2; they cannot do what the options ask of them.
    """
    if not options.cleans_up:
        models = [replace(one, clean_up=None) for one in models]
    if options.scale is None:
        models = [replace(one, enlarger=None) for one in models]
    main, cleaner = models[0].main, models[0].clean_up
    if main is None and not options.needs_model:
        return list(models)
    if main is None:
        raise RestoreError("a repair requires a model", hint="add a restorer to the Models")
    _check_conditions(main, options)
    if plan.masks is None and main.requirements.needs_mask:
        raise RestoreError(f"{main.name} fills holes and requires --masks", hint="or choose another --model")
    if plan.masks is not None and main.requirements.scale != 1:
        raise RestoreError(
            f"{main.name} changes the size of images and cannot be combined with --masks",
            hint="leave out --masks, or choose another --model: --scale enlarges what that has repaired",
        )
    if plan.masks is not None and plan.masks.found and models[0].detector is None:
        raise RestoreError("--masks auto requires a detector", hint="add one to the Models")
    if options.scale is not None:
        models = [_with_scale(one, options.scale, options.strength) for one in models]
    elif options.strength != 1 and main.requirements.scale != 1:
        raise RestoreError(
            f"{main.name} changes the size of images, which cannot be blended with their originals",
            where="--strength",
            hint=f"add --scale {main.requirements.scale}, which blends with bicubic interpolation",
        )
    if options.cleans_up and cleaner is None:
        raise RestoreError("--clean-up requires a model", hint="add one to the Models, or set clean_up=False")
    if cleaner is not None and (cleaner.requirements.needs_mask or cleaner.requirements.scale != 1):
        raise RestoreError(f"{cleaner.name} cannot clean up whole images", hint="choose a model that requires no masks")
    if options.seed:
        models = [replace(one, restorer=one.restorer and one.restorer.with_seed(options.seed)) for one in models]
    if options.fills > 1:
        _check_fills(plan, main)
    if options.uncertainty is not None:
        _check_maps(plan, main)
    if options.sensitivity is not None and options.sensitivity != "normal":
        models = [_with_sensitivity(one, options.sensitivity) for one in models]
    return list(models)


def _check_fills(plan: FixPlan, restorer: Restorer) -> None:
    """Refuse several fills where there is no place for them, or no choice.

    Raises:
        RestoreError: exit code 2.
    """
    if any(job.action == "repair" and not job.video and not job.fill_targets for job in plan.jobs.to_do()):
        raise RestoreError("only applies to files and folders", where="--fills", hint="leave it out")
    try:
        restorer.with_seed(1)
    except RestoreError as error:
        error.where = "--fills"
        raise


def _check_maps(plan: FixPlan, restorer: Restorer) -> None:
    """Refuse maps of expected errors where there is no place for them, or nothing is filled.

    Raises:
        RestoreError: exit code 2.
    """
    if any(job.action == "repair" and not job.video and job.map_target is None for job in plan.jobs.to_do()):
        raise RestoreError("only applies to files and folders", where="--uncertainty", hint="leave it out")
    if plan.sequence is not None and plan.masks is not None and plan.masks.found:
        what = "cannot be combined with --masks auto for an image sequence, whose frames fill each other"
        raise RestoreError(what, where="--uncertainty", hint="name the folder to repair each frame alone")
    if not restorer.requirements.needs_mask:
        raise RestoreError(f"{restorer.name} fills no holes", where="--uncertainty", hint="choose a --model that does")


def _with_scale(models: Models, scale: int, strength: float) -> Models:
    """The models of a repair that enlarges, blended with bicubic interpolation if the strength is below 1.

    Raises:
        RestoreError: exit code 2; none enlarges by this factor, or another one changes the size, too.
    """
    from restore.restorers.enlarging import Softened

    enlarger, where = models.enlarger, f"--scale {scale}"
    if enlarger is None:
        raise RestoreError("requires a model that enlarges", where=where, hint="add an enlarger to the Models")
    needs = enlarger.requirements
    if needs.scale != scale or needs.needs_mask or needs.conditions:
        raise RestoreError(f"{enlarger.name} does not enlarge images {scale} times", where=where)
    if models.restorer is not None and models.restorer.requirements.scale != 1:
        raise RestoreError(f"{models.restorer.name} changes the size of images itself", where=where)
    return models if strength == 1 else replace(models, enlarger=Softened(enlarger, strength))


def _check_conditions(restorer: Restorer, options: FixOptions) -> None:
    """Refuse other condition images than the model was trained with.

    Raises:
        RestoreError: exit code 2.
    """
    needed, given = restorer.requirements.conditions, options.condition
    if len(given) == len(needed):
        return
    if not needed:
        raise RestoreError(f"{restorer.name} sees the image alone", where="--condition", hint="leave it out")
    raise RestoreError(
        f"{restorer.name} was trained with {', '.join(map(str, needed))} beside the image, {len(given)} given",
        where="--condition",
        hint="name the folder of each, in this order",
    )


def _with_sensitivity(models: Models, sensitivity: Sensitivity) -> Models:
    if models.detector is None:
        return models
    threshold = threshold_of(sensitivity, models.detector.threshold)
    return replace(models, detector=models.detector.adjusted(threshold=threshold))


def resolved_settings(models: Sequence[Models], options: FixOptions) -> dict[str, Any]:
    """The options of a run and what they resolved to, for the log."""
    cleaner = models[0].clean_up
    restorers = [one.main for one in models if one.main is not None]
    return {
        **options.to_dict(),
        "clean_up": None if cleaner is None else cleaner.name,
        "device": ",".join(str(one.device) for one in restorers),
        "precision": restorers[0].precision if restorers else options.precision,
        "engine": engines_of(models[0]),
    }


def planned_engine(model: str | None, options: FixOptions) -> tuple[str, str] | None:
    """The engine and precision planned for the networks of a run, without opening one; None without networks.

    The engine is the one that is tried first.

    Args:
        model: as the command line takes it.
        options: of the run.

    Raises:
        RestoreError: exit code 2; no such device, or an engine or precision that it does not have.
    """
    from restore.devices import pick_devices
    from restore.engines.choice import candidates, settle_precision
    from restore.restorers.registry import CLASSICAL_NAMES, ONNX_SUFFIX, TORCH_SUFFIXES, parse_model

    if not options.needs_model:
        return None
    device = pick_devices(options.device)[0]
    precision = settle_precision(options.engine, options.precision, device)
    engine = candidates(options.engine, precision, device)[0]
    source = "" if model is None else parse_model(model).source
    alone = options.scale is None or source.endswith(f"-x{options.scale}")
    if source in CLASSICAL_NAMES and alone and not options.cleans_up and options.masks != "auto":
        return None
    if source.endswith(ONNX_SUFFIX) and engine != "openvino":
        return "onnx", "fp32"
    if source.endswith(TORCH_SUFFIXES) or (source.endswith(".safetensors") and _only_torch_runs(source)):
        engine = "torch"
    return engine, precision


def _only_torch_runs(path: str) -> bool:
    """Whether weights are of another project, or of a network that may change after it is opened."""
    from restore.checkpoints import read_description
    from restore.models.registry import GENERATORS

    try:
        generator = GENERATORS.get(read_description(Path(path)).builder)
    except RestoreError:
        return True
    return generator is not None and generator.can_change


def engines_of(models: Models) -> str | None:
    """The engine of the networks, or, if they differ, the engine of each; None without a network."""
    networks = {
        one.name: engine
        for one in (models.detector, models.restorer, models.clean_up, models.enlarger)
        if (engine := getattr(one, "engine", None)) is not None and one is not None
    }
    if len(set(networks.values())) < 2:
        return next(iter(networks.values()), None)
    return ", ".join(f"{engine} for {name}" for name, engine in networks.items())
