"""Read what is to be predicted; products in separate processes, so that a crash ends only itself.

Nothing here imports torch, so that such a process starts in a fraction of a second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from os import PathLike

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from s5mars.errors import REMEDY, UserError, as_typed
from s5mars.files import given_path
from s5mars.parallel.workers import CrashError, Processes
from s5mars.predict.sources import Source
from s5mars.products import open_product
from s5mars.products.no_data import empty_pixels


@dataclass(frozen=True)
class Failed:
    """A product that cannot be predicted."""

    source: Source
    reason: str  # one line that names the file


@dataclass(frozen=True)
class Read:
    """A decoded product."""

    source: Source
    image: NDArray[np.uint8]  # (H, W, 3)
    empty: NDArray[np.bool_]  # (H, W), no data
    info: Mapping[str, object] = field(default_factory=dict)  # metadata of the product


Reader = Callable[[Source], Read | Failed]

Picture = NDArray[np.uint8] | Image.Image | str | PathLike[str] | Read
"""What ``open_picture`` reads."""


def read_product(source: Source) -> Read | Failed:
    """Decode a product; any error is recorded as its failure and does not stop the others."""
    try:
        return _read(source)
    # Readers of planetary formats raise arbitrary exceptions.
    except Exception as error:
        return failed(source, error)


def _read(source: Source) -> Read:
    product = open_product(source.path)
    empty = empty_pixels(product.image, product.valid)
    return Read(source, product.image, empty, product.row())


def open_picture(
    picture: Picture,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None, Mapping[str, object]]:
    """Read a picture of any kind.

    Args:
        picture: path of an image or product, a Pillow image of 8 bits (an EXIF orientation is
            applied, transparency is not), (H, W, 3) or (H, W) uint8, or a ``Read``.

    Returns:
        (H, W, 3) uint8 RGB, contiguous; (H, W) where there is no data and the metadata, for a file.

    Raises:
        MissingFileError: if the file does not exist.
        UserError: if the file cannot be read, the path is a folder, the Pillow image has more than
            8 bits, or dtype or shape of the array is wrong.
    """
    if isinstance(picture, str | PathLike):
        path = given_path(picture)
        if path.is_dir():
            raise UserError(
                f"{path} is a folder: give one image, or map all of them with "
                f"`s5mars predict MODEL {as_typed(path)} --out maps`"
            )
        picture = _read(Source(path, path.name))
    if isinstance(picture, Read):
        return checked(picture.image), picture.empty, picture.info
    if isinstance(picture, Image.Image):
        if picture.mode.startswith(("I", "F")):
            raise UserError(
                f"the image has mode {picture.mode}, of more than 8 bits a channel: give the path "
                "of its file, or convert it to RGB"
            )
        picture = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    return checked(picture), None, {}


def checked(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) uint8, contiguous; grey (H, W) is repeated.

    Raises:
        UserError: naming the dtype or shape that was given.
    """
    image = np.asarray(image)
    if image.dtype != np.uint8:
        raise UserError(
            f"image must have dtype uint8 in 0..255 (got {image.dtype}); rescale it first, or read "
            "the file with s5mars.data.read.read_image"
        )
    if image.ndim == 2:
        image = np.repeat(image[:, :, None], 3, axis=2)
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise UserError(
            f"image must have shape (height, width, 3) or (height, width) (got {image.shape})"
        )
    return np.ascontiguousarray(image)


def start_reader(_number: int) -> Reader:
    """The function that a process of ``Readers`` runs."""
    return read_product


class Readers(Processes[Source, Read | Failed]):
    """``read_product`` in several processes; a product that kills its process has failed.

    A decoder that crashes on a broken file, or a file that takes all memory, cannot be caught in
    the same process. Call this from as many threads as there are processes.
    """

    def __init__(self, *, most: int, start: Callable[[int], Reader] = start_reader) -> None:
        super().__init__(start, most=most)

    def __call__(self, source: Source) -> Read | Failed:
        """The product, or the reason why it cannot be read."""
        try:
            return super().__call__(source)
        except CrashError as crash:
            return Failed(source, f"{source.path}: the reader crashed ({crash}): {REMEDY}")


def failed(source: Source, error: BaseException) -> Failed:
    """The error as one line that names the product."""
    path = " ".join(str(source.path).splitlines())
    said = str(error).replace(str(source.path), path)
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    if isinstance(error, MemoryError):
        text = "not enough memory"
    return Failed(source, text if path in text else f"{path}: {text}")
