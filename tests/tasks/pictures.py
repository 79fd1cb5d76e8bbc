"""Real pictures, made on the spot."""

import struct
import zlib
from io import BytesIO
from typing import Any

from PIL import Image


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photo(width: int = 2400, height: int = 1200, mode: str = "RGB") -> Image.Image:
    """Left half dark, right half light: so that it tells which way up it is."""
    image = Image.new("L", (width, height), 30)
    image.paste(220, (width // 2, 0, width, height))
    return image.convert(mode)


def noise(width: int = 800, height: int = 600) -> Image.Image:
    """A picture that does not compress, so that a cut falls into its pixels."""
    return Image.effect_noise((width, height), 80).convert("RGB")


def bomb(width: int = 60_000, height: int = 60_000) -> bytes:
    """A PNG of a hundred bytes that declares a huge picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
