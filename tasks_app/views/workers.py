from __future__ import annotations

import uuid
from urllib.parse import urlencode

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from tasks_app import wording, workers
from tasks_app.access import may, operators_only, owner_of
from tasks_app.asking import reason_of
from tasks_app.audit import Actor
from tasks_app.forms import backend
from tasks_app.live import Viewer, digest, is_poll, live, poll_url
from tasks_app.models import Cluster
from tasks_app.models.cluster import MOST_WORKERS, DesiredState
from tasks_app.tasks.smoke import smoke_test

PERMISSION = "tasks_app.change_cluster"

MOST_TESTS = 20
"""Queues that are tested at once."""


class Refused(Exception):
    """What was asked for cannot be done; the message is a sentence."""


def version(request: HttpRequest, viewer: Viewer) -> str:
    return digest(workers.look(tests_of(request)).version)


@never_cache
@require_safe
@live(version)
@operators_only
def index(request: HttpRequest) -> HttpResponse:
    """All clusters: their workers and what each does, what was wished, what became of the lost."""
    floor = workers.look(tests_of(request))
    context = {
        "trouble": trouble(request, floor),
        "floor": workers.with_runs(floor),
        "now": floor.now,
        "may_steer": may(request, PERMISSION),
        "most": MOST_WORKERS,
        "grace": settings.STOP_GRACE_SECONDS,
        "poll": poll_url(request, digest(floor.version)),
    }
    return render(request, "workers/_live.html" if is_poll(request) else "workers.html", context)


def tests_of(request: HttpRequest) -> list[uuid.UUID]:
    """The runs of the smoke test that the address names; what is no id is left out."""
    found = []
    for text in request.GET.getlist("test")[:MOST_TESTS]:
        try:
            found.append(uuid.UUID(text))
        except ValueError:
            continue
    return found


def trouble(request: HttpRequest, floor: workers.Floor) -> str:
    """One sentence when the address names smoke tests that cannot be told."""
    named = [text for text in request.GET.getlist("test") if text]
    if len(named) > MOST_TESTS:
        return f"No more than {MOST_TESTS} smoke tests are told at once."
    return "Some of those smoke tests are not there." if len(floor.probes) < len(set(named)) else ""


@require_POST
@operators_only
def steer(request: HttpRequest) -> HttpResponse:
    """Grow or shrink a cluster, have it be quiet, go on, replace its workers or stop; or forget a lost one."""
    if not may(request, PERMISSION):
        messages.error(request, "You may not steer clusters: that needs the permission to change them.")
        return redirect("workers")
    try:
        messages.success(request, DEEDS[request.POST.get("do", "")](request, cluster_of(request)))
    except KeyError:
        messages.error(request, "A cluster can grow, shrink, be quiet, go on, restart its workers and stop.")
    except Refused as refused:
        messages.error(request, str(refused))
    return redirect("workers")


def cluster_of(request: HttpRequest) -> Cluster:
    try:
        return Cluster.objects.get(pk=uuid.UUID(request.POST.get("cluster", "")))
    except (ValueError, Cluster.DoesNotExist):
        raise Refused("That cluster is not known any more.") from None


def label(cluster: Cluster) -> str:
    return wording.visible(str(cluster))


def wish(request: HttpRequest, cluster: Cluster, *, said: str, **wishes: object) -> str:
    """Ask it of the cluster, which obeys at its next heartbeat; raises `Refused` for one that is no more."""
    if not cluster.steer(by=Actor.of(request), why=reason_of(request), **wishes):  # type: ignore[arg-type]
        raise Refused(f"{label(cluster)} has stopped or was lost: nobody is there to obey.")
    return said


def resize(request: HttpRequest, cluster: Cluster) -> str:
    try:
        number = int(request.POST.get("to") or request.POST.get("workers", ""))
        said = f"{label(cluster)} is to keep {wording.plural(number, 'worker')}."
        return wish(request, cluster, said=said, workers=number)
    except ValueError:
        raise Refused(f"A cluster has 0 to {MOST_WORKERS} workers.") from None


def quiet(request: HttpRequest, cluster: Cluster) -> str:
    said = f"{label(cluster)} takes nothing new; what is at hand ends."
    return wish(request, cluster, said=said, state=DesiredState.QUIET)


def resume(request: HttpRequest, cluster: Cluster) -> str:
    return wish(request, cluster, said=f"{label(cluster)} takes runs again.", state=DesiredState.RUN)


def restart(request: HttpRequest, cluster: Cluster) -> str:
    said = f"{label(cluster)} replaces its workers, each after the run at hand."
    return wish(request, cluster, said=said, restart=True)


def stop(request: HttpRequest, cluster: Cluster) -> str:
    return wish(request, cluster, said=f"{label(cluster)} was asked to stop.", state=DesiredState.STOP)


def forget(request: HttpRequest, cluster: Cluster) -> str:
    if not cluster.forget(by=Actor.of(request)):
        raise Refused("Only a cluster that was lost can be forgotten.")
    return f"{label(cluster)} is forgotten: what it held was taken care of."


DEEDS = {"resize": resize, "quiet": quiet, "run": resume, "restart": restart, "stop": stop, "forget": forget}


@require_POST
@operators_only
def smoke(request: HttpRequest) -> HttpResponse:
    """Send a run of no length through each queue that somebody takes from; the page tells how long each was away."""
    queues = workers.look().queues
    if not queues:
        messages.error(request, "No live cluster takes runs just now, so there is nothing to be tested.")
        return redirect("workers")
    owner = owner_of(request)
    runs = [
        backend().enqueue_run(smoke_test.using(queue_name=queue, priority=100), [], {}, owner=owner)
        for queue in queues[:MOST_TESTS]
    ]
    return redirect(f"{reverse('workers')}?{urlencode([('test', run.pk) for run in runs])}")
