"""SUBMIT: the command that the page of a run offers makes another run like it."""

from __future__ import annotations

import html
import http.client
import json
import re
import shutil
import subprocess
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.contrib.auth.models import User
from django.test import Client

from tasks_app.backend import PostgresBackend
from tasks_app.models import TaskRun
from tasks_app.tasks import create_task, make_thumbnails
from tests.plugins.processes import WebFactory

pytestmark = pytest.mark.django_db(transaction=True)

ODD = 'it\'s "$HOME" `id` !! \\ \n\t{Grüße} 👋\u202e\x9b\u2028 \\u0000 <b>&amp;</b>'


def command_of(run: TaskRun, host: str) -> str:
    """What its page has to be copied, as a browser on this host reads it."""
    client = Client(headers={"Host": host})
    client.force_login(User.objects.get(username="mara"))
    page = client.get(f"/runs/{run.pk}/").content.decode()
    shown = re.search(r'<pre [^>]*id="as-curl"[^>]*>(.*?)</pre>', page, re.DOTALL)
    assert shown
    return html.unescape(shown[1])


def carried_out(command: str) -> Any:
    """The answer to what a shell makes of the command; where there is no curl, its request is sent from here."""
    if shutil.which("curl"):
        return json.loads(shell(f"{command} --silent --noproxy '*'"))
    words = shell(f'curl() {{ printf "%s\\0" "$@"; }}\n{command}').split("\0")
    options = {flag: words[at + 1] for at, flag in enumerate(words) if flag in ("-X", "-d")}
    headers = dict(words[at + 1].split(": ", 1) for at, flag in enumerate(words) if flag == "-H")
    address = urlsplit(words[2])
    with closing(http.client.HTTPConnection(address.netloc, timeout=10)) as connection:
        connection.request(options["-X"], address.path, options["-d"].encode(), headers)
        return json.loads(connection.getresponse().read())


def shell(text: str) -> str:
    return subprocess.run(["sh", "-c", text], check=True, capture_output=True, timeout=30).stdout.decode()


def test_the_copied_command_makes_a_run_with_the_same_arguments(web: WebFactory, settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["127.0.0.1"]
    address = web(API_TOKENS="first-token", API_TOKENS_MAY_LAUNCH="shop.*, tasks_app.tasks.*")
    mara = User.objects.create_user("mara")
    backend = create_task.get_backend()
    assert isinstance(backend, PostgresBackend)
    urgent: Any = make_thumbnails.using(priority=7, queue_name="it's slow")
    pasts = [
        backend.enqueue_run(create_task, (), {"type": 2}, owner=mara),
        backend.enqueue_run(create_task.using(priority=7), (), {"type": 2}, owner=mara),
        backend.enqueue_run(urgent, [ODD], {"stored_as": ODD[::-1]}, owner=mara),
        backend.enqueue_run(make_thumbnails, [json.dumps([2**70, {"": ODD}]), ""], {}, owner=mara),
    ]
    commands = [command_of(past, urlsplit(address).netloc) for past in pasts]
    assert [f"{address}/tasks/run" in command for command in commands] == [False, True, True, True]

    for past, command in zip(pasts, commands, strict=True):
        answer = carried_out(command.replace("…", "first-token", 1))
        run = TaskRun.objects.get(pk=answer["task_id"])
        assert (run.task_path, run.args, run.kwargs) == (past.task_path, past.args, past.kwargs)
        assert (run.priority, run.queue_name) == (past.priority, past.queue_name)
        assert (run.pk != past.pk, run.owner) == (True, None)
