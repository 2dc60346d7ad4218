"""The `data` section of a training config: every key, its range and its default.

The docstring below a key is its description in the JSON schema (`restore train --schema`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field, field_validator, model_serializer, model_validator

from restore.config import Settings
from restore.images.conditions import Condition


def _or_path(schema: dict[str, Any]) -> None:
    """Let the JSON schema of a folder accept a plain path, too."""
    mapping = dict(schema)
    schema.clear()
    schema |= {"title": mapping.get("title"), "anyOf": [{"type": "string", "format": "path"}, mapping]}


class Folder(Settings):
    """A folder of images, or a `.txt` list of them. In a config: a path, or `{path: ..., weight: ...}`."""

    model_config = ConfigDict(json_schema_extra=_or_path)

    path: Path
    """A folder (searched recursively), or a `.txt` with one path per line, relative to the list."""
    weight: float | None = Field(None, gt=0)
    """Share of the crops that come from this folder, relative to the weights of the others. Set it to use a small
    folder more often than its size implies. null: 1 if another folder has a weight; else all images count alike.
    """

    @model_validator(mode="before")
    @classmethod
    def _from_path(cls, value: Any) -> Any:
        if isinstance(value, (str, Path)):
            return {"path": value}
        if isinstance(value, Mapping) and set(value) - {"path", "weight"}:
            raise ValueError("a folder is a path, or {path: ..., weight: ...}")
        return value

    @model_serializer
    def _as_written(self) -> str | dict[str, Any]:
        return str(self.path) if self.weight is None else {"path": str(self.path), "weight": self.weight}


class ConditionData(Settings):
    """Condition images: one for each training image. In a config: where they are, or a mapping."""

    model_config = ConfigDict(json_schema_extra=_or_path)

    path: str
    """A folder, with `x.png` for the image `x`; a path whose last part has `{}` in place of the image's name:
    `depth/{}_depth`; or `infrared`: the infrared channel of the image's own file.
    """
    range: tuple[float, float] | None = None
    """[black, white] of float files. null: [0, 1]; where values exceed 16, white is 255 or 65535."""
    channels: Literal[1, 3] | None = None
    """null: as many as the first file has. The run's config.yaml has their number."""

    @model_validator(mode="before")
    @classmethod
    def _from_path(cls, value: Any) -> Any:
        return {"path": str(value)} if isinstance(value, (str, Path)) else value

    @model_validator(mode="after")
    def _consistent(self) -> ConditionData:
        if "{}" in str(Path(self.path).parent):
            raise ValueError("{} must be in the last part of the path, as in depth/{}_depth")
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ValueError("range must be [black, white], and black less than white")
        return self

    @model_serializer
    def _as_written(self) -> str | dict[str, Any]:
        if self.range is None and self.channels is None:
            return self.path
        value_range = None if self.range is None else list(self.range)
        return {"path": self.path, "range": value_range, "channels": self.channels}

    @property
    def kind(self) -> Condition:
        """As a network takes them; of one channel while their number is not known."""
        return Condition(Path(self.path).name, self.channels or 1, self.range)


class ValidationData(Settings):
    """Images for validation, of the same kind as the training images. In a config: a path, or the two of pairs."""

    model_config = ConfigDict(json_schema_extra=_or_path)

    folder: Path | None = None
    """A folder of images, or a `.txt` list of them: clean ones, or side by side."""
    input: Path | None = None
    """Real pairs: the damaged images, a folder or a list."""
    target: Path | None = None
    """Real pairs: the clean images, a folder or a list."""

    @model_validator(mode="before")
    @classmethod
    def _from_path(cls, value: Any) -> Any:
        return {"folder": value} if isinstance(value, (str, Path)) else {} if value is None else value

    @property
    def is_set(self) -> bool:
        """Whether images are named."""
        return self.folder is not None or self.input is not None or self.target is not None


class DataConfig(Settings):
    """Training images: exactly one of `folders`, `input` + `target`, `side_by_side`, `a` + `b`."""

    RENAMED: ClassVar[dict[str, str]] = {"tiny": "small_images"}

    folders: tuple[Folder, ...] = ()
    """Folders or lists of clean images, or one of them; `damage` degrades them."""
    input: Path | None = None
    """Real pairs in two folders, or in two lists: the damaged images. The clean ones are in `target`."""
    target: Path | None = None
    """Real pairs: the clean images, under the same relative names as the damaged ones in `input` (see `input_name`); or
    a list, whose lines belong to those of the list in `input`.
    """
    input_name: str = "{}"
    """Real pairs in two folders: name of a damaged image without suffix, where `{}` stands for that of the clean one.
    `{}x4` pairs `0001x4.png` with `0001.png`.
    """
    side_by_side: Path | None = None
    """Real pairs in one image each, A on the left, B on the right, as in pix2pix's data sets."""
    a: tuple[Folder, ...] = ()
    """Unpaired images (`task: unpaired` or `one-sided`): folders or lists of images of the one kind, such as damaged
    photographs.
    """
    b: tuple[Folder, ...] = ()
    """Unpaired images of the other kind, such as clean photographs. They need not show what those in `a` show."""
    direction: Literal["AtoB", "BtoA"] = "AtoB"
    """For `side_by_side`: which half is the input. BtoA if the damaged half is on the right."""
    masks: Path | None = None
    """A folder with a mask for each image (white = hole): `x.png` or `x_mask.png` for the image `x`, of the same size.
    Beside clean images, the holes are cut into them, before `damage` if that is set. Masks to draw from at random are a
    step of `damage`: `{name: masks, folder: ...}`. null: none.
    """
    channels: Literal["color", "gray"] = "color"
    """color: networks see and give RGB; gray images have three equal channels. gray: networks with one image channel;
    color images are read as their luma. What a step of `damage` does to the green channel then happens to gray.
    """
    transfer: Literal["srgb", "linear"] = "srgb"
    """linear: networks work in linear light: images are decoded from sRGB after they were degraded, and outputs are
    encoded again before they are scored. Losses compare linear values, but for `loss.perceptual`.
    """
    float_range: tuple[float, float] | None = None
    """[black, white] of float images (TIFF), which keep their precision in caches and batches; what lies outside is
    clipped. null: [0, 1]; where values exceed 16, white is 255 or 65535.
    """
    conditions: tuple[ConditionData, ...] = ()
    """Images that the network sees beside each image, such as depth maps, of the same size: `[depth/, edges/{}_edge,
    infrared, {path: heat/, range: [0, 50]}]`. Their channels follow those of the image and of the mask. `restore fix`
    takes them by --condition.
    """
    classes: tuple[str, ...] | Literal["folders"] = ()
    """Labels of images, for `task: generation`. folders: the folders in `folders` are classes, and an image is of the
    one that it lies in; a run's config.yaml has their names. []: no labels.
    """
    patch: int = Field(128, ge=16, le=4096)
    """Side of a training crop in pixels. Raise it for larger holes; the cost grows with its square."""
    batch: int = Field(8, ge=1)
    """Crops per step, on all devices together. Lower it if memory runs out, and lower the learning rate with it."""
    scale: tuple[float, float] = (1.0, 1.0)
    """[low, high] within 0.05 to 1: downscale images by a random factor from this range, one factor per step. Hides the
    JPEG artifacts of images from the web, and adds variety. [1, 1] if images are clean at full size.
    """
    resize: int | None = Field(None, ge=16)
    """Resize each image to a square of this side in pixels when it is loaded, as pix2pix does. null: no resizing."""
    flip: bool = True
    """Mirror half of the crops left to right. Set it to false for text and other content with a handedness."""
    rotate: bool = False
    """Rotate crops by multiples of 90°: for textures, maps and scans, not for images with a sky."""
    validation_percent: float = Field(3.0, ge=0, le=50)
    """Percentage of images that are set aside for validation, by their path in the folder. Raise it for small sets."""
    validation: ValidationData = ValidationData()
    """Validate with these images, and train on all others: a folder or list of clean images or of images side by side;
    for real pairs `{input: ..., target: ...}`. With `a` and `b`, a folder of images like those in `a`, or pairs, to see
    how near the truth outputs come. null: set `validation_percent` of the training images aside.
    """
    validation_count: int = Field(32, ge=1)
    """How many of these are scored. More give steadier scores, and take longer."""
    validation_size: int = Field(256, ge=32)
    """Side in pixels of the center crop that is scored. Set it to the size of the images to be restored."""
    near_duplicates: int | None = Field(10, ge=0, le=32)
    """Leave out training images whose perceptual hash differs in fewer bits (of 64) from that of a scored validation
    image, mirrored or not. Re-encoded and resized copies differ in 0 to 4 bits, copies cropped by 5 % in 10 on average,
    and the most similar unrelated images among 1100 photographs in 10. 0 or null: off (pages of text all look alike).
    """
    small_images: Literal["upscale", "skip"] = "upscale"
    """What to do with images that have a side shorter than `patch`. Use skip if enough others are left: a network
    learns blur from upscaled images.
    """
    on_error: Literal["skip", "fail"] = "skip"
    """What to do with images that cannot be read. Use fail if none may be missing."""
    cache: Literal["auto", "device", "memory", "none"] = "auto"
    """Where decoded images are kept: on the device, in memory, or nowhere (decoded again for each step, by threads).
    Batches are the same. auto uses the first that fits; change it if something else needs the memory.
    """

    @property
    def image_channels(self) -> int:
        """Channels of an image: 3, or 1 for gray."""
        return 1 if self.channels == "gray" else 3

    @property
    def is_linear(self) -> bool:
        """Whether networks work in linear light."""
        return self.transfer == "linear"

    @property
    def condition_channels(self) -> int:
        """Channels of all condition images together; see `restore.data.build.with_condition_channels`."""
        return sum(condition.kind.channels for condition in self.conditions)

    @property
    def is_unpaired(self) -> bool:
        """Whether there are images of two kinds, without pairs."""
        return bool(self.a or self.b)

    @field_validator("conditions", "folders", "a", "b", mode="before")
    @classmethod
    def _from_one_folder(cls, value: Any) -> Any:
        return [value] if isinstance(value, (str, Path, Mapping)) else value

    @model_validator(mode="after")
    def _consistent(self) -> DataConfig:
        pairs = self.input is not None or self.target is not None
        is_set = [bool(self.folders), pairs, self.side_by_side is not None, self.is_unpaired]
        if sum(is_set) != 1:
            raise ValueError("exactly one of folders, input + target, side_by_side, a + b must be set")
        if bool(self.a) != bool(self.b):
            raise ValueError("a and b must be set together")
        if self.classes and not self.folders:
            raise ValueError("classes are folders in data.folders: set that")
        if self.is_unpaired and (self.masks is not None or self.conditions or self.is_linear):
            raise ValueError("masks, conditions and transfer: linear have no effect with a and b")
        if (self.input is None) != (self.target is None):
            raise ValueError("input and target must be set together")
        if "{}" not in self.input_name or "/" in self.input_name:
            raise ValueError("input_name must be a name with {} in it, such as {}x4")
        self._check_validation()
        if self.float_range is not None and not self.float_range[0] < self.float_range[1]:
            raise ValueError("float_range must be [black, white], and black less than white")
        if not 0.05 <= self.scale[0] <= self.scale[1] <= 1:
            raise ValueError("scale must be [low, high] within 0.05 to 1")
        if self.resize is not None and self.resize < self.patch:
            raise ValueError("resize must be at least patch")
        return self

    def _check_validation(self) -> None:
        named = self.validation
        if not named.is_set:
            return
        pair = (named.input is not None) + (named.target is not None)
        if pair == 1 or (pair and named.folder is not None):
            raise ValueError("validation must be a folder, or input and target")
        if bool(pair) != (self.input is not None) and not self.is_unpaired:
            kind = "input and target" if self.input is not None else "a folder or list, as the training images are"
            raise ValueError(f"validation must be {kind}")
