from __future__ import annotations

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from tasks_app.about import read_about
from tasks_app.activity import Activity
from tasks_app.live import Viewer, live
from tasks_app.templatetags.dumbwaiter import drawn_activity


def version(request: HttpRequest, viewer: Viewer) -> str:
    return Activity.of(about_of(request), viewer).version


@never_cache
@require_safe
@live(version)
def show(request: HttpRequest) -> HttpResponse:
    """The news of `{% activity_of %}`, on whatever page that stands."""
    activity = Activity.of(about_of(request), Viewer.of(request))
    return render(request, "runs/_activity.html", drawn_activity(request, activity))


def about_of(request: HttpRequest) -> str:
    about = read_about(request.GET.get("about", ""))
    if about is None or not about.isprintable():
        raise Http404("There is nothing of that name.")
    return about
