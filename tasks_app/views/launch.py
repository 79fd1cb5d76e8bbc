from http import HTTPStatus

from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_POST

from tasks_app.access import owner_of
from tasks_app.forms import OnceForm, PracticeForm, ThumbnailsForm
from tasks_app.models import TaskRun
from tasks_app.uploads import was_too_large
from tasks_app.views.home import live_part, page, whose
from tasks_app.views.htmx import HtmxRequest


@require_POST
def create_task(request: HtmxRequest) -> HttpResponse:
    """The buttons Short, Medium and Long."""
    form = PracticeForm(request.POST)
    if form.is_valid():
        return launched(request, form.enqueue(owner_of(request)), practice=PracticeForm())
    if request.htmx:
        return render(request, "launch/_practice_error.html", {"practice": form}, status=HTTPStatus.BAD_REQUEST)
    return page(request, HTTPStatus.BAD_REQUEST, practice=form)


@require_POST
def make_thumbnails(request: HtmxRequest) -> HttpResponse:
    """The form that takes a picture."""
    form = ThumbnailsForm(request.POST, request.FILES, too_large=was_too_large(request, "image"))
    if form.is_valid():
        return launched(request, form.enqueue(owner_of(request)), thumbnails=ThumbnailsForm())
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE if form.too_large else HTTPStatus.UNPROCESSABLE_ENTITY
    if request.htmx:
        return render(request, "launch/_thumbnails.html", {"thumbnails": form, "whose": whose(request)}, status=status)
    return page(request, status, thumbnails=form)


def launched(request: HtmxRequest, run: TaskRun, **forms: OnceForm) -> HttpResponse:
    """The live parts of the first page, which have the new run, for a page that is there; else the whole page anew."""
    if not request.htmx:
        return redirect(f"{reverse('home')}{whose(request)}")
    return render(request, "launch/_launched.html", {**live_part(request), **forms})
