"""The API's description as a page for people: HTML made of the OpenAPI document, which loads nothing from elsewhere."""

from __future__ import annotations

from html import escape
from typing import Any

from restore.serve.workers import Json

DOCS_CSS = """\
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin: 2.5rem 0 0.5rem; font-size: 1.15rem; overflow-wrap: anywhere; }
h2 code { font-weight: 600; }
table { border-collapse: collapse; width: 100%; margin: 0.5rem 0; font-size: 0.9rem; }
th, td { text-align: left; vertical-align: top; padding: 0.3rem 0.6rem 0.3rem 0; border-bottom: 1px solid #8885; }
code { font-family: ui-monospace, monospace; font-size: 0.95em; }
"""


def docs_page(document: Json) -> str:
    """The page.

    Args:
        document: OpenAPI 3.1, as `FastAPI.openapi` makes it.
    """
    info = document["info"]
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<title>{escape(info["title"])} API</title><link rel="stylesheet" href="/docs.css"></head><body><main>',
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>",
        '<p>The HTTP API. <a href="/openapi.json">OpenAPI 3.1</a> describes it for programs. Errors are problem '
        "details (RFC 9457) with <code>detail</code>, <code>code</code> and <code>hint</code>.</p>",
    ]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            parts += _operation(method, path, operation)
    return "\n".join([*parts, "</main></body></html>"])


def _operation(method: str, path: str, operation: Json) -> list[str]:
    parts = [f"<section><h2><code>{escape(method.upper())} {escape(path)}</code></h2>"]
    parts.append(f"<p>{_text(operation.get('description', ''))}</p>")
    headers = [one for one in operation.get("parameters", []) if one["in"] == "header"]
    if headers:
        rows = [(one["name"], "header", one.get("description", "")) for one in headers]
        parts.append(_table(("header", "", "meaning"), rows))
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        schema = content["schema"]
        parts.append(f"<p>Body: <code>{escape(kind)}</code></p>")
        rows = []
        for name, one in schema["properties"].items():
            need = "required" if name in schema.get("required", []) else ""
            rows.append((name, f"{_kind(one)} {need}".strip(), one.get("description", "")))
            if one.get("type") == "object":
                rows[-1] = (name, "JSON object", "of these, all optional:")
                rows += [
                    (f"{name}.{key}", _kind(value), value.get("description", ""))
                    for key, value in one["properties"].items()
                ]
        parts.append(_table(("part", "type", "meaning"), rows))
    rows = [(code, "", one["description"]) for code, one in operation["responses"].items()]
    parts.append(_table(("status", "", "answer"), rows))
    return [*parts, "</section>"]


def _kind(schema: Json) -> str:
    """The type of a value in words."""
    if "enum" in schema:
        return " | ".join("null" if one is None else str(one) for one in schema["enum"])
    if "anyOf" in schema:
        return " | ".join(_kind(one) for one in schema["anyOf"])
    if schema.get("format") == "binary":
        return "file"
    kind: Any = schema.get("type", "any")
    words = " | ".join(kind) if isinstance(kind, list) else str(kind)
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None:
        words += f" {low:g} to {high:g}" if high is not None else f", at least {low:g}"
    return words


def _table(head: tuple[str, ...], rows: list[tuple[str, str, str]]) -> str:
    lines = ["<table><thead><tr>", *(f"<th>{escape(one)}</th>" for one in head), "</tr></thead><tbody>"]
    for name, kind, meaning in rows:
        lines.append(f"<tr><td><code>{escape(name)}</code></td><td>{escape(kind)}</td><td>{_text(meaning)}</td></tr>")
    return "".join([*lines, "</tbody></table>"])


def _text(text: str) -> str:
    """Text with its `code` set as such."""
    pieces = escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if number % 2 else piece for number, piece in enumerate(pieces))
