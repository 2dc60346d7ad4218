"""Collisions of outputs with existing files and folders, with inputs, and with each other."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import OrderedDict
from pathlib import Path

from restore.errors import RestoreError, printable
from restore.fix.batch_options import BatchOptions
from restore.fix.inputs import PIPE
from restore.fix.jobs import Entry, Jobs, split
from restore.packed import Hashes

#: Folders whose listings are kept: those from the root of a deep tree to the current one.
_LISTINGS = 32

_PIPE = os.fspath(PIPE)


def would_replace_an_input(target: str) -> RestoreError:
    """The error of an output that is also read."""
    return RestoreError("this output would replace an input", where=target, hint="choose another output folder")


def would_meet(target: str, source: str, other: str | None) -> RestoreError:
    """The error of two outputs with one name.

    Args:
        target: the name.
        source: what one of them is made of.
        other: what the other is made of; None: of the same.
    """
    if other is None:
        return RestoreError(f"both outputs of {printable(source)} would be written here", where=target)
    what = f"{printable(other)} and {printable(source)} would both be written here"
    return RestoreError(what, where=target, hint="rename one of them, or use --exclude")


class OutputFolders:
    """What exists in the folders of outputs. Listing a folder is faster than looking up each of its files."""

    def __init__(self) -> None:
        self._listings: OrderedDict[str, tuple[list[bytes], set[bytes]]] = OrderedDict()
        self._real: dict[str, tuple[str, bool]] = {}

    def real(self, folder: str) -> tuple[str, bool]:
        """The beginning of the paths in a folder, without links, and whether `A` and `a` are the same file in it."""
        known = self._real.get(folder)
        if known is None:
            known = self._real[folder] = (os.path.join(os.path.realpath(folder), ""), _ignores_case(Path(folder)))
        return known

    def exists(self, path: str, *, listed: bool) -> bool:
        """Whether there is a file or link, or a folder.

        Args:
            path: where an output goes.
            listed: other outputs go to the same folder, and follow soon.

        Raises:
            RestoreError: exit code 2; it is a folder.
        """
        folder, name = split(path)
        # A disk may find a file by several spellings of its name, a listing has one.
        listing = self._listing(folder) if listed and name.isascii() and not self.real(folder)[1] else None
        if listing is None:
            exists, is_folder = os.path.lexists(path), os.path.isdir(path)
        else:
            (names, folders), key = listing, os.fsencode(name)
            place = bisect_left(names, key)
            is_folder = key in folders
            exists = is_folder or (place < len(names) and names[place] == key)
        if is_folder:
            raise RestoreError("this output would replace a folder", where=path)
        return exists

    def _listing(self, folder: str) -> tuple[list[bytes], set[bytes]] | None:
        """The sorted names of files and links, and those of folders; None: the folder cannot be listed."""
        if folder in self._listings:
            self._listings.move_to_end(folder)
            return self._listings[folder]
        if len(self._listings) == _LISTINGS:
            self._listings.popitem(last=False)
        names: list[bytes] = []
        folders: set[bytes] = set()
        try:
            with os.scandir(os.fsencode(folder)) as listing:
                for entry in listing:
                    try:
                        (folders.add if entry.is_dir() else names.append)(entry.name)
                    except OSError:  # such as a link to itself
                        names.append(entry.name)
        except FileNotFoundError:
            pass
        except OSError:
            return None
        names.sort()
        self._listings[folder] = names, folders
        return names, folders


class ExistingOutputs:
    """Outputs that exist: refused, skipped or replaced, as the options say."""

    def __init__(self, folders: OutputFolders, options: BatchOptions) -> None:
        self._folders, self._options = folders, options
        self._first, self._count = "", 0

    def settle(self, entry: Entry) -> Entry:
        """The job, or the same as skipped.

        Raises:
            RestoreError: exit code 2; there is a folder in the place of an output.
        """
        if entry.settled or entry.target == _PIPE:
            return entry
        exists = self._exists(entry.target, listed=not entry.named)
        for target in (*(target for _, target in entry.sidecars), *entry.fill_targets):
            self._exists(target, listed=False)
        if exists and not self._options.overwrite:
            return entry._replace(action="skip", reason="the output exists", code="output_exists")
        return entry

    def refuse(self) -> None:
        """Refuse to replace or skip outputs unasked, once all jobs are settled.

        Raises:
            RestoreError: exit code 2.
        """
        if self._count and not (self._options.overwrite or self._options.skip_existing):
            more = f" (and {self._count - 1} more outputs)" if self._count > 1 else ""
            raise RestoreError(f"exists already{more}", where=self._first, hint="use --overwrite or --skip-existing")

    def _exists(self, path: str, *, listed: bool) -> bool:
        exists = self._folders.exists(path, listed=listed)
        self._first = self._first or (path if exists else "")
        self._count += exists
        return exists


class Collisions:
    """Outputs of one name, and outputs that are also read, of any number of jobs: 24 bytes are kept for each."""

    def __init__(self, folders: OutputFolders) -> None:
        self._folders = folders
        self._read, self._written = Hashes(), Hashes()

    def add(self, entry: Entry) -> None:
        """Note what a job reads and writes."""
        for path in entry.sources:
            self._read.add(self._place(path))
        if _writes(entry):
            for path in entry.targets:
                self._written.add(self._place(path))

    def add_link(self, path: str) -> None:
        """Record the target of a link that is read."""
        self._read.add(os.path.realpath(path))

    def refuse(self, jobs: Jobs) -> None:
        """Refuse two outputs with one name, and outputs that are also read.

        Args:
            jobs: all that were added.

        Raises:
            RestoreError: exit code 2.
        """
        suspects = self._written.repeated() | self._written.shared(self._read)
        if not suspects:
            return
        read: set[str] = set()
        for path in (path for entry in jobs.entries() for path in entry.sources):
            places = {self._place(path), *([os.path.realpath(path)] if os.path.islink(path) else [])}
            read |= {place for place in places if hash(place) in suspects}
        taken: dict[str, tuple[Entry, str]] = {}
        for entry, path in ((one, path) for one in jobs.entries() if _writes(one) for path in one.targets):
            place = self._place(path)
            if hash(place) not in suspects or path == _PIPE:
                continue
            if place in read:
                raise would_replace_an_input(path)
            other, place_of_other = taken.setdefault(place, (entry, path))
            if other is not entry or place_of_other != path:
                raise would_meet(path, entry.source, None if other is entry else other.source)

    def _place(self, path: str) -> str:
        """A path without links of folders, and in small letters where case does not matter."""
        folder, name = split(path)
        real, ignores_case = self._folders.real(folder)
        return (real + name).lower() if ignores_case else real + name


def _writes(entry: Entry) -> bool:
    """Whether a job writes its outputs, in this run or in an earlier one."""
    return not entry.settled or entry.code == "output_exists"


def _ignores_case(folder: Path) -> bool:
    """Whether `A` and `a` are the same file in a folder, as on most disks of macOS and Windows."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    swapped = folder.with_name(folder.name.swapcase()) if folder.name else folder
    return swapped != folder and swapped.exists() and os.path.samefile(swapped, folder)
