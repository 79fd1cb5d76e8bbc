"""The web server's settings: `gunicorn -c config/gunicorn.py config.wsgi`."""

import sys
from pathlib import Path

from config.env import flag, is_loopback, number, text

host = text("BIND", "127.0.0.1")
bind = f"[{host}]:{number('PORT', 8000, least=1)}" if ":" in host else f"{host}:{number('PORT', 8000, least=1)}"
proc_name = "dumbwaiter"

# A worker process for what computes, threads for what waits for the database.
worker_class = "gthread"
workers = number("WEB_WORKERS", 2, least=1)
threads = number("WEB_THREADS", 4, least=1)


def on_starting(server: object) -> None:
    """Refuse to serve what a system check refuses: open access for more than this machine."""
    if not flag("OPEN_ACCESS") or (flag("DEBUG") and is_loopback(host)):
        return  # without loading Django a second time for it
    import os

    import django
    from django.core.checks import Tags, run_checks

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    django.setup()
    sys.exit("\n".join(problem.msg for problem in run_checks(tags=[Tags.security]) if problem.is_serious()))


# How long open requests may go on after SIGTERM: less than whoever stops us waits before SIGKILL.
graceful_timeout = 8
timeout = 60
# Behind a proxy that keeps its connections open a short keep-alive would race with its next request.
keepalive = 5

accesslog = "-" if flag("ACCESS_LOG") else None
errorlog = "-"

# By default it would be made in the home folder of whoever starts us, and nobody here talks to it.
control_socket_disable = True
# Each worker shows that it lives by touching a file; on a disk, a slow one could block it into being killed.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108
