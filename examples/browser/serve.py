"""Serve the page on this machine, with headers that isolate it from other pages and let it use all processor cores.

python examples/browser/serve.py [FOLDER] [PORT]        # default: build/browser 8765
"""

from __future__ import annotations

import contextlib
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

#: The same policy is in the page itself; only a header can also forbid frames.
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    # Shared memory, and with it several threads, needs a page that no other can reach.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class Handler(SimpleHTTPRequestHandler):
    """Serves the files of one folder, and accepts no uploads."""

    extensions_map = {  # noqa: RUF012 - as the standard library has it
        **SimpleHTTPRequestHandler.extensions_map,
        ".mjs": "text/javascript",
        ".js": "text/javascript",
        ".wasm": "application/wasm",
        ".onnx": "application/octet-stream",
    }

    def end_headers(self) -> None:
        """Add the headers to every answer."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Stay quiet."""


def server(folder: Path, port: int) -> ThreadingHTTPServer:
    """A server on 127.0.0.1 that does not run yet; port 0 chooses a free port."""
    return ThreadingHTTPServer(("127.0.0.1", port), partial(Handler, directory=str(folder)))


if __name__ == "__main__":
    arguments = sys.argv[1:]
    place = Path(arguments[0] if arguments else "build/browser")
    if not (place / "models.json").is_file():
        sys.exit(f"{place} is no built page: run examples/browser/build.py first")
    running = server(place, int(arguments[1]) if len(arguments) > 1 else 8765)
    print(f"http://127.0.0.1:{running.server_port}/  (Ctrl-C ends it)")
    with contextlib.suppress(KeyboardInterrupt):
        running.serve_forever()
