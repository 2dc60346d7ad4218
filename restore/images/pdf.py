"""Reads the pages of PDF documents as images, with the extra package pypdfium2."""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np

from restore.images.decoder_output import DamagedFile, DecoderOutput, check_size
from restore.images.formats import UnsupportedFile

#: Of a page without images. A scanned page has the resolution of its largest image, within these limits.
_DPI, _LOWEST_DPI, _HIGHEST_DPI = 300.0, 72.0, 2400.0
#: A page is drawn at its pixels' own size; libraries round up what is a hair larger.
_HAIR = 1 - 1e-6

_lock = threading.Lock()  # PDFium is not safe for several threads


def decode_pdf(data: bytes, name: str | os.PathLike[str], max_pixels: int, page: int = 0) -> DecoderOutput:
    """Draw a page of a PDF document, on white.

    Args:
        data: the whole file.
        name: for messages.
        max_pixels: as for `decode`.
        page: which, from 0.

    Returns:
        RGB of 8 bits; `frames` is the number of pages.

    Raises:
        UnsupportedFile: exit code 1; the document needs a password.
        DamagedFile, ImageTooLarge: exit code 1, as for `decode`.
    """
    import pypdfium2

    with _lock:
        try:
            document = pypdfium2.PdfDocument(data)
            try:
                count = len(document)
                drawn = document[page]
                width, height = drawn.get_size()
                dpi = _own_dpi(drawn)
                check_size(round(width * dpi / 72), round(height * dpi / 72), max_pixels, name)
                values = drawn.render(scale=dpi / 72 * _HAIR, rev_byteorder=True).to_numpy()[:, :, :3].copy()
            finally:
                document.close()
        except (pypdfium2.PdfiumError, IndexError) as error:
            if "password" in str(error).lower():
                what = "the PDF document needs a password"
                raise UnsupportedFile(what, where=name, hint="save it without one", exit_code=1) from error
            what = "the PDF document cannot be decoded: it is broken, or has no pages"
            raise DamagedFile(what, where=name, exit_code=1) from error
    note = f"a page of a PDF document is drawn at {dpi:.0f} pixels per inch, in sRGB"
    return DecoderOutput(values.astype(np.uint8, copy=False), 3, frames=count, dpi=(dpi, dpi), notes=[note])


def _own_dpi(page: Any) -> float:
    """The resolution of the largest image on a page."""
    from pypdfium2.raw import FPDF_PAGEOBJ_IMAGE

    largest, dpi = 0, _DPI
    for image in page.get_objects(filter=(FPDF_PAGEOBJ_IMAGE,), max_depth=5):
        across, down = image.get_px_size()
        left, bottom, right, top = image.get_bounds()
        if across * down > largest and right > left and top > bottom:
            largest = across * down
            turned = (across > down) != (right - left > top - bottom)
            dpi = 72 * (down if turned else across) / (right - left)
    return min(max(dpi, _LOWEST_DPI), _HIGHEST_DPI)
