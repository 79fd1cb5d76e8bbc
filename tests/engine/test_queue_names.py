"""`manage.py qcluster` given a list of queues that says something odd: one sentence instead of a silent cluster."""

from __future__ import annotations

import pytest
from django.core.management import CommandError, call_command

from tasks_app.management.commands.qcluster import queues_of


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", "One of the queues has no name"),
        (",", "One of the queues has no name"),
        ("default,,images", "One of the queues has no name"),
        ("default, ", "One of the queues has no name"),
        ("x" * 101, "The name of a queue has 1 to 100 characters, not 101."),
        ("default,images,default", "The queue default is named twice."),
        ("default\nimages", "'default\\nimages' is no name of a queue"),
    ],
)
def test_an_odd_list_is_refused(given: str, said: str) -> None:
    with pytest.raises(CommandError) as refused:
        call_command("qcluster", queues=given)
    assert said in str(refused.value)


@pytest.mark.parametrize("name", ["", " ", "x" * 101])
def test_an_odd_name_is_refused(name: str) -> None:
    with pytest.raises(CommandError, match="The name of a cluster has 1 to 100 characters"):
        call_command("qcluster", name=name)


def test_a_list_keeps_its_order() -> None:
    assert queues_of(" images , default", None) == ["images", "default"]
    assert queues_of(None, "mail") == []
