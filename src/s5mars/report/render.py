"""Templates to a file: everything is escaped, and the file appears whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from s5mars.errors import UserError
from s5mars.files import write_text

_TEMPLATES = Environment(
    loader=PackageLoader("s5mars", "report"),
    autoescape=True,
    undefined=StrictUndefined,  # a misspelt name is an error, not an empty place on the page
    trim_blocks=True,
    lstrip_blocks=True,
)


def write_page(template: str, page: Mapping[str, Any], out: Path) -> Path:
    """Fill a template and put it in place by rename.

    Args:
        template: file name of the template in this folder.
        page: what the template calls ``page``.
        out: the file to write; folders on the way are made.

    Raises:
        UserError: if ``out`` is a folder.
        OSError: if the file cannot be written.
    """
    if out.is_dir():
        raise UserError(f"{out} is a folder; name the HTML file to write, e.g. {out}/report.html")
    text = _TEMPLATES.get_template(template).render(page=page)
    write_text(out, text)
    return out
