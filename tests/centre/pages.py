"""Every page that there is: a new one is held to everything by its line here."""

from __future__ import annotations

from dataclasses import dataclass

from tests.centre.full import Full


@dataclass(frozen=True)
class Page:
    """A page by its name, which its pictures have, and by its address with the names of `Full.ids` in it."""

    name: str
    address: str
    is_open: bool = False
    """It is for those who are not logged in."""
    is_ours: bool = True
    """False for those of Django's admin, whose layout and keyboard are not of our making."""

    def path(self, full: Full) -> str:
        return full.path(self.address)

    def __str__(self) -> str:
        return self.name


PAGES = (
    Page("home", "/"),
    Page("run-running", "/runs/{running}/"),
    Page("run-ready", "/runs/{ready}/"),
    Page("run-claimed", "/runs/{claimed}/"),
    Page("run-scheduled", "/runs/{scheduled}/"),
    Page("run-retrying", "/runs/{retrying}/"),
    Page("run-stranded", "/runs/{stranded}/"),
    Page("run-paused", "/runs/{paused}/"),
    Page("run-failed", "/runs/{failed}/"),
    Page("run-timed-out", "/runs/{timed_out}/"),
    Page("run-cancelled", "/runs/{cancelled}/"),
    Page("run-successful", "/runs/{successful}/"),
    Page("run-listed", "/runs/{listed}/"),
    Page("run-files", "/runs/{with_files}/"),
    Page("run-again", "/runs/{successful}/again/"),
    Page("run-delete", "/runs/{failed}/delete/"),
    Page("runs", "/runs/"),
    Page("runs-failed", "/runs/?state=failed"),
    Page("runs-ready", "/runs/?state=ready"),
    Page("runs-running", "/runs/?state=running"),
    Page("runs-successful", "/runs/?state=successful"),
    Page("runs-found", "/runs/?q=shop&since=24h"),
    Page("runs-none", "/runs/?task=nothing.here"),
    Page("failures", "/failures/"),
    Page("failure", "/failures/{group}/"),
    Page("queues", "/queues/"),
    Page("workers", "/workers/"),
    Page("schedules", "/schedules/"),
    Page("schedule-new", "/schedules/new/?task=tasks_app.tasks.practice.create_task"),
    Page("schedule", "/schedules/{schedule}/"),
    Page("workflows", "/workflows/"),
    Page("workflow", "/workflows/{workflow}/"),
    Page("stats", "/stats/?window=24h"),
    Page("launch", "/launch/"),
    Page("launch-task", "/launch/tasks_app.tasks.practice.create_task/"),
    Page("time-zone", "/time-zone/"),
    Page("logs", "/logs/"),
    Page("audit", "/audit/"),
    Page("keys", "/keys/"),
    Page("login", "/login/", is_open=True),
    Page("not-found", "/nothing/here/"),
    Page("admin", "/admin/", is_ours=False),
    Page("admin-runs", "/admin/tasks_app/taskrun/", is_ours=False),
    Page("admin-run", "/admin/tasks_app/taskrun/{failed}/change/", is_ours=False),
    Page("admin-schedule", "/admin/django_q/schedule/{schedule}/change/", is_ours=False),
)

OURS = tuple(page for page in PAGES if page.is_ours)
