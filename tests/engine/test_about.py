"""SUBMIT: a run that is about an object of the project."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.db import models, transaction
from django.test.utils import isolate_apps
from django.utils.functional import SimpleLazyObject
from django_tasks.exceptions import InvalidTaskError

from tasks_app.about import text_of
from tasks_app.models import Status, TaskRun, Workflow
from tasks_app.workflows import chain
from tests import outcomes, wishful

pytestmark = pytest.mark.django_db


@pytest.fixture
def crew() -> Group:
    return Group.objects.create(name="crew")


def abouts() -> list[str | None]:
    return list(TaskRun.objects.order_by("enqueued_at", "id").values_list("about", flat=True))


def test_a_run_knows_what_it_is_about(crew: Group) -> None:
    result = outcomes.succeeds.using(about=crew).enqueue()
    outcomes.succeeds.enqueue()

    assert abouts() == [f"auth.group:{crew.pk}", None]
    assert [str(run.pk) for run in TaskRun.objects.about(crew)] == [result.id]
    assert not TaskRun.objects.about(Group(pk=crew.pk + 1)).exists()


def test_so_do_many_at_once(crew: Group) -> None:
    ids = outcomes.succeeds.using(about=crew).enqueue_many([[number] for number in range(3)])

    assert {str(run.pk) for run in TaskRun.objects.about(crew)} == set(ids)


def test_beside_other_wishes_too(crew: Group) -> None:
    task = wishful.lasts_a_minute.using(about=crew)
    task.enqueue()
    task.enqueue_many([[]])

    assert abouts() == [f"auth.group:{crew.pk}"] * 2
    assert all(run.expires_at for run in TaskRun.objects.all())


def test_it_is_committed_or_rolled_back_with_its_object() -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        outcomes.succeeds.using(about=Group.objects.create(name="crew")).enqueue()
        raise ZeroDivisionError

    assert (TaskRun.objects.count(), Group.objects.count()) == (0, 0)


def test_the_row_that_an_enqueue_answers_has_it(crew: Group) -> None:
    task: Any = outcomes.succeeds.using(about=crew)
    run = task.get_backend().enqueue_run(task, [], {}, idempotency_key="once")

    assert run.about == TaskRun.objects.get().about == f"auth.group:{crew.pk}"
    assert task.get_backend().enqueue_run(task, [], {}, idempotency_key="once").pk == run.pk


def test_a_retry_is_about_the_same(crew: Group) -> None:
    outcomes.succeeds.using(about=crew).enqueue()
    TaskRun.objects.update(status=Status.FAILED)
    old = TaskRun.objects.get()

    again = old.retry()

    assert again and again.pk != old.pk
    assert set(TaskRun.objects.about(crew)) == {old, again}


def test_a_replaced_run_is_about_what_its_newest_arguments_are(crew: Group) -> None:
    other = Group.objects.create(name="others")
    task = wishful.writes_newest
    first = task.using(about=crew).enqueue("path", 1)
    second = task.using(about=other).enqueue("path", 2)

    assert second.was_replaced and first.id == second.id
    assert abouts() == [f"auth.group:{other.pk}"]


def test_each_step_of_a_workflow_has_its_own(crew: Group) -> None:
    workflow = chain(outcomes.succeeds.using(about=crew).step(), outcomes.succeeds.step()).enqueue()

    assert list(workflow.runs.order_by("step").values_list("about", flat=True)) == [f"auth.group:{crew.pk}", None]
    with pytest.raises(InvalidTaskError, match="neither be unique nor expire"):
        chain(outcomes.succeeds.using(about=crew, expires_after=5).step()).enqueue()


def test_an_object_has_one_name() -> None:
    with isolate_apps("django.contrib.auth"):

        class Watch(User):
            class Meta:
                proxy = True
                app_label = "auth"

    pk = uuid.uuid4()
    assert text_of(Watch(pk=7)) == text_of(User(pk=7)) == text_of(User(pk="7")) == "auth.user:7"
    assert text_of(SimpleLazyObject(lambda: User(pk=7))) == "auth.user:7"
    assert text_of(Workflow(pk=pk)) == text_of(Workflow(pk=str(pk))) == f"tasks_app.workflow:{pk}"


with isolate_apps():

    class Named(models.Model):
        """Has a text for a key."""

        name = models.CharField(max_length=900, primary_key=True)

        class Meta:
            app_label = "shop"

        def __str__(self) -> str:
            return self.name


@pytest.mark.parametrize(
    ("about", "said"),
    [
        (7, "about is an object of a model, not a int."),
        ("auth.group:7", "about is an object of a model, not a str."),
        (Group, "about is an object of a model, not a ModelBase."),
        (Group(), "save this auth.Group first."),
        (Group(pk="seven"), "no auth.Group can have this one."),
        (Named(pk="x" * 190), "at most 200 characters together"),
        (Named(pk="a\x00b"), "none of them hidden"),
        (Named(pk="\u202eabc"), "none of them hidden"),
        (Named(pk=""), "at most 200 characters"),
    ],
)
def test_what_no_run_can_be_about_is_refused(about: Any, said: str) -> None:
    with pytest.raises(InvalidTaskError, match=said):
        outcomes.succeeds.using(about=about)
    with pytest.raises(InvalidTaskError, match=said):
        TaskRun.objects.about(about)


def test_the_longest_name_is_kept() -> None:
    outcomes.succeeds.using(about=Named(pk="é" * 189)).enqueue()

    assert abouts() == ["shop.named:" + "é" * 189]


def test_other_options_leave_it(crew: Group) -> None:
    outcomes.succeeds.using(about=crew).using(priority=3).enqueue()
    outcomes.succeeds.using(priority=3).using(about=Permission.objects.all()[0]).enqueue()

    first, second = abouts()
    assert first == f"auth.group:{crew.pk}"
    assert second and second.startswith("auth.permission:")
