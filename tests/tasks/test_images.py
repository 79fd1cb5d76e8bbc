"""make_thumbnails on real pictures, called directly."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from PIL import Image, ImageCms

from tasks_app.engine.context import RunContext
from tasks_app.tasks import make_thumbnails
from tasks_app.tasks.images import BadImage
from tests.tasks.pictures import bomb, encoded, noise, photo

call: Callable[[Any, str, str], dict[str, Any]] = cast(Any, make_thumbnails.call)
"""As a worker does it; the type of `call` leaves out the context that it has to be given."""


@pytest.fixture(autouse=True)
def media(settings: Any, tmp_path: Path) -> Path:
    settings.MEDIA_ROOT = tmp_path
    return tmp_path


class Thumbnails:
    """What one call made of a picture."""

    def __init__(self, content: bytes, filename: str = "Harbour at dusk.jpg", run_id: str = "") -> None:
        self.run_id = run_id or str(uuid.uuid4())
        self.told: list[dict[str, Any]] = []
        context = RunContext(task_result=Mock(id=self.run_id, attempts=1), report=self.told.append)
        path = default_storage.save("uploads/picture", ContentFile(content))
        self.result = call(context, filename, path)

    @property
    def sizes(self) -> list[tuple[int, int]]:
        return [(file["width"], file["height"]) for file in self.result["files"]]

    @property
    def images(self) -> list[Image.Image]:
        return [Image.open(BytesIO(self.read(file["name"]))) for file in self.result["files"]]

    def read(self, name: str) -> bytes:
        with default_storage.open(f"runs/{self.run_id}/{name}") as file:
            return file.read()


@pytest.mark.parametrize(("kind", "suffix"), [("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp")])
def test_three_sizes_in_the_format_of_the_picture(kind: str, suffix: str) -> None:
    made = Thumbnails(encoded(photo(), kind))

    assert made.sizes == [(320, 160), (800, 400), (1600, 800)]
    assert [(image.format, image.size) for image in made.images] == [(kind, size) for size in made.sizes]
    assert [file["name"] for file in made.result["files"]] == [
        f"harbour-at-dusk-{size}.{suffix}" for size in (320, 800, 1600)
    ]
    assert {file["content_type"] for file in made.result["files"]} == {f"image/{kind.lower()}"}
    assert all(file["bytes"] == len(made.read(file["name"])) for file in made.result["files"])


def test_the_result_tells_the_original() -> None:
    content = encoded(photo(2400, 1200), "JPEG")

    assert Thumbnails(content).result["original"] == {"width": 2400, "height": 1200, "bytes": len(content)}


def test_progress_is_told_for_each_size() -> None:
    told = Thumbnails(encoded(photo(), "JPEG")).told

    assert [(progress["done"], progress["total"], progress["message"]) for progress in told] == [
        (0, 3, "writing 320 px"),
        (1, 3, "writing 800 px"),
        (2, 3, "writing 1600 px"),
        (3, 3, ""),
    ]


def test_a_small_picture_is_never_blown_up() -> None:
    assert Thumbnails(encoded(photo(500, 400), "PNG")).sizes == [(320, 256), (500, 400), (500, 400)]
    assert Thumbnails(encoded(photo(1, 1), "PNG")).sizes == [(1, 1)] * 3


def test_a_sliver_keeps_a_pixel() -> None:
    assert Thumbnails(encoded(photo(8000, 2), "PNG")).sizes == [(320, 1), (800, 1), (1600, 1)]


def left_is_dark(image: Image.Image) -> bool:
    pixels = image.convert("L")
    left, right = pixels.getpixel((5, image.height // 2)), pixels.getpixel((image.width - 5, image.height // 2))
    return left < right  # type: ignore[operator]


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "CMYK"])
def test_a_jpeg_of_any_mode_comes_out_as_it_looks(mode: str) -> None:
    image = Thumbnails(encoded(photo(mode=mode) if mode != "1" else photo().convert("L"), "JPEG")).images[0]

    assert image.mode in {"L", "RGB"}
    assert left_is_dark(image)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_a_png_of_any_mode_comes_out_as_it_looks(mode: str) -> None:
    if mode == "I;16":
        line = (30 * 256).to_bytes(2, "little") * 1200 + (220 * 256).to_bytes(2, "little") * 1200
        source = Image.frombytes("I;16", (2400, 1200), line * 1200)
    else:
        source = photo(mode=mode)
    image = Thumbnails(encoded(source, "PNG")).images[0]

    assert left_is_dark(image)
    assert image.convert("L").getpixel((300, 80)) == pytest.approx(220, abs=36 if mode == "1" else 3)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_transparency_is_kept(kind: str) -> None:
    source = photo(mode="RGBA")
    source.paste((0, 0, 0, 0), (0, 0, 1200, 1200))
    image = Thumbnails(encoded(source, kind, **({"lossless": True} if kind == "WEBP" else {}))).images[1]

    alpha = image.convert("RGBA").getchannel("A")
    assert (alpha.getpixel((10, 10)), alpha.getpixel((790, 390))) == (0, 255)


def test_a_palette_with_a_transparent_colour_keeps_it() -> None:
    source = photo(mode="P")
    source.info["transparency"] = source.getpixel((5, 5))
    image = Thumbnails(encoded(source, "PNG", transparency=source.getpixel((5, 5)))).images[1]

    assert image.convert("RGBA").getpixel((5, 5))[3] == 0  # type: ignore[index]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(("orientation", "turned"), [(1, False), (3, False), (6, True), (8, True)])
def test_a_picture_comes_out_upright(kind: str, orientation: int, turned: bool) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    made = Thumbnails(encoded(photo(), kind, exif=exif))

    assert made.sizes[0] == ((160, 320) if turned else (320, 160))
    original = made.result["original"]
    assert (original["width"], original["height"]) == ((1200, 2400) if turned else (2400, 1200))
    image = made.images[0]
    assert not image.getexif().get(0x0112)
    if not turned:
        assert left_is_dark(image) is (orientation == 1)
    else:
        top_is_dark = image.convert("L").getpixel((80, 5)) < image.convert("L").getpixel((80, 315))  # type: ignore[operator]
        assert top_is_dark is (orientation == 6)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_where_it_was_taken_is_not_passed_on(kind: str) -> None:
    exif = Image.Exif()
    exif[0x010F] = "SecretCamera"
    options: dict[str, Any] = {"comment": b"SecretPlace"} if kind == "JPEG" else {}
    made = Thumbnails(encoded(photo(), kind, exif=exif, **options))

    for file in made.result["files"]:
        assert b"Secret" not in made.read(file["name"])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_colour_profile_is_kept(kind: str) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()

    assert all(
        image.info["icc_profile"] == profile
        for image in Thumbnails(encoded(photo(), "JPEG", icc_profile=profile)).images
    )


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_of_an_animation_the_first_frame_is_taken(kind: str) -> None:
    frames = [photo().rotate(180), photo()]
    content = encoded(photo(), kind, save_all=True, append_images=frames, duration=100, loop=0)
    image = Thumbnails(content).images[0]

    assert getattr(image, "n_frames", 1) == 1
    assert left_is_dark(image)


def test_a_jpeg_with_more_pictures_behind_the_first_is_a_jpeg() -> None:
    content = encoded(photo(), "MPO", save_all=True, append_images=[photo(640, 480)])
    made = Thumbnails(content)

    assert Image.open(BytesIO(content)).format == "MPO"
    assert [image.format for image in made.images] == ["JPEG"] * 3


@pytest.mark.parametrize(
    ("filename", "stem"),
    [
        ("../../etc/passwd", "passwd"),
        ("Hafen bei Nacht (1).JPG", "hafen-bei-nacht-1"),
        ("写真.jpg", "picture"),
        ("", "picture"),
        ("<script>.jpg", "script"),
        ("x" * 300 + ".jpg", "x" * 60),
    ],
)
def test_a_name_becomes_a_harmless_one(filename: str, stem: str) -> None:
    made = Thumbnails(encoded(photo(400, 200), "JPEG"), filename)

    assert made.result["files"][0]["name"] == f"{stem}-320.jpg"


def test_a_second_attempt_writes_over_the_first(media: Path) -> None:
    first = Thumbnails(encoded(photo(mode="L"), "JPEG"))
    second = Thumbnails(encoded(photo(1000, 1000), "JPEG"), run_id=first.run_id)

    assert sorted(path.name for path in (media / "runs" / first.run_id).iterdir()) == sorted(
        file["name"] for file in second.result["files"]
    )
    assert second.images[0].size == (320, 320)


# What cannot be used


def truncated(kind: str) -> bytes:
    content = encoded(noise(), kind)
    return content[: len(content) // 2]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (truncated("JPEG"), "The picture ends early: part of the file is missing."),
        (truncated("PNG"), "The picture ends early: part of the file is missing."),
        (truncated("WEBP"), "The picture ends early: part of the file is missing."),
        (bomb(), "a.png has more than 50 megapixels. Choose a smaller picture."),
        (bomb(9000, 9000), "a.png has more than 50 megapixels. Choose a smaller picture."),
        (bomb(500, 500), "The picture ends early: part of the file is missing."),
        (b"", "a.png is not an image that can be read here. Choose a JPEG, PNG or WebP."),
        (b"%PDF-1.4 hello", "a.png is not an image that can be read here. Choose a JPEG, PNG or WebP."),
        (encoded(photo(mode="P"), "GIF"), "a.png is not an image that can be read here. Choose a JPEG, PNG or WebP."),
        (encoded(photo(), "TIFF"), "a.png is not an image that can be read here. Choose a JPEG, PNG or WebP."),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "a.png is not an image that can be read here."),
    ],
    ids=["cut-jpeg", "cut-png", "cut-webp", "bomb", "large", "hollow", "empty", "pdf", "gif", "tiff", "svg"],
)
def test_a_bad_picture_fails_with_one_sentence(content: bytes, sentence: str, media: Path) -> None:
    with pytest.raises(BadImage) as refused:
        Thumbnails(content, "a.png")

    assert str(refused.value).startswith(sentence)
    assert not (media / "runs").exists()


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_picture_never_fails_with_anything_else(seed: int) -> None:
    chance = random.Random(seed)
    content = bytearray(encoded(noise(300, 200), ["JPEG", "PNG", "WEBP"][seed % 3]))
    for _ in range(20):
        content[chance.randrange(len(content))] = chance.randrange(256)
    with suppress(BadImage):
        Thumbnails(bytes(content))


@pytest.mark.parametrize("path", ["secret.jpg", "runs/1/a.jpg", "uploads/../runs/1/a.jpg", "../x", "/etc/passwd", ""])
def test_only_uploads_are_read(path: str) -> None:
    with pytest.raises(BadImage, match="Only an uploaded picture"):
        call(Mock(), "a.jpg", path)


def test_an_upload_that_is_gone_says_so() -> None:
    with pytest.raises(BadImage, match="no longer there"):
        call(Mock(), "a.jpg", "uploads/gone.jpg")
