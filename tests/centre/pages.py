"""Every page that there is: a new one is held to everything by its line here."""

from __future__ import annotations

from dataclasses import dataclass

from tests.centre.full import TASK, Full


@dataclass(frozen=True)
class Page:
    """A page by its name, which its pictures have, and by its address with the names of `Full.ids` in it."""

    name: str
    address: str
    by: str = ""
    """It is what this button leads to, pressed at the address with the first row ticked."""
    who: str = "mara"
    """Who looks at it; nobody, where it is empty."""
    status: int = 200
    is_ours: bool = True
    """False for those of Django's admin, whose layout and keyboard are not of our making."""

    def path(self, full: Full) -> str:
        return full.path(self.address)

    def __str__(self) -> str:
        return self.name


NEWS = (
    Page("home", "/"),
    Page("run-running", "/runs/{running}/"),
    Page("runs", "/runs/"),
    Page("runs-failed", "/runs/?state=failed"),
    Page("runs-ready", "/runs/?state=ready"),
    Page("runs-running", "/runs/?state=running"),
    Page("runs-successful", "/runs/?state=successful"),
    Page("bulk-run", "/runs/bulk/{bulk}/"),
    Page("bulk-running", "/runs/bulk/{bulk_running}/"),
    Page("failures", "/failures/"),
    Page("failure", "/failures/{group}/"),
    Page("queues", "/queues/"),
    Page("workers", "/workers/"),
    Page("schedules", "/schedules/"),
    Page("schedule", "/schedules/{schedule}/"),
    Page("workflows", "/workflows/"),
    Page("workflow", "/workflows/{workflow}/"),
    Page("stats", "/stats/?window=24h"),
    Page("logs", "/logs/"),
    Page("audit", "/audit/"),
)
"""Those that ask for news, and get some when `something_happens`."""

LIVE = (
    *NEWS,
    Page("run-ready", "/runs/{ready}/"),
    Page("run-claimed", "/runs/{claimed}/"),
    Page("run-scheduled", "/runs/{scheduled}/"),
    Page("run-retrying", "/runs/{retrying}/"),
    Page("run-stranded", "/runs/{stranded}/"),
    Page("run-paused", "/runs/{paused}/"),
    Page("runs-none", "/runs/?task=nothing.here"),
)
"""Those that ask for news, also where nothing that happens is any to them: a run that waits, and of nothing at all."""

OURS = (
    *LIVE,
    Page("run-failed", "/runs/{failed}/"),
    Page("run-timed-out", "/runs/{timed_out}/"),
    Page("run-cancelled", "/runs/{cancelled}/"),
    Page("run-successful", "/runs/{successful}/"),
    Page("run-listed", "/runs/{listed}/"),
    Page("run-files", "/runs/{with_files}/"),
    Page("run-again", "/runs/{successful}/again/"),
    Page("run-delete", "/runs/{failed}/delete/"),
    Page("runs-found", "/runs/?q=shop&since=24h"),
    Page("bulk-delete", "/runs/?state=failed", by="#do-delete"),
    Page("bulk-move", "/runs/?state=ready", by="#do-move"),
    Page("bulk-done", "/runs/bulk/{bulk_done}/"),
    Page("schedule-new", f"/schedules/new/?task={TASK}"),
    Page("launch", "/launch/"),
    Page("launch-task", f"/launch/{TASK}/"),
    Page("launch-forbidden", f"/launch/{TASK}/", who="tobias", status=403),
    Page("time-zone", "/time-zone/"),
    Page("keys", "/keys/"),
    Page("login", "/login/", who=""),
    Page("not-found", "/nothing/here/", status=404),
    Page("not-understood", "/runs/export.csv?state=nothing", status=400),
)

PAGES = (
    *OURS,
    Page("admin", "/admin/", is_ours=False),
    Page("admin-runs", "/admin/tasks_app/taskrun/", is_ours=False),
    Page("admin-run", "/admin/tasks_app/taskrun/{failed}/change/", is_ours=False),
    Page("admin-schedule", "/admin/django_q/schedule/{schedule}/change/", is_ours=False),
)
