"""The embedded database of a work folder: SQLite with a write-ahead log; what is committed outlives a crash."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from restore.errors import RestoreError

#: Increased whenever the tables change.
VERSION = 1

# A tile's content is stored once and never changed: masks and operations refer to it, so that undoing is a matter of
# references. Numbers of operations start at 1; the first `files.position` of them are done, the others can be redone.
_TABLES = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE files (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    stamp TEXT NOT NULL,
    width INTEGER, height INTEGER,
    reason TEXT NOT NULL DEFAULT '', code TEXT NOT NULL DEFAULT '',
    revision INTEGER NOT NULL DEFAULT 1,
    ground TEXT, original INTEGER NOT NULL DEFAULT 1,
    mask INTEGER NOT NULL DEFAULT 0, position INTEGER NOT NULL DEFAULT 0,
    found INTEGER, found_fraction REAL, found_facts TEXT,
    recipe TEXT NOT NULL DEFAULT '{}',
    result INTEGER, result_name TEXT, result_of TEXT, result_notes TEXT NOT NULL DEFAULT '[]',
    saved TEXT, saved_path TEXT, saved_stamp TEXT
);
CREATE TABLE revisions (id INTEGER PRIMARY KEY AUTOINCREMENT);
INSERT INTO revisions VALUES (1);
CREATE TABLE tiles (id INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE mask_tiles (
    file INTEGER NOT NULL, x INTEGER NOT NULL, y INTEGER NOT NULL, tile INTEGER NOT NULL, PRIMARY KEY (file, x, y)
) WITHOUT ROWID;
CREATE TABLE operations (
    file INTEGER NOT NULL, number INTEGER NOT NULL, kind TEXT NOT NULL, box TEXT NOT NULL, facts TEXT,
    PRIMARY KEY (file, number)
) WITHOUT ROWID;
CREATE TABLE operation_tiles (
    file INTEGER NOT NULL, number INTEGER NOT NULL, x INTEGER NOT NULL, y INTEGER NOT NULL,
    before INTEGER, after INTEGER, PRIMARY KEY (file, number, x, y)
) WITHOUT ROWID;
"""


class Database:
    """A connection that several threads may use, one at a time.

    Args:
        path: the file; it is created if it does not exist.

    Raises:
        RestoreError: exit code 2; it cannot be opened, or a newer version wrote it.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        self._depth, self._path = 0, path
        try:
            self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=10)
            self._connection.row_factory = sqlite3.Row
            self._connection.execute("PRAGMA journal_mode = WAL")
            # A commit survives the end of the process at once, and a power failure after the next checkpoint.
            self._connection.execute("PRAGMA synchronous = NORMAL")
            with self.transaction():
                (version,) = self._connection.execute("PRAGMA user_version").fetchone()
                if version == 0:
                    for statement in _TABLES.split(";\n"):
                        self._connection.execute(statement)
                    self._connection.execute(f"PRAGMA user_version = {VERSION}")
        except sqlite3.Error as error:
            raise RestoreError(
                f"the work folder cannot be opened: {error}", where=path, hint="choose another one with --work"
            ) from error
        if version > VERSION:
            self.close()
            raise RestoreError(
                "a newer version of restore made this work folder", where=path, hint="update, or choose another --work"
            )

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything in the block is committed together, or not at all. Blocks may be nested."""
        with self._lock:
            if self._depth == 0:
                self.run("BEGIN IMMEDIATE")
            self._depth += 1
            try:
                yield
            except BaseException:
                self._depth -= 1
                if self._depth == 0:
                    self._roll_back()
                raise
            self._depth -= 1
            if self._depth == 0:
                try:
                    self.run("COMMIT")
                except RestoreError:
                    self._roll_back()
                    raise

    def _roll_back(self) -> None:
        with suppress(sqlite3.OperationalError):  # SQLite has done so already, as when the disk is full
            self._connection.execute("ROLLBACK")

    def run(self, statement: str, *values: Any) -> int:
        """Carry out a statement. Returns the number of the row that it inserted."""
        with self._lock, _own_errors("written", self._path):
            return self._connection.execute(statement, values).lastrowid or 0

    def rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        """All rows of a query."""
        with self._lock, _own_errors("read", self._path):
            return self._connection.execute(query, values).fetchall()

    def row(self, query: str, *values: Any) -> sqlite3.Row | None:
        """The first row of a query."""
        with self._lock, _own_errors("read", self._path):
            row: sqlite3.Row | None = self._connection.execute(query, values).fetchone()
            return row

    def number(self, query: str, *values: Any) -> int:
        """The number that a query gives."""
        row = self.row(query, *values)
        assert row is not None
        return int(row[0])

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._connection.close()


@contextmanager
def _own_errors(what: str, path: Path) -> Iterator[None]:
    """Say what SQLite says: the disk is full or gone, or the file was damaged."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise RestoreError(f"the work folder cannot be {what}: {error}", where=path, exit_code=1) from error
