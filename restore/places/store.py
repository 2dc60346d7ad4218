"""Object stores behind URLs, through fsspec: whole objects or none, retries, and reasons in words.

Credentials come from the environment alone, as each store's own tools read them.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import mimetypes
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Any, TypeVar

from restore.errors import RestoreError
from restore.fix.log import ReasonCode
from restore.places.urls import SCHEMES, as_folder, bucket_of, check_installed, redacted, scheme_of

#: How often a request is tried, and the longest pause after the first failure; each further pause is twice as long.
ATTEMPTS = 5
FIRST_PAUSE_SECONDS = 0.5
#: Transfers at a time.
TRANSFERS = 8
CONNECT_SECONDS, READ_SECONDS = 10, 60

_CHUNK = 1 << 20

logger = logging.getLogger(__name__)
T = TypeVar("T")


class StoreError(RestoreError):
    """A request to a store that failed; exit code 1."""

    code: ReasonCode = "io_error"


class NotThere(StoreError):
    """There is no such object or bucket."""

    code = "not_found"


class Forbidden(StoreError):
    """The credentials do not allow it, or there are none."""

    code = "no_permission"


class ExistsAlready(StoreError):
    """Another writer has written this object; it stays."""

    code = "output_exists"


class ChangedMeanwhile(StoreError):
    """The object was replaced while it was read."""

    code = "changed"


class Unreachable(StoreError):
    """The store has not answered in all attempts."""


@dataclass(frozen=True)
class ObjectInfo:
    """What a store says of an object.

    Attributes:
        size: in bytes.
        modified: seconds since 1970; None: unknown.
        version: differs between two contents of one object.
        metadata: what users have attached to it.
    """

    size: int
    modified: float | None = None
    version: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """An object of a listing: its name below the folder that was listed, and its size in bytes."""

    name: str
    size: int


class Store:
    """The objects of one scheme. All methods may be called from several threads.

    Every method raises a `StoreError`. URLs are as `settle` returns them.
    """

    def __init__(self, scheme: str) -> None:
        import fsspec

        self.scheme = scheme
        settings: dict[str, Any] = {}
        if scheme == "s3":
            # Retries are counted here alone; those of three layers would multiply.
            settings["config_kwargs"] = {
                "retries": {"total_max_attempts": 1},
                "connect_timeout": CONNECT_SECONDS,
                "read_timeout": READ_SECONDS,
            }
        if scheme != "memory":
            settings |= {"use_listings_cache": False, "skip_instance_cache": True}
        self.files = fsspec.filesystem(scheme, **settings)
        if scheme == "s3":
            self.files.retries = 1
        package = SCHEMES[scheme]
        if scheme in ("s3", "gs") and "mode" not in signature(self.files._put_file).parameters:
            # It would take the condition of a write for one of other arguments that it ignores.
            what = "this version cannot write without replacing what another program has written"
            raise RestoreError(what, where=package, hint=f"pip install --upgrade {package}")

    def kind(self, url: str) -> str:
        """`file`, `folder`, or "" if there is neither.

        A name that ends in a slash is a folder, whether or not objects are in it.
        """
        if not url.endswith("/") and "/" in url.partition("://")[2]:
            try:
                self.info(url)
            except NotThere:
                pass
            else:
                return "file"
        return "folder" if self._is_folder(as_folder(url)) else ""

    def info(self, url: str) -> ObjectInfo:
        """What the store says of an object; not of a folder."""
        return self._try(lambda: self._info(url), url)

    def exists(self, url: str) -> bool:
        """Whether there is such an object."""
        try:
            self.info(url)
        except NotThere:
            return False
        return True

    def list(self, folder: str) -> Iterator[Entry]:
        """All objects below a folder, page by page where the store has pages. Its own name ends in a slash.

        An empty folder has none; a missing bucket is an error.
        """
        path = folder.partition("://")[2]
        bucket, _, prefix = path.partition("/")
        if self.scheme == "s3":
            yield from self._list_s3(folder, bucket, prefix)
            return
        found = self._try(lambda: self._find(path), folder)
        for name, info in found.items():
            name = name.lstrip("/")
            if info["type"] == "file" and name.startswith(path):
                yield Entry(name.removeprefix(path), int(info["size"] or 0))

    def read(self, url: str) -> bytes:
        """The content of a small object."""
        return self._try(lambda: bytes(self.files.cat_file(url)), url)

    def head(self, url: str, size: int) -> bytes:
        """The first bytes of an object that is not empty."""
        return self._try(lambda: bytes(self.files.cat_file(url, start=0, end=size)), url)

    def download(self, url: str, path: Path) -> ObjectInfo:
        """Write an object to a file, with its time. It comes whole and in one version."""

        def get() -> ObjectInfo:
            before, came = self._first_of_s3(url, path) if self.scheme == "s3" else (self._info(url), False)
            if came:
                return before
            if self.scheme == "memory":
                # All readers of an object of fsspec's memory share one position in it.
                path.write_bytes(self.files.cat_file(url))
            else:
                self.files.get_file(url, os.fspath(path))
            after = self._info(url)
            if before.version != after.version or path.stat().st_size != after.size:
                raise ChangedMeanwhile("changed while it was read", where=url, hint="run again", exit_code=1)
            return after

        info = self._try(get, url)
        if info.modified is not None:
            os.utime(path, (info.modified, info.modified))
        return info

    def upload(
        self,
        path: Path,
        url: str,
        *,
        overwrite: bool,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Write a file as an object, in one step: it is there whole, or not at all.

        Args:
            path: the file.
            url: of the object.
            overwrite: replace an object of this name; otherwise it stays, also if it was written a moment ago.
            content_type: None: by the name.
            metadata: what to attach to it; only on S3.

        Raises:
            ExistsAlready: there is another object of this name, with another content.
        """
        kind = content_type or mimetypes.guess_type(url)[0]
        options: dict[str, Any] = {}
        if self.scheme == "s3":
            options = {"ContentType": kind} if kind else {}
            options |= {"Metadata": dict(metadata)} if metadata else {}
        elif self.scheme == "gs" and kind:
            options = {"content_type": kind}
        elif self.scheme == "az" and kind:
            from azure.storage.blob import ContentSettings  # of what adlfs needs

            options = {"content_settings": ContentSettings(content_type=kind)}
        if self.scheme == "az":
            options["overwrite"] = overwrite
        else:
            options["mode"] = "overwrite" if overwrite else "create"

        def put() -> None:
            try:
                self.files.put_file(os.fspath(path), url, **options)
            except Exception as error:
                if overwrite or not _has_no_conditions(error):
                    raise
                # Some servers know no conditional writes. Between the question and the answer, another may write.
                if self.exists(url):
                    raise FileExistsError(errno.EEXIST, "exists", url) from error
                self.files.put_file(os.fspath(path), url, **options | {"mode": "overwrite"})

        try:
            self._try(put, url)
        except ExistsAlready:
            # The answer to an earlier attempt may have been lost on its way.
            if not self._holds(url, path):
                raise

    def write(self, data: bytes, url: str) -> None:
        """Write a small object, and replace what has its name."""
        self._try(lambda: self.files.pipe_file(url, data), url)

    def sha256(self, url: str) -> str:
        """The SHA-256 of an object, in hexadecimal."""

        def digest() -> str:
            if self.scheme == "memory":
                return hashlib.sha256(self.files.cat_file(url)).hexdigest()
            total = hashlib.sha256()
            with self.files.open(url, "rb", block_size=5 * _CHUNK) as file:
                while chunk := file.read(_CHUNK):
                    total.update(chunk)
            return total.hexdigest()

        return self._try(digest, url)

    def _holds(self, url: str, path: Path) -> bool:
        """Whether an object has the content of a file."""
        return self.info(url).size == path.stat().st_size and self.sha256(url) == sha256_of_file(path)

    def _info(self, url: str) -> ObjectInfo:
        if self.scheme == "s3":
            bucket, _, key = url.partition("://")[2].partition("/")
            return _s3_info(self.files.call_s3("head_object", Bucket=bucket, Key=key))
        info = self.files.info(url)
        if info["type"] != "file":
            raise FileNotFoundError(errno.ENOENT, "no object", url)
        times = [info[key] for key in ("mtime", "updated", "last_modified", "created") if info.get(key)]
        marks = [info.get(key) for key in ("generation", "etag", "ETag", "content_settings", "created", "size")]
        return ObjectInfo(int(info["size"] or 0), _seconds(times[0]) if times else None, str(marks))

    def _first_of_s3(self, url: str, path: Path) -> tuple[ObjectInfo, bool]:
        """Ask for a whole object, which comes in one version, with what the store says of it.

        Returns:
            What it says, and whether the file is written: fsspec brings large objects faster, in parts.
        """
        bucket, _, key = url.partition("://")[2].partition("/")

        async def get() -> tuple[ObjectInfo, bool]:
            answer = await self.files._call_s3("get_object", Bucket=bucket, Key=key)
            info, body = _s3_info(answer), answer["Body"]
            if info.size > self.files.default_block_size:
                body.close()
                return info, False
            with open(path, "wb") as file:
                try:
                    while chunk := await body.read(_CHUNK):
                        file.write(chunk)
                except OSError:
                    raise
                except Exception as error:
                    raise ConnectionError(f"the answer broke off: {error}") from None
            return info, True

        from fsspec.asyn import sync

        info, came = sync(self.files.loop, get)
        if came and path.stat().st_size != info.size:
            raise ConnectionError(f"{path.stat().st_size} of {info.size} bytes came")
        return info, came

    def _is_folder(self, folder: str) -> bool:
        """Whether a folder holds anything."""
        path = folder.partition("://")[2].rstrip("/")
        if self.scheme in ("gs", "az"):
            # A listing of all objects comes whole, and may take minutes.
            try:
                if "/" not in path:
                    return bool(self._try(lambda: self.files.ls(path, detail=False), folder))
                if self._try(lambda: self.files.info(path), folder)["type"] == "directory":
                    return True
            except NotThere:  # the listing, which is empty, tells whether its bucket is
                pass
        return next(self.list(folder), None) is not None

    def _list_s3(self, folder: str, bucket: str, prefix: str) -> Iterator[Entry]:
        """Page by page: the listing of fsspec holds a dictionary for every object."""
        token: dict[str, str] = {}

        def page() -> Any:
            return self.files.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, **token)

        while True:
            answer = self._try(page, folder)
            for item in answer.get("Contents", ()):
                name = item["Key"][len(prefix) :]
                if name and not name.endswith("/"):  # a mark of a folder
                    yield Entry(name, int(item["Size"]))
            if not answer.get("IsTruncated"):
                return
            token = {"ContinuationToken": answer["NextContinuationToken"]}

    def _find(self, path: str) -> dict[str, Any]:
        try:
            return dict(self.files.find(path, detail=True))
        except FileNotFoundError:
            # An empty folder is none; a missing bucket should be told.
            if self.scheme != "memory":
                self.files.info(bucket_of(f"{self.scheme}://{path}"))
            return {}

    def _try(self, request: Callable[[], T], url: str) -> T:
        """Make a request until it succeeds, or cannot."""
        for attempt in range(ATTEMPTS):
            try:
                return request()
            except StoreError:
                raise
            except Exception as error:
                failed = _told(error, url)
                if not isinstance(failed, Unreachable):
                    raise failed from error
                logger.debug("%s: attempt %d: %s", url, attempt + 1, redacted(str(error)))
                if attempt + 1 == ATTEMPTS:
                    raise failed from error
                time.sleep(FIRST_PAUSE_SECONDS * 2**attempt * random.uniform(0.5, 1))
        raise AssertionError("unreachable")


_stores_lock = threading.Lock()


def store_of(url: str) -> Store:
    """The store of a URL; one of each scheme in a process.

    Raises:
        RestoreError: exit code 2; what it needs is not installed.
    """
    check_installed(url)
    with _stores_lock:
        return _store(scheme_of(url))


@cache
def _store(scheme: str) -> Store:
    return Store(scheme)


def sha256_of_file(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    total = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            total.update(chunk)
    return total.hexdigest()


def _s3_info(answer: dict[str, Any]) -> ObjectInfo:
    """What an answer of S3 says of its object."""
    return ObjectInfo(
        int(answer["ContentLength"]),
        answer["LastModified"].timestamp(),
        f"{answer.get('ETag')} {answer.get('VersionId')}",
        answer.get("Metadata") or {},
    )


def _seconds(when: object) -> float | None:
    if isinstance(when, datetime):
        return when.timestamp()
    if isinstance(when, str):
        try:
            return datetime.fromisoformat(when.replace("Z", "+00:00")).timestamp()
        except ValueError:
            return None
    return float(when) if isinstance(when, int | float) else None


def _code(error: BaseException) -> str:
    """The code that a server gave: a word of S3, or else a status of HTTP; "" if there is none."""
    cause: BaseException | None = error
    while cause is not None:
        response = getattr(cause, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        status = getattr(cause, "status_code", None) or getattr(cause, "code", None)  # of Azure, of Google
        if str(status).isdigit():
            return str(status)
        cause = cause.__cause__
    # gcsfs has no class for it.
    return "403" if isinstance(error, OSError) and str(error).startswith("Forbidden: ") else ""


def _has_no_conditions(error: BaseException) -> bool:
    """Whether a server refused the condition of a write, not the write."""
    return _code(error) in ("NotImplemented", "501") or getattr(error, "errno", None) == errno.ENOSYS


#: Errors of the stores' packages for which a retry is useless, by the names of their classes.
_NO_CREDENTIALS = (
    "NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "DefaultCredentialsError",
    "ProfileNotFound", "TokenRetrievalError", "ClientAuthenticationError", "RefreshError",
)  # fmt: skip
_MISUSED = (
    "ParamValidationError", "InvalidRegionError", "NoRegionError", "InvalidEndpointDiscoveryConfigurationError",
)  # fmt: skip
#: Codes of S3 for which a retry is useless, although fsspec does not tell them from others.
_REFUSED = (
    "InvalidBucketName", "PermanentRedirect", "301", "AuthorizationHeaderMalformed", "InvalidRequest", "400",
    "KeyTooLongError", "EntityTooLarge", "MetadataTooLarge", "InvalidArgument", "MethodNotAllowed", "405",
)  # fmt: skip


def _told(error: Exception, url: str) -> StoreError:
    """An error of a request in words. `Unreachable`: it may succeed if it is tried again."""
    code, name = _code(error), type(error).__name__
    own: dict[str, Any] = {"where": url, "exit_code": 1}
    detail = redacted(" ".join(str(error).split()))[:300] or name
    if code == "NoSuchBucket":
        return NotThere("this bucket does not exist", where=bucket_of(url), exit_code=1)
    if isinstance(error, FileExistsError) or code in ("PreconditionFailed", "412"):
        return ExistsAlready("an object with this name appeared during the run and was not overwritten", **own)
    if isinstance(error, FileNotFoundError) or code == "404":
        return NotThere("there is no such object", **own)
    if name in _NO_CREDENTIALS:
        return Forbidden(f"no valid credentials in the environment ({detail})", **own)
    if isinstance(error, PermissionError) or code in ("401", "403"):
        return Forbidden(f"no permission ({detail})", **own)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "TMPDIR chooses another folder"
        return StoreError("the disk of the work folder is full", hint=hint, **own)
    if name in _MISUSED or code in _REFUSED or isinstance(error, ValueError | TypeError | NotImplementedError):
        return StoreError(f"the store refuses it: {detail}", **own)
    return Unreachable(f"the store does not answer, or fails: {detail}", **own)
