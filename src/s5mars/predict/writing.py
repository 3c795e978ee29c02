"""Pictures as files that are either whole or absent."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from s5mars.files import replacing


def write_picture(path: Path, picture: Image.Image, **options: object) -> None:
    """Encode a picture by the ending of its name and write it whole; missing folders are made.

    It is encoded in memory, because Pillow does not report a full disk as such.

    Raises:
        OSError: if writing fails; a full disk is said in words.
    """
    encoded = io.BytesIO()
    kind = Image.registered_extensions()[path.suffix.lower()]
    picture.save(encoded, kind, **options)
    with replacing(path) as temporary:
        temporary.write_bytes(encoded.getbuffer())
