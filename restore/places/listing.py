"""What the inputs of a run over URLs name: objects, folders of them, or the files of a list. No object is read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from restore.errors import RestoreError, printable
from restore.files import is_within
from restore.fix.batch_options import FilePath
from restore.fix.inputs import check_input, read_list, unique
from restore.fix.options import FixOptions
from restore.fix.plan import NoImages
from restore.images import IMAGE_SUFFIXES
from restore.images.formats import SYSTEM_FOLDERS, matches, suffix_of, walk_files
from restore.packed import Packed
from restore.places.files import REPAIR, PlacedFile, Verdict
from restore.places.store import store_of
from restore.places.urls import as_folder, bucket_of, is_url, name_of, odd_name, settle


class Listing:
    """The files that the inputs name.

    Args:
        inputs: places, as `settle` returns them; none for a list that stands alone.
        listed: the places of a list; None: there is no list.
        kinds: of each input, from `kind_of`.
        options: of the run.
        mask_place: where masks come from, which are no images; None: from no file.

    Attributes:
        left_out: hidden files, and folders that are hidden or made by a system; complete when all files were taken.
    """

    def __init__(
        self, inputs: list[str], listed: Packed[str] | None, kinds: Mapping[str, str], options: FixOptions,
        mask_place: str | None,
    ) -> None:  # fmt: skip
        self._inputs, self._listed, self._kinds, self._options = inputs, listed, kinds, options
        self._mask_place = mask_place
        self.left_out: list[Path] = []

    def files(self) -> Iterator[PlacedFile]:
        """All files, also those that are excluded: their masks are not without an image."""
        if self._listed is not None:
            yield from self._of_list(self._listed)
            return
        several = len(self._inputs) != 1
        for place in dict.fromkeys(self._inputs):
            if self._kinds[place] == "file":
                yield _named(*_split(place))
                continue
            if several and (reason := odd_name(name_of(place))):
                raise RestoreError(reason, where=place, hint="choose another folder")
            yield from self._in_folder(place, f"{name_of(place)}/" if several else "")

    def is_wanted(self, file: PlacedFile) -> bool:
        """Whether a file is not excluded."""
        return file.named or self._matches(file.name)

    def _matches(self, name: str) -> bool:
        include, exclude = self._options.include, self._options.exclude
        return (not include or matches(name, include)) and not matches(name, exclude)

    def _of_list(self, listed: Packed[str]) -> Iterator[PlacedFile]:
        """The files of `--files-from`: by their own names, or in the tree of an input folder."""
        if len(self._inputs) > 1 or (self._inputs and self._kinds[self._inputs[0]] != "folder"):
            raise RestoreError("takes one folder as INPUT, or none", where="--files-from", hint="leave out INPUT")
        root = as_folder(self._inputs[0]) if self._inputs else ""
        if root and not is_url(root):
            root = as_folder(os.path.abspath(root))
        for place in unique(listed, key=str):
            if not root:
                yield _named(*_split(place))
                continue
            place = place if is_url(place) else os.path.abspath(place)
            if not place.startswith(root):
                what = f"is not in the folder {printable(self._inputs[0])}"
                raise RestoreError(what, where=place, hint="leave out INPUT")
            if self._matches(place.removeprefix(root)):
                yield _named(root, place.removeprefix(root))

    def _in_folder(self, place: str, prefix: str) -> Iterator[PlacedFile]:
        root = as_folder(place)
        masks = self._mask_place
        if masks is not None and folder_key(masks) == folder_key(root):
            masks = None  # then names tell masks from images
        if not is_url(place):
            for name, _ in walk_files(place, on_left_out=self.left_out.append):
                if masks is None or is_url(masks) or not is_within(Path(root + name), Path(masks)):
                    yield PlacedFile(root, name, prefix)
            return
        hidden: dict[Path, None] = {}
        for name, size in store_names(root):
            if masks is not None and (root + name == masks or (root + name).startswith(as_folder(masks))):
                continue
            if reason := odd_name(name):
                yield PlacedFile(root, name, prefix, verdict=Verdict("fail", reason, "unsupported"))
            elif (left_out := _hidden(name)) is None:
                yield PlacedFile(root, name, prefix, size)
            elif left_out != "":
                hidden[Path(left_out)] = None
        self.left_out += [path for path in hidden if not matches(path, self._options.exclude)]


def listed_places(place: FilePath) -> Packed[str]:
    """The places that a list names, one a line, or ended by NUL.

    Raises:
        RestoreError: exit code 2; it cannot be read, or is empty.
    """
    return read_list(place, spelled=lambda line: settle(line, what="--files-from"))


def kind_of(place: str, missing: str = "there is no such file or folder") -> str:
    """`file` or `folder`.

    Raises:
        RestoreError: exit code 2; there is neither, or it cannot be read.
    """
    if not is_url(place):
        check_input(Path(place))
        return "folder" if os.path.isdir(place) else "file"
    kind = store_of(place).kind(place)
    if not kind and place == bucket_of(place):
        raise NoImages("this bucket is empty", where=place)
    if not kind:
        raise RestoreError(missing.replace("file", "object"), where=place)
    return kind


def folder_key(folder: str) -> str:
    """The same for all spellings of a folder."""
    return as_folder(folder if is_url(folder) else os.path.realpath(folder))


def store_names(folder: str) -> Iterator[tuple[str, int]]:
    """Names below a folder of a store, and their sizes; S3 sorts them by their bytes."""
    for entry in store_of(folder).list(folder):
        yield entry.name, entry.size


def mask_names(root: str) -> Iterator[str]:
    """Names of the images in a folder of masks."""
    if not is_url(root):
        names = (name for name, _ in walk_files(root))
    else:
        names = (name for name, _ in store_names(root) if _hidden(name) is None and not odd_name(name))
    return (name for name in names if suffix_of(name).lower() in IMAGE_SUFFIXES)


def _split(place: str) -> tuple[str, str]:
    """The folder of a place with its slash, and its last part."""
    folder, slash, name = place.rpartition("/")
    return folder + slash, name


def _named(root: str, name: str) -> PlacedFile:
    """A file that the user named; it fails if its name would lead out of the tree of the outputs."""
    reason = odd_name(name)
    return PlacedFile(root, name, named=True, verdict=Verdict("fail", reason, "unsupported") if reason else REPAIR)


def _hidden(name: str) -> str | None:
    """What a name is left out for: a hidden or system folder, or itself; "": nobody needs to know; None: it is not."""
    *folders, last = name.split("/")
    for depth, folder in enumerate(folders):
        if folder.startswith(".") or folder.lower() in SYSTEM_FOLDERS:
            return "/".join(folders[: depth + 1])
    if last.startswith("."):
        return name if PurePosixPath(last).suffix.lower() in IMAGE_SUFFIXES else ""
    return None
