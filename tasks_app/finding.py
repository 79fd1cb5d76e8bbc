"""WATCH: which runs a URL asks for. Whatever it says, it is answered: what cannot be meant is left out, and told."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, field, replace
from datetime import datetime, time, timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from django.contrib.auth import get_user_model
from django.db.models import F, Q, Subquery
from django.db.models.functions import Now
from django.http import QueryDict
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime

from tasks_app import about, search, wording
from tasks_app.asking import UNSEEN
from tasks_app.catalog import task_paths
from tasks_app.clock import EPOCH
from tasks_app.ids import ids_beginning_with
from tasks_app.models import Cluster, Failure, FailureGroup, ScheduleRules, Status, TaskRun, TaskRunQuerySet
from tasks_app.models.cluster import claim_id
from tasks_app.models.run import ABOUT_LENGTH, UNFINISHED

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser, User

    from tasks_app.live import Viewer

NOBODY = "(nobody)"
"""The owner of runs that have none, in a URL; no user can have that name."""

LONGEST = {"task": 255, "queue": 100, "owner": 150, "cluster": 64, "about": ABOUT_LENGTH, "q": 200}
LARGEST_ID = 2**63 - 1
MOST_NAMED = 10
"""The runs of so many tasks are looked for task by task."""
NAMELESS = "What runs are about is named by its model and its key: shop.order:48213."
UNITS = {"m": "minute", "h": "hour", "d": "day"}
LONGEST_BACK = timedelta(days=3650)

WAITS = Q(status=Status.READY, claimed_by=None, enqueued_at__gte=EPOCH)
"""The date says nothing new, but is what the index of waiting runs asks for."""

LATER = WAITS & Q(is_waiting=None, run_after__gt=Now()) & Q(run_after__gt=F("enqueued_at"))
"""The last comparison says nothing new, but is what the index of later runs asks for."""

HELD = Q(status__in=UNFINISHED, claimed_by__isnull=False)
"""What a worker has, whether it has begun it or not: one that is short is never seen as begun."""

STATES = {
    "ready": WAITS & Q(attempt=0) & (Q(run_after__lte=Now()) | Q(is_waiting=True)),
    "scheduled": LATER & Q(attempt=0),
    "retrying": WAITS & Q(attempt__gt=0),
    "waiting": WAITS & Q(is_waiting=True),
    "claimed": HELD & Q(status=Status.READY),
    "running": HELD,
    "successful": Q(status=Status.SUCCESSFUL),
    "failed": Q(status=Status.FAILED),
    "cancelled": Q(status=Status.CANCELLED),
}
"""Of each word of a URL, which runs are meant. Those of the tabs leave out no run, and have none twice."""

TABS = ("ready", "scheduled", "retrying", "running", "successful", "failed", "cancelled")
FILTERS = (
    *("state", "task", "queue", "cluster", "owner", "reason", "group", "schedule", "workflow", "about"),
    *("since", "until", "q"),
)
"""In the order in which a URL has them."""


@dataclass(frozen=True)
class Chip:
    """One filter that is on, in words, and the query of the page without it."""

    told: str
    without: str


@dataclass(frozen=True)
class Finding:
    """The runs that a URL asks for, as far as the viewer may see them."""

    viewer: User | AnonymousUser | Viewer
    given: dict[str, str]
    """The filters as they were understood, by name; none that is empty."""

    troubles: list[str] = field(default_factory=list)
    """One sentence for each thing in the URL that could not be meant."""

    since: datetime | None = None
    until: datetime | None = None

    @classmethod
    def read(cls, query: QueryDict, viewer: User | AnonymousUser | Viewer) -> Finding:
        """What the query asks for; never raises."""
        reader = Reader(query, is_operator=viewer.is_staff)
        given = {name: value for name in FILTERS if (value := reader.read(name))}
        since, until = reader.moments.get("since"), reader.moments.get("until")
        if since and until and since >= until:
            reader.troubles.append("That time ends before it begins; its end is left out.")
            until = None
            given.pop("until")
        return cls(viewer, given, reader.troubles, since, until)

    # What was asked for

    @property
    def state(self) -> str:
        """One of `STATES`; empty for all."""
        return self.given.get("state", "")

    @property
    def q(self) -> str:
        return self.given.get("q", "")

    @property
    def query(self) -> str:
        """The filters as the end of a URL, always the same for the same ones."""
        return self.changed()

    @property
    def is_filtered(self) -> bool:
        """Whether anything is asked for but a state."""
        return bool(self.given.keys() - {"state"})

    def changed(self, **values: str | None) -> str:
        """The same query with other values; one that is None is left out."""
        query = QueryDict(mutable=True)
        for name in FILTERS:
            if value := values[name] if name in values else self.given.get(name):
                query[name] = value
        return query.urlencode()

    # The runs

    def runs(self) -> TaskRunQuerySet:
        """All of them, in no order."""
        return TaskRun.objects.filter(*self.parts.values())

    @cached_property
    def parts(self) -> dict[str, Q]:
        """What each filter says of a run, by its name; `viewer` for whose runs may be seen."""
        found: dict[str, Q] = {} if self.viewer.is_staff else {"viewer": self.own}
        for name, value in self.given.items():
            if name not in {"since", "until"}:
                found[name] = getattr(self, f"_by_{name}")(value)
        if self.since or self.until:
            found["when"] = self.when(self.moment)
        return found

    @property
    def own(self) -> Q:
        """The viewer's own runs; a guest of open access has those of nobody."""
        return Q(owner=self.viewer.pk if self.viewer.is_authenticated else None)

    @property
    def owner(self) -> Q | None:
        """The one whose runs these are, if it is one person."""
        if not self.viewer.is_staff:
            return self.own if self.viewer.is_authenticated else None
        name = self.given.get("owner", NOBODY)
        return self._by_owner(name) if name != NOBODY else None

    @property
    def moment(self) -> str:
        """The time that they are listed by, and that `since` and `until` are about."""
        if "group" in self.given and "about" not in self.given:
            return "finished_at"
        if self.owner is not None or self.given.keys() & {"workflow", "schedule", "about", "q"}:
            return "enqueued_at"  # which is what the indexes of those have
        return {"failed": "finished_at", "scheduled": "run_after"}.get(self.state, "enqueued_at")

    def when(self, moment: str) -> Q:
        found = Q()
        if self.since:
            found &= Q(**{f"{moment}__gte": self.since})
        if self.until:
            found &= Q(**{f"{moment}__lt": self.until})
        return found

    @cached_property
    def ids(self) -> tuple[uuid.UUID, uuid.UUID] | None:
        """The lowest and the highest id that begin with what is searched for."""
        return ids_beginning_with(self.q.lower())

    @cached_property
    def named(self) -> list[str]:
        """The tasks whose names have in them what is searched for."""
        term = self.q.lower()
        return [*(path for path in task_paths() if term in path.lower()), self.q] if self.q else []

    @cached_property
    def words(self) -> str:
        return search.words_of(self.q)

    @cached_property
    def hits(self) -> list[uuid.UUID] | None:
        """The ended runs with these words; None when they are too many."""
        return search.hits(self.words) if self.words else []

    @property
    def is_common(self) -> bool:
        """Whether so many runs have what is searched for that it is looked for in one after the other."""
        return len(self.named) > MOST_NAMED or self.hits is None

    def in_state(self, state: str) -> Finding:
        """The same of another state."""
        given = {name: state if name == "state" else self.given.get(name, "") for name in FILTERS}
        found = replace(self, given={name: value for name, value in given.items() if value}, troubles=[])
        if "hits" in self.__dict__:
            found.__dict__["hits"] = self.hits
        return found

    def _by_state(self, value: str) -> Q:
        return STATES[value]

    def _by_task(self, value: str) -> Q:
        return Q(task_path=value)

    def _by_queue(self, value: str) -> Q:
        return Q(queue_name=value)

    def _by_cluster(self, value: str) -> Q:
        return Q(claimed_by__gte=f"{value}:", claimed_by__lt=f"{value};")  # ";" follows ":" in ASCII

    def _by_owner(self, value: str) -> Q:
        if value == NOBODY:
            return Q(owner=None)
        return Q(owner=Subquery(get_user_model()._default_manager.filter(username=value).values("pk")[:1]))

    def _by_reason(self, value: str) -> Q:
        return Q(failure=value)

    def _by_group(self, value: str) -> Q:
        return Q(failure_group=int(value))

    def _by_schedule(self, value: str) -> Q:
        return Q(schedule=int(value))

    def _by_workflow(self, value: str) -> Q:
        return Q(workflow=uuid.UUID(value))

    def _by_about(self, value: str) -> Q:
        return Q(about=value)

    def _by_q(self, value: str) -> Q:
        found = Q(task_path__in=self.named)
        if self.ids:
            found |= Q(id__range=self.ids)
        if self.words:
            found |= Q(search.Matches(self.words))
        return found

    # In words

    @cached_property
    def sentence(self) -> str:
        """`failed runs of resize_image since 12 March 14:00`."""
        said = [f"{self.state} runs" if self.state else "runs"]
        said += [self.told(name) for name in FILTERS if name in self.given and name != "state"]
        return " ".join(said)

    def chips(self, keep: str = "") -> list[Chip]:
        """Of each filter but the state; `keep` is what the links have besides."""
        return [
            Chip(wording.clip(self.told(name), 80), f"?{self.changed(**{name: None})}{keep}")
            for name in FILTERS
            if name in self.given and name != "state"
        ]

    def told(self, name: str) -> str:
        """What one filter says, as the end of a sentence."""
        value = self.given[name]
        shown = wording.visible(value)
        match name:
            case "task":
                return f"of {shown.rpartition('.')[2] or shown}"
            case "queue":
                return f"in the queue {shown}"
            case "cluster":
                return f"of the cluster {self.cluster}"
            case "owner":
                return "of nobody" if value == NOBODY else f"of {shown}"
            case "reason":
                return f"for the reason “{Failure(value).label.lower()}”"
            case "group":
                return f"that failed as {self.group}"
            case "schedule":
                return f"of the schedule {self.schedule}"
            case "workflow":
                return f"of the workflow {value[:8]}"
            case "about":
                return f"about {about.told(value)}"
            case "since" | "until":
                return f"{name} {when_told(value)}" if not SPAN.fullmatch(value) else span_told(name, value)
            case _:
                return f"with “{shown}”"

    @cached_property
    def cluster(self) -> str:
        short = self.given["cluster"]
        found = Cluster.objects.of_claims([short]).get(short)
        return wording.visible(str(found)) if found else wording.visible(short[:8])

    @cached_property
    def group(self) -> str:
        found = FailureGroup.objects.filter(pk=int(self.given["group"])).first()
        return wording.visible(str(found)) if found else f"number {self.given['group']}"

    @cached_property
    def schedule(self) -> str:
        rules = ScheduleRules.objects.select_related("schedule").filter(schedule=int(self.given["schedule"])).first()
        name = rules.schedule.name if rules else None
        return wording.visible(name) if name else f"number {self.given['schedule']}"


SPAN = re.compile(r"(\d{1,5})([mhd])")


class Reader:
    """Reads the values of a query, one by one; what cannot be meant becomes a sentence."""

    def __init__(self, query: QueryDict, is_operator: bool) -> None:
        self.query, self.is_operator = query, is_operator
        self.troubles: list[str] = []
        self.moments: dict[str, datetime] = {}

    def read(self, name: str) -> str:
        text = "".join(" " if letter.isspace() else letter for letter in self.query.get(name, "")).strip()
        if not text.isprintable():
            self.refuse(UNSEEN)
            text = "".join(letter for letter in text if letter.isprintable()).strip()
        most = LONGEST.get(name)
        if most and len(text) > most:
            said = {"q": f"Only the first {most} characters are searched for.", "about": NAMELESS}
            self.refuse(said.get(name, f"No {name} has such a name."))
            text = text[:most].strip() if name == "q" else ""
        return str(getattr(self, f"_{name}", str)(text)) if text else ""

    def refuse(self, text: str) -> str:
        if text not in self.troubles:
            self.troubles.append(text)
        return ""

    def _q(self, text: str) -> str:
        if search.has_more(text):
            self.refuse(f"Only the first {search.MOST_WORDS} words are searched for.")
        return text

    def _state(self, text: str) -> str:
        word = text.lower()
        if word in STATES or word == "all":
            return word if word != "all" else ""
        return self.refuse(
            f"There is no state “{wording.visible(wording.clip(text, 40))}”; runs of all states are shown."
        )

    def _cluster(self, text: str) -> str:
        try:
            return claim_id(uuid.UUID(text))
        except ValueError:
            return text if re.fullmatch(r"[\w.-]+", text) else self.refuse("A cluster is named by its id.")

    def _owner(self, text: str) -> str:
        return text if self.is_operator else self.refuse("Only operators choose whose runs they see.")

    def _reason(self, text: str) -> str:
        told = ", ".join(Failure.values)
        return text if text in Failure.values else self.refuse(f"A run fails for one of these reasons: {told}.")

    def _number(self, text: str, what: str) -> str:
        if re.fullmatch(r"[0-9]{1,19}", text) and int(text) <= LARGEST_ID:
            return str(int(text))
        return self.refuse(f"A {what} is named by its number.")

    def _group(self, text: str) -> str:
        return self._number(text, "failure")

    def _schedule(self, text: str) -> str:
        return self._number(text, "schedule")

    def _workflow(self, text: str) -> str:
        try:
            return str(uuid.UUID(text))
        except ValueError:
            return self.refuse("A workflow is named by its id.")

    def _about(self, text: str) -> str:
        return about.read_about(text) or self.refuse(NAMELESS)

    def _since(self, text: str) -> str:
        return self._moment("since", text)

    def _until(self, text: str) -> str:
        return self._moment("until", text)

    def _moment(self, name: str, text: str) -> str:
        moment = moment_of(text)
        if moment is None:
            said = (
                f"“{wording.visible(wording.clip(text, 40))}” is no time: write 2026-03-12, 2026-03-12 14:30, or 24h."
            )
            return self.refuse(said)
        self.moments[name] = moment
        return text


def moment_of(text: str) -> datetime | None:
    """The moment that is meant by a date, a time, or how long ago it is (`30m`, `24h`, `7d`); None for no such thing.

    Without a zone it is the viewer's.
    """
    if match := SPAN.fullmatch(text):
        back = timedelta(**{f"{UNITS[match[2]]}s": int(match[1])})
        return timezone.now() - min(back, LONGEST_BACK)
    try:
        day = parse_date(text)
        moment = datetime.combine(day, time()) if day else parse_datetime(text)
        if moment is None or not 1900 <= moment.year <= 9000:
            return None
        return moment if moment.tzinfo else timezone.make_aware(moment)
    except (ValueError, OverflowError):
        return None


def when_told(text: str) -> str:
    moment = moment_of(text)
    if moment is None:
        return ""
    local = timezone.localtime(moment)
    day = f"{local.day} {local:%B %Y}"
    return day if len(text) <= 10 else f"{day} {local:%H:%M}"


def span_told(name: str, text: str) -> str:
    """`of the last 24 hours`."""
    match = SPAN.fullmatch(text)
    assert match
    number, unit = int(match[1]), UNITS[match[2]]
    long = f"{unit if number == 1 else f'{wording.count(number)} {unit}s'}"
    return f"of the last {long}" if name == "since" else f"older than {long if number > 1 else f'1 {unit}'}"
