"""The example on real input: three sizes of a picture that somebody uploaded."""

from __future__ import annotations

import os
from dataclasses import dataclass
from io import BytesIO
from pathlib import PurePath, PurePosixPath
from typing import IO, Any

from django.conf import settings
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.utils.text import slugify
from PIL import Image, ImageOps, UnidentifiedImageError

from tasks_app.backend import task
from tasks_app.engine.context import RunContext
from tasks_app.files import MADE_FILES, UPLOADS

SIZES = (320, 800, 1600)
"""The longest side of each thumbnail in pixels; a smaller picture is never blown up."""

ENDS_EARLY = "The picture ends early: part of the file is missing."


class BadImage(Exception):
    """The picture cannot be used; the message is one sentence for whoever sent it."""


@dataclass(frozen=True)
class Kind:
    """How pictures of one format are written."""

    suffix: str
    content_type: str
    options: dict[str, Any]


KINDS = {
    "JPEG": Kind("jpg", "image/jpeg", {"quality": 85, "optimize": True, "progressive": True}),
    "PNG": Kind("png", "image/png", {}),
    "WEBP": Kind("webp", "image/webp", {"quality": 82}),
}
# What many cameras write: a JPEG with more pictures (a preview, a depth map) behind the first one.
ALIASES = {"MPO": "JPEG"}


@task(takes_context=True)
def make_thumbnails(context: RunContext, image: str, stored_as: str) -> dict[str, Any]:
    """Write the picture called `image`, at storage path `stored_as`, in three sizes; answers with the files.

    They stand in `runs/<id>/` of the storage. Raises `BadImage`.
    """
    content = read_upload(stored_as)
    picture, kind, original = decode(content, image)
    stem = slugify(PurePath(image).stem)[:60].strip("-") or "picture"
    files = []
    for done, size in enumerate(SIZES):
        context.progress(done, len(SIZES), f"writing {size} px")
        thumbnail = fitted(picture, size)
        name = f"{stem}-{size}.{kind.suffix}"
        written = write(f"{MADE_FILES}/{context.run_id}/{name}", thumbnail, kind)
        files.append(
            {
                "name": name,
                "width": thumbnail.width,
                "height": thumbnail.height,
                "bytes": written,
                "content_type": kind.content_type,
            }
        )
    context.progress(len(SIZES), len(SIZES))
    return {"files": files, "original": {"width": original[0], "height": original[1], "bytes": len(content)}}


def read_upload(path: str) -> bytes:
    """The bytes of an uploaded file; raises `BadImage` for a path elsewhere, and for a file that is gone."""
    parts = PurePosixPath(path).parts
    if len(parts) < 2 or parts[0] != UPLOADS or ".." in parts:
        raise BadImage("Only an uploaded picture can be made smaller.")
    try:
        with default_storage.open(path) as file:
            return file.read()
    except FileNotFoundError:
        raise BadImage("The uploaded picture is no longer there.") from None


def open_image(file: IO[bytes], filename: str) -> tuple[Image.Image, Kind]:
    """The picture as its header tells it, with no pixel decoded yet; raises `BadImage`."""
    try:
        picture = Image.open(file, formats=list(KINDS))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadImage(too_many_pixels(filename)) from None
    except UnidentifiedImageError:
        raise BadImage(f"{filename} is not an image that can be read here. Choose a JPEG, PNG or WebP.") from None
    except Exception as error:  # broken headers raise nearly anything
        if is_short_webp(file):
            raise BadImage(ENDS_EARLY) from error
        raise BadImage(f"{filename} is damaged: it cannot be read as an image.") from error
    if picture.width * picture.height > settings.UPLOAD_MAX_PIXELS:
        raise BadImage(too_many_pixels(filename))
    return picture, KINDS[ALIASES.get(str(picture.format), str(picture.format))]


def is_short_webp(file: IO[bytes]) -> bool:
    """True when a WebP has fewer bytes than it says; its decoder only tells that it does not like it."""
    file.seek(0)
    head = file.read(12)
    length = file.seek(0, os.SEEK_END)
    return head[:4] + head[8:] == b"RIFFWEBP" and length < int.from_bytes(head[4:8], "little") + 8


def too_many_pixels(filename: str) -> str:
    return f"{filename} has more than {settings.UPLOAD_MAX_PIXELS // 1_000_000} megapixels. Choose a smaller picture."


def decode(content: bytes, filename: str) -> tuple[Image.Image, Kind, tuple[int, int]]:
    """The picture upright and in a mode that its format can be written in, at most as large as the largest thumbnail.

    The third of the three is its own width and height, as seen. Raises `BadImage`.
    """
    picture, kind = open_image(BytesIO(content), filename)
    size = picture.size
    try:
        # A JPEG decoder can leave out pixels that nobody will see: a quarter of the memory and time, or less.
        picture.draft(None, fitted_size(size, 2 * max(SIZES)))
        picture.load()
    except Exception as error:
        raise BadImage(why_undecodable(error)) from error
    turned = picture.getexif().get(0x0112, 1) in {5, 6, 7, 8}
    # Made small before it is turned, so that a large picture is not held twice.
    upright = ImageOps.exif_transpose(fitted(writable(picture, kind), max(SIZES)))
    # What else a file tells of its maker (the place, the camera) is not for passing on; its colour profile is.
    profile = picture.info.get("icc_profile") if upright.mode == picture.mode else None
    upright.info = {"icc_profile": profile} if profile else {}
    return upright, kind, (size[1], size[0]) if turned else size


def why_undecodable(error: Exception) -> str:
    text = str(error).lower()
    if any(word in text for word in ("truncated", "premature", "unexpected end", "not enough", "incomplete")):
        return ENDS_EARLY
    return "The picture is damaged: it cannot be decoded."


def writable(picture: Image.Image, kind: Kind) -> Image.Image:
    """The picture in a mode that can be scaled and written in its format, alpha kept where the format has it."""
    if picture.mode.startswith("I"):  # 16 bits a pixel; a plain convert() would clip them to white
        return picture.point(lambda value: value / 256).convert("L")
    if picture.mode == "F":
        return picture.convert("L")
    if picture.has_transparency_data and kind.suffix != "jpg":
        return picture if picture.mode in {"LA", "RGBA"} else picture.convert("RGBA")
    if picture.mode == "1":
        return picture.convert("L")
    return picture if picture.mode in {"L", "RGB"} else picture.convert("RGB")


def fitted(picture: Image.Image, longest: int) -> Image.Image:
    """A picture whose longest side is at most `longest` pixels."""
    size = fitted_size(picture.size, longest)
    if size == picture.size:
        return picture.copy()
    return picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def fitted_size(size: tuple[int, int], longest: int) -> tuple[int, int]:
    scale = min(1.0, longest / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def write(path: str, picture: Image.Image, kind: Kind) -> int:
    """Store the picture, over what an earlier attempt of the same run may have left there; answers its bytes."""
    buffer = BytesIO()
    name = next(name for name, other in KINDS.items() if other is kind)
    picture.save(buffer, name, icc_profile=picture.info.get("icc_profile"), **kind.options)
    default_storage.delete(path)
    default_storage.save(path, ContentFile(buffer.getvalue()))
    return buffer.tell()
