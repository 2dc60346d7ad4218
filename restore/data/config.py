"""What a training config may say about pictures. Every key is here, with the reason to touch it.

The text below a key is its description in the JSON schema (`restore train --schema`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field, model_serializer, model_validator

from restore.config import Settings


def _also_a_path(schema: dict[str, Any]) -> None:
    """A folder's JSON schema: its path alone will do."""
    whole = dict(schema)
    schema.clear()
    schema |= {"title": whole.get("title"), "anyOf": [{"type": "string", "format": "path"}, whole]}


class Folder(Settings):
    """A folder of pictures, or a `.txt` with one path per line (relative to the list); as a config has it, a path
    alone, or `{path: ..., weight: ...}`.
    """

    model_config = ConfigDict(json_schema_extra=_also_a_path)

    path: Path
    """A folder, with its subfolders; or a `.txt` with one path per line, relative to the list."""
    weight: float | None = Field(None, gt=0)
    """Its share of the draws beside the other folders' weights: to see a small, precious folder more often than its
    size says. null: everywhere, every picture counts alike; beside folders with weights, 1.
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


class DataConfig(Settings):
    """Where pictures come from: exactly one of `folders`, `input` + `target`, `side_by_side`."""

    RENAMED: ClassVar[dict[str, str]] = {"tiny": "small_images"}

    folders: tuple[Folder, ...] = ()
    """Clean photographs, or lists of them; pairs are made by `damage`."""
    input: Path | None = None
    """Real pairs in two folders: the damaged pictures. The clean ones are in `target`."""
    target: Path | None = None
    """Real pairs in two folders: the clean pictures, under the same relative names as the damaged ones in `input`."""
    side_by_side: Path | None = None
    """Real pairs in one picture each, A on the left, B on the right, as pix2pix has them."""
    direction: Literal["AtoB", "BtoA"] = "AtoB"
    """Of `side_by_side`: which half becomes which; BtoA where the damaged half is on the right."""
    patch: int = Field(128, ge=16, le=4096)
    """Side of a training crop in pixels: larger for larger holes, and dearer."""
    batch: int = Field(8, ge=1)
    """Crops a step, of all devices together: lower it where memory runs out, then lower the learning rate too."""
    scale: tuple[float, float] = (1.0, 1.0)
    """[low, high], within 0.05 to 1: make pictures smaller by a factor from this range, one a step. Hides the JPEG
    traces of photographs from the web and adds variety; 1 where pictures are clean at their full size.
    """
    resize: int | None = Field(None, ge=16)
    """Every picture to a square of this side, in pixels, when loaded, as pix2pix does; null: as it is."""
    flip: bool = True
    """Mirrored left-right half of the time: off for text and other things with a handedness."""
    rotate: bool = False
    """Quarter turns too: for textures, maps and scans, not for pictures with a sky."""
    validation_percent: float = Field(3.0, ge=0, le=50)
    """How many of a hundred pictures are set aside, by file name, and never trained on; more for small sets."""
    validation_count: int = Field(32, ge=1)
    """How many of the pictures set aside are scored: more for steadier scores, and slower ones."""
    validation_size: int = Field(256, ge=32)
    """Side of the centre crop that is scored, in pixels: as large as what will be repaired."""
    near_duplicates: int | None = Field(10, ge=0, le=32)
    """Training pictures whose perceptual hash differs in fewer bits (of 64) from a scored validation picture's,
    mirrored or not, are kept out of training. Re-encoded and resized copies differ in 0 to 4, copies cropped by 5 % in
    10 on average, and the closest strangers among 1100 photographs in 10. 0 or null: off (pages of text all look
    alike).
    """
    small_images: Literal["upscale", "skip"] = "upscale"
    """Pictures with a side shorter than `patch`: enlarged until they fit, or left out; leave them out where there are
    enough others, since a network learns to be soft from enlarged ones.
    """
    on_error: Literal["skip", "fail"] = "skip"
    """What a picture that cannot be read does: fail where all must be there."""
    cache: Literal["auto", "device", "memory", "none"] = "auto"
    """Where decoded pictures wait: on the device, in memory, or nowhere (decoded anew for every step by threads). All
    three give the same batches. auto takes the first that fits; touch it where something else needs the memory.
    """

    @model_validator(mode="after")
    def _one_source(self) -> DataConfig:
        given = [bool(self.folders), self.input is not None or self.target is not None, self.side_by_side is not None]
        if sum(given) != 1:
            raise ValueError("needs exactly one of folders, input + target, side_by_side")
        if (self.input is None) != (self.target is None):
            raise ValueError("input and target come together")
        if not 0.05 <= self.scale[0] <= self.scale[1] <= 1:
            raise ValueError("scale is [low, high] within 0.05 to 1")
        if self.resize is not None and self.resize < self.patch:
            raise ValueError("resize must be at least patch")
        return self
