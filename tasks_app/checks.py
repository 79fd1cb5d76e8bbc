from typing import Any

from django.conf import settings
from django.core import checks
from django.db import DEFAULT_DB_ALIAS, connections

from config.env import is_loopback

OURS = "dumbwaiter"
"""The tag of the checks that matter to a worker, which needs no URLs, templates or admin to be in order."""


@checks.register(checks.Tags.security)
def check_open_access(app_configs: Any = None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Open access is for one's own machine: refused unless DEBUG is on and the web server is bound to loopback."""
    if not settings.OPEN_ACCESS:
        return []
    errors: list[checks.CheckMessage] = []
    if not settings.DEBUG:
        errors.append(
            checks.Error("OPEN_ACCESS=1 lets everyone in; it is refused without DEBUG=1.", id="dumbwaiter.E001")
        )
    if not is_loopback(settings.BIND):
        errors.append(
            checks.Error(
                f"OPEN_ACCESS=1 lets everyone in; it is refused while the web server is bound to {settings.BIND},"
                " which is not this machine alone. Set BIND=127.0.0.1.",
                id="dumbwaiter.E002",
            )
        )
    return errors


def check_database_is_postgres() -> list[checks.CheckMessage]:
    if connections[DEFAULT_DB_ALIAS].vendor != "postgresql":
        return [checks.Error("The runs live in PostgreSQL: DATABASE_URL must name one.", id="dumbwaiter.E003")]
    return []


@checks.register(OURS)
def check_no_pool(app_configs: Any = None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Django's psycopg pool runs threads, which do not survive the fork of a worker."""
    if connections[DEFAULT_DB_ALIAS].settings_dict.get("OPTIONS", {}).get("pool"):
        return [
            checks.Error("The option `pool` of the database cannot be used: workers are forked.", id="dumbwaiter.E004")
        ]
    return []


@checks.register(OURS)
def check_our_command_wins(app_configs: Any = None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Of two apps with a command of the same name, Django takes the first in INSTALLED_APPS."""
    installed = list(settings.INSTALLED_APPS)
    if "django_q" in installed and installed.index("django_q") < installed.index("tasks_app"):
        return [checks.Error("tasks_app must stand before django_q in INSTALLED_APPS.", id="dumbwaiter.E005")]
    return []


@checks.register(OURS)
def check_catch_up(app_configs: Any = None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Django-Q2 can run a schedule once for each time that it missed; here that is a rule of each schedule."""
    if settings.Q_CLUSTER.get("catch_up"):
        return [
            checks.Error(
                "Q_CLUSTER cannot have catch_up: a schedule that missed times is run once, or skips them if its rule"
                " `missed` says so.",
                id="dumbwaiter.E006",
            )
        ]
    return []


HONOURED = {"name", "cluster_name", "ALT_CLUSTERS", "label", "broker_class", "scheduler", "time_zone", "catch_up"}
"""Options of Q_CLUSTER that mean here what they mean to Django-Q2, or have a check of their own."""

INSTEAD = {
    "workers": "the setting WORKERS",
    "recycle": "the setting RECYCLE_AFTER",
    "max_rss": "the setting WORKER_MEMORY_MB",
    "max_attempts": "the setting MAX_ATTEMPTS, or the option of @task",
    "timeout": "the option of @task",
    "log_level": "the setting LOG_LEVEL",
}
"""Where what they wish can be said."""


@checks.register(OURS)
def check_q_cluster(app_configs: Any = None, **kwargs: Any) -> list[checks.CheckMessage]:
    """An option that only Django-Q2's own engine reads would be ignored without a word."""
    given: dict[str, Any] = dict(settings.Q_CLUSTER)
    if given.get("workers") == settings.WORKERS:
        del given["workers"]
    if given.get("ack_failures"):  # as it is here: a run that failed is not delivered once more
        del given["ack_failures"]
    for alternative in (given.get("ALT_CLUSTERS") or {}).values():
        given |= alternative
    if not (ignored := sorted(given.keys() - HONOURED)):
        return []
    hints = [f"{name}: {INSTEAD[name]}." for name in ignored if name in INSTEAD]
    return [
        checks.Warning(
            f"Q_CLUSTER has what only Django-Q2's own engine reads, and is ignored here: {', '.join(ignored)}.",
            hint=" ".join(hints) or "Leave it out.",
            id="dumbwaiter.W001",
        )
    ]
