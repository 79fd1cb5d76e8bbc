"""SUBMIT: a picture from the form to its run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from tasks_app.backend import PostgresBackend
from tasks_app.models import TaskRun
from tests.tasks.pictures import bomb, encoded, noise, photo

HTMX = {"HX-Request": "true"}
ADDRESS = "/launch/make_thumbnails/"
BOUNDARY = "frontier"


def send(client: Client, content: bytes, name: str = "Harbour.jpg", **options: Any) -> Any:
    return client.post(ADDRESS, {"image": SimpleUploadedFile(name, content)}, **options)


def stored(settings: Any) -> list[Path]:
    return [path for path in Path(settings.MEDIA_ROOT).rglob("*") if path.is_file()]


@pytest.mark.parametrize(("kind", "suffix"), [("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp")])
def test_a_picture_is_stored_and_its_run_enqueued(
    client: Client, mara: User, settings: Any, kind: str, suffix: str
) -> None:
    content = encoded(photo(), kind)
    response = send(client, content, "../Harbour at dusk.exe")

    run = TaskRun.objects.get()
    assert (response.status_code, response["Location"]) == (302, "/")
    assert (run.task_path, run.owner) == ("tasks_app.tasks.images.make_thumbnails", mara)
    assert run.kwargs["image"] == "Harbour at dusk.exe"
    (file,) = stored(settings)
    assert str(file.relative_to(settings.MEDIA_ROOT)) == run.kwargs["stored_as"]
    assert (file.parent.parent.name, file.parent.name, file.suffix) == ("uploads", str(run.pk), f".{suffix}")
    assert file.read_bytes() == content


def test_with_htmx_the_answer_is_an_empty_form_and_one_row(client: Client) -> None:
    answer = send(client, encoded(photo(), "JPEG"), headers=HTMX).content.decode()

    assert answer.startswith('<form class="card__body" id="thumbnails"')
    assert answer.count("<tr ") == 1
    assert "aria-invalid" not in answer


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"%PDF-1.4 hello", "invoice.pdf is not an image that can be read here. Choose a JPEG, PNG or WebP."),
        (b"", "That file is empty: it has 0 bytes."),
        (bomb(), "invoice.pdf has more than 50 megapixels. Choose a smaller picture."),
        (bomb(9000, 9000), "invoice.pdf has more than 50 megapixels. Choose a smaller picture."),
        (encoded(noise(), "JPEG")[:12], "invoice.pdf is"),
    ],
    ids=["pdf", "empty", "bomb", "large", "stub"],
)
@pytest.mark.parametrize("headers", [{}, HTMX], ids=["page", "htmx"])
def test_a_bad_picture_is_refused_on_the_form(
    client: Client, settings: Any, content: bytes, sentence: str, headers: dict[str, str]
) -> None:
    response = send(client, content, "invoice.pdf", headers=headers)

    assert response.status_code == 422
    assert sentence in response.content.decode()
    assert 'aria-invalid="true" aria-describedby="image-error"' in response.content.decode()
    assert not TaskRun.objects.exists()
    assert not stored(settings)


def test_no_picture_is_refused_too(client: Client) -> None:
    for fields in ({}, {"image": "a text"}):
        response = client.post(ADDRESS, fields)
        assert (response.status_code, b"Choose a picture first." in response.content) == (422, True)


def test_a_cut_picture_passes_the_form(client: Client) -> None:
    content = encoded(noise(), "JPEG")

    assert send(client, content[: len(content) // 2]).status_code == 302


def test_a_hostile_name_stays_text(client: Client) -> None:
    answer = send(client, b"junk", "<img src=x onerror=alert(1)>.jpg", headers=HTMX).content.decode()

    assert "<img src=x" not in answer
    assert "&lt;img src=x" in answer


def test_a_picture_without_a_run_does_not_stay(client: Client, settings: Any) -> None:
    with patch.object(PostgresBackend, "enqueue_run", side_effect=RuntimeError), pytest.raises(RuntimeError):
        send(client, encoded(photo(), "JPEG"))

    assert not stored(settings)


# Too large


class Body:
    """A multipart body that is made while it is read, and tells how much of it was."""

    def __init__(self, size: int, file: str = "image") -> None:
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{file}"; filename="a.jpg"\r\n\r\n'.encode()
        tail = f"\r\n--{BOUNDARY}--\r\n".encode()
        parts = [head, *[b"x" * 65_536] * (size // 65_536), tail]
        self.parts: Iterator[bytes] = iter(parts)
        self.length = sum(map(len, parts))
        self.rest = b""
        self.given = 0

    def __len__(self) -> int:
        return self.length

    def readline(self) -> bytes:
        raise NotImplementedError

    def read(self, size: int = -1) -> bytes:
        while len(self.rest) < size and (part := next(self.parts, b"")):
            self.rest += part
        answer, self.rest = self.rest[:size], self.rest[size:]
        self.given += len(answer)
        return answer


def send_body(client: Client, body: Body, **extra: Any) -> Any:
    return client.generic(
        "POST",
        ADDRESS,
        **{
            "wsgi.input": body,
            "CONTENT_LENGTH": str(len(body)),
            "CONTENT_TYPE": f"multipart/form-data; boundary={BOUNDARY}",
            **extra,
        },
    )


def test_a_file_that_is_too_large_is_let_go_of(client: Client, settings: Any, tmp_path: Path) -> None:
    settings.FILE_UPLOAD_TEMP_DIR = tmp_path
    body = Body(settings.UPLOAD_MAX_BYTES + 300_000)
    response = send_body(client, body)

    assert response.status_code == 413
    assert b"That file is larger than 20 MB. Choose a smaller one." in response.content
    assert body.given == len(body)
    assert not list(tmp_path.glob("*.upload*"))


def test_a_file_just_too_large_is_let_go_of(client: Client, settings: Any) -> None:
    settings.UPLOAD_MAX_BYTES = 1_000_000
    response = send_body(client, Body(1_050_000), HTTP_HX_REQUEST="true")

    assert response.status_code == 413
    assert response.content.startswith(b'<form class="card__body" id="thumbnails"')


def test_a_body_beyond_all_measure_is_not_read(client: Client, settings: Any) -> None:
    body = Body(300 * 1024 * 1024)
    response = send_body(client, body)

    assert response.status_code == 413
    assert body.given < 1_000_000


def test_a_large_file_of_another_field_is_no_picture(client: Client, settings: Any) -> None:
    settings.UPLOAD_MAX_BYTES = 1_000_000

    assert send_body(client, Body(3_000_000, file="other")).status_code == 422


def test_a_body_that_is_no_form_is_refused(client: Client) -> None:
    broken = client.generic("POST", ADDRESS, b"junk", content_type="multipart/form-data; boundary=x")

    assert broken.status_code in {400, 422}
