"""Render a template to a file: values are escaped, and the file is written atomically."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from s5mars.errors import UserError
from s5mars.files import write_text

_TEMPLATES = Environment(
    loader=PackageLoader("s5mars", "report"),
    autoescape=True,
    undefined=StrictUndefined,  # a misspelt name raises an error
    trim_blocks=True,
    lstrip_blocks=True,
)


def _options(text: str) -> Markup:
    """Keep options such as ``--steps`` in one line; browsers break lines after their hyphens."""
    escaped = str(escape(text))
    return Markup(re.sub(r"(?<!\S)--[a-z][a-z-]*", r'<span class="option">\g<0></span>', escaped))


_TEMPLATES.filters["options"] = _options


def rendered(template: str, page: object) -> str:
    """The text of a template of this folder, whose variable is ``page``."""
    return _TEMPLATES.get_template(template).render(page=page) + "\n"


def check_page(out: Path | str | None) -> None:
    """Refuse the path of a page before any work.

    Raises:
        UserError: if it is a folder, or does not end in .html and may be another kind of file.
    """
    if out is None:
        return
    if Path(out).is_dir():
        raise UserError(f"--out must be a file (got the folder {out}); use {out}/report.html")
    if Path(out).suffix.lower() != ".html":
        raise UserError(f"--out must be a .html file (got {out})")


def write_page(template: str, page: Mapping[str, Any], out: Path) -> Path:
    """Render a template and write it atomically.

    Raises:
        UserError: as ``check_page``.
        OSError: if the file cannot be written.
    """
    check_page(out)
    write_text(out, rendered(template, page))
    return out
