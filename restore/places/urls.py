"""URLs of objects, told from paths; names in them are literal, not percent-encoded."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from restore.errors import RestoreError, did_you_mean
from restore.fix.batch_options import URL, BatchOptions, FilePath

#: Scheme -> the package that fsspec needs for it; "": none.
SCHEMES = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs", "memory": ""}
#: Other spellings of them.
_SAME = {"s3a": "s3", "gcs": "gs", "abfs": "az"}

#: Variables of the environment whose values must not be shown.
_SECRET = re.compile(r"SECRET|TOKEN|PASSWORD|ACCESS_KEY|ACCOUNT_KEY|CONNECTION_STRING|_SAS", re.IGNORECASE)
_SIGNED = re.compile(r"((?:X-Amz-\w+|X-Goog-\w+|AWSAccessKeyId|Signature|sig|sv|se)=)[^&\s\"']+")


def is_url(place: object) -> bool:
    """Whether a place is a URL, and no path."""
    return isinstance(place, str) and URL.match(place) is not None


def any_url(places: Iterable[object]) -> bool:
    """Whether one of several places is a URL."""
    return any(map(is_url, places))


def is_places_run(inputs: Sequence[FilePath], output: FilePath, options: BatchOptions) -> bool:
    """Whether a run reads or writes URLs."""
    kinds = ("masks", "log", "save_masks", "preview", "html_report", "uncertainty")
    own = [getattr(options, name, None) for name in kinds]
    return any_url([*inputs, output, *own]) or (options.files_from is not None and _names_urls(options.files_from))


def _names_urls(listed: FilePath) -> bool:
    """Whether a list names URLs. A pipe cannot be read twice, so it names paths."""
    if not os.path.isfile(listed):
        return False
    with suppress(OSError), open(listed, "rb") as file:
        return is_url(os.fsdecode(file.read(4096).removeprefix(b"\xef\xbb\xbf")).lstrip())
    return False


def settle(place: FilePath, *, what: str = "this") -> str:
    """A place as the rest of this package takes it: a path, or a URL of a known scheme in its usual spelling.

    Args:
        place: as the user gave it. `file://` URLs, which are percent-encoded, become paths.
        what: names the place in errors that must not repeat it.

    Raises:
        RestoreError: exit code 2; an unknown scheme, credentials in the URL, or no bucket.
    """
    text = os.fspath(place)
    found = URL.match(text)
    if found is None:
        return text
    scheme = _SAME.get(found[1].lower(), found[1].lower())
    rest = text[found.end() :]
    if scheme in ("file", "local"):
        host, path = urlsplit(text).netloc, rest.partition("/")[2]
        if host not in ("", "localhost"):
            raise RestoreError("names another machine; mount its folder", where=text)
        return unquote("/" + path)
    if "@" in rest.partition("/")[0]:
        raise RestoreError(
            "holds credentials, which end up in logs and lists of processes",
            where=what,
            hint="set them in the environment, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        )
    if scheme not in SCHEMES:
        known = [*SCHEMES, "file"]
        known.remove("memory")  # for tests
        raise RestoreError(f"{found[1]}:// is not supported", where=text, hint=did_you_mean(scheme, known))
    if not rest.partition("/")[0]:
        raise RestoreError("names no bucket", where=text, hint=f"such as {scheme}://bucket/folder")
    return f"{scheme}://{rest}"


def check_installed(place: str) -> None:
    """Check that what reads a URL is installed.

    Raises:
        RestoreError: exit code 2; it is not.
    """
    package = SCHEMES[scheme_of(place)]
    missing = [name for name in ("fsspec", package) if name and find_spec(name) is None]
    if not missing:
        return
    extra = "'restore-toolkit[cloud]'"
    hint = f"pip install {extra}" + ("" if package in ("", "s3fs") else f" {package}")
    raise RestoreError(f"needs an extra package, {missing[-1]}", where=place, hint=hint)


def scheme_of(url: str) -> str:
    """The scheme of a URL."""
    return url.partition("://")[0]


def bucket_of(url: str) -> str:
    """A URL up to the end of the bucket's name."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}"


def as_folder(place: str) -> str:
    """A folder with the slash that its names follow."""
    return place if place.endswith("/") else place + "/"


def name_of(place: str) -> str:
    """The last part of a place."""
    return place.rstrip("/").rpartition("/")[2] if is_url(place) else os.path.basename(os.path.abspath(place))


def is_below(place: str, folder: str) -> bool:
    """Whether a URL is a folder or below it."""
    return as_folder(place).startswith(as_folder(folder))


def odd_name(name: str) -> str:
    """Why a name cannot be taken into the tree of the outputs; "" if it can.

    Stores allow names that no folder can hold, and that would leave it.
    """
    if any(part in ("", ".", "..") for part in name.split("/")):
        return "the name has an empty part, or . or .., which no folder can hold"
    if "\0" in name:
        return "the name has a NUL, which no folder can hold"
    return ""


def file_name_for(name: str) -> str:
    """A name for the file that holds an object: its own, unless the disk takes none such. The suffix stays."""
    last = PurePosixPath(name.rpartition("/")[2])
    if (
        not last.name
        or len(os.fsencode(last.name)) > 200
        or "\\" in last.name
        or ":" in last.name
        or last.name.startswith(".")
    ):
        return f"file{last.suffix}" if len(os.fsencode(last.suffix)) < 100 else "file"
    return last.name


def redacted(text: str) -> str:
    """A text without what the environment holds as secrets, and without signatures of URLs."""
    for key, value in os.environ.items():
        if len(value) > 5 and _SECRET.search(key):
            text = text.replace(value, "***")
    return _SIGNED.sub(r"\1***", text)
