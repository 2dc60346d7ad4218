"""Opening a folder for the page: its listing, its work folder, and the routes over them."""

from __future__ import annotations

import html
import os
from pathlib import Path

from fastapi import APIRouter

from restore.fix.inputs import check_input
from restore.serve.jobs import Jobs
from restore.serve.page.listing import list_images
from restore.serve.page.routes import page_routes
from restore.serve.page.session import Session
from restore.serve.page.work_folder import default_work
from restore.serve.page.workspace import Workspace
from restore.serve.settings import ServeSettings

#: Models that are opened when the first thumbnails are there.
WARM = ("inpaint", "detector")


class OpenedPage:
    """A folder that is open.

    Args:
        workspace: of the folder.
        settings: of the server.
        warm: models to open in the background.
    """

    def __init__(self, workspace: Workspace, settings: ServeSettings, warm: tuple[str, ...] = WARM) -> None:
        self.workspace, self._settings, self._warm = workspace, settings, warm
        self.output, self.work, self.warnings = workspace.output, workspace.work, workspace.listing.warnings
        self.session: Session | None = None
        self._leading: Path | None = None

    def routes(self, jobs: Jobs) -> APIRouter:
        """The routes of the page, see `restore.serve.app.create_app`. The work begins."""
        self.session = Session(self.workspace, jobs, max_pixels=self._settings.max_pixels, warm=self._warm)
        self.session.start()
        return page_routes(self.session)

    def address_for_browser(self, address: str) -> str:
        """The address to start a browser with. All users of a machine see the arguments of its processes, so that a
        token must not be among them: the browser gets the address of a file that leads on, and that nobody else reads.
        """
        if "?" not in address:
            return address
        self._leading = self.work / "open.html"
        self._leading.unlink(missing_ok=True)
        target = html.escape(address)
        with open(os.open(self._leading, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(
                f'<!doctype html><meta charset="utf-8"><title>restore</title><meta http-equiv="refresh" '
                f'content="0;url={target}"><p><a href="{target}">Open the photographs</a></p>\n'
            )
        return self._leading.as_uri()

    def close(self) -> None:
        """Close the work folder."""
        if self._leading is not None:
            self._leading.unlink(missing_ok=True)
        self.workspace.close()


def open_page(opened: Path, settings: ServeSettings, *, warm: tuple[str, ...] = WARM) -> OpenedPage:
    """Open a folder, or one file.

    Args:
        opened: the folder or file.
        settings: `output`, `work` and `max_pixels` apply here.
        warm: models to open in the background.

    Raises:
        RestoreError: exit code 2; it cannot be opened, or the output or work folder does not suit.
    """
    check_input(opened)
    listing = list_images(opened, settings.output, settings.max_pixels)
    # One file of a folder has work of its own, so that both may be open.
    return OpenedPage(Workspace(listing, settings.work or default_work(listing.opened)), settings, warm)
