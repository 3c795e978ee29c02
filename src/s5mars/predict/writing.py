"""Write pictures atomically."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from s5mars.files import replacing


def write_picture(path: Path, picture: Image.Image, **options: object) -> None:
    """Encode a picture by its file extension and write it atomically; create missing folders.

    The picture is encoded in memory, because Pillow does not report a full disk as such.

    Raises:
        OSError: if writing fails, with a clear message for a full disk.
    """
    encoded = io.BytesIO()
    kind = Image.registered_extensions()[path.suffix.lower()]
    picture.save(encoded, kind, **options)
    with replacing(path) as temporary:
        temporary.write_bytes(encoded.getbuffer())
