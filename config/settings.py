"""Settings, all of them read from the environment.

Every variable read here stands in `.env.example` and in the README's table; a test compares the three.
"""

import os
import warnings
from pathlib import Path
from zoneinfo import available_timezones

import dj_database_url
from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured

from config import embedded
from config.env import choice, flag, number, text, words
from config.retention import rules

BASE_DIR = Path(__file__).resolve().parent.parent

# Where things are
VAR_DIR = Path(text("VAR_DIR", str(BASE_DIR / "var")))
STATIC_URL = "static/"
STATIC_ROOT = Path(text("STATIC_ROOT", str(BASE_DIR / "staticfiles")))
STATICFILES_DIRS = [BASE_DIR / "static"]
MEDIA_ROOT = Path(text("MEDIA_ROOT", str(BASE_DIR / "media")))
LOG_FILE = Path(text("LOG_FILE", str(BASE_DIR / "logs" / "qcluster.log")))
LOG_LEVEL = choice("LOG_LEVEL", "INFO", {"DEBUG", "INFO", "WARNING", "ERROR"})

# Who may come in
DEBUG = flag("DEBUG")
SECRET_KEY = text("SECRET_KEY") or ("only-for-development-" * 3 if DEBUG else "")
if not SECRET_KEY:
    raise ImproperlyConfigured("SECRET_KEY is not set. Set it to a long random text, or DEBUG=1 on your own machine.")
ALLOWED_HOSTS = words("ALLOWED_HOSTS")
CSRF_TRUSTED_ORIGINS = words("CSRF_TRUSTED_ORIGINS")
BIND = text("BIND", "127.0.0.1")
PORT = number("PORT", 8000, least=1, most=65535)
OPEN_ACCESS = flag("OPEN_ACCESS")
API_TOKENS = words("API_TOKENS")
API_TOKENS_MAY_LAUNCH = words("API_TOKENS_MAY_LAUNCH")

INSTALLED_APPS = [
    "tasks_app",  # before django_q, so that its qcluster command is the one that runs
    "django_q",
    "django_tasks",
    "django_htmx",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "tasks_app.middleware.ContentSecurityPolicyMiddleware",
    "tasks_app.middleware.KnownHostMiddleware",  # before all that ask for the host
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "tasks_app.middleware.TimeZoneMiddleware",
    "tasks_app.middleware.NoNewsMiddleware",  # before the one that asks who is there
    "tasks_app.middleware.ClosedByDefaultMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "tasks_app.middleware.ReadableErrorsMiddleware",
]

ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "login"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "tasks_app.nav.nav",
                "tasks_app.views.preferences.preferences",
            ],
        },
    },
]

# The database: the one that DATABASE_URL names, or the embedded one of this checkout
DATABASE_URL = text("DATABASE_URL") or embedded.url(VAR_DIR / "postgres")
try:
    database = dj_database_url.parse(DATABASE_URL, conn_max_age=60, conn_health_checks=True)
    if not database["ENGINE"].endswith(".postgresql"):
        raise ValueError("another kind of database")
except ValueError:  # its message would show the password
    raise ImproperlyConfigured(
        "DATABASE_URL cannot be read: write postgresql://user:password@host:5432/name."
    ) from None
# Enqueue is prepared once a connection. PgBouncer before 1.21 cannot do that in transaction mode: it needs "none".
options = database.setdefault("OPTIONS", {})
options["prepare_threshold"] = None if options.get("prepare_threshold") == "none" else 0
DATABASES = {"default": {**database, "TEST": {"NAME": text("TEST_DATABASE_NAME") or None}}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# The queue
WORKERS = number("WORKERS", os.cpu_count() or 2, least=1, most=1000)
STOP_GRACE_SECONDS = number("STOP_GRACE_SECONDS", 10.0)
RECYCLE_AFTER = number("RECYCLE_AFTER", 0)
WORKER_MEMORY_MB = number("WORKER_MEMORY_MB", 0)
CANCEL_GRACE_SECONDS = number("CANCEL_GRACE_SECONDS", 5.0)
LOST_AFTER_SECONDS = number("LOST_AFTER_SECONDS", 15.0, least=2)
MAX_JSON_BYTES = number("MAX_JSON_BYTES", 1_000_000, least=1_000)
UNKNOWN_TASK_SECONDS = number("UNKNOWN_TASK_SECONDS", 300.0)
RECEIVER_SECONDS = number("RECEIVER_SECONDS", 5.0)
IDEMPOTENCY_SECONDS = number("IDEMPOTENCY_SECONDS", 86_400.0, most=1e9)
MAX_ATTEMPTS = number("MAX_ATTEMPTS", 3, least=1, most=1000)
PRACTICE_UNIT_SECONDS = number("PRACTICE_UNIT_SECONDS", 10.0)
SECRETS = "password, passwd, secret, token, api_key, apikey, authorization, credential, private_key, cookie, session"
MASKED_KEYS = [word for word in words("MASKED_KEYS", SECRETS) if word.lower() != "none"]
RETENTION = rules("RETENTION", text("RETENTION", "SUCCESSFUL=30d, FAILED=90d, CANCELLED=30d"))

TASKS = {"default": {"BACKEND": "tasks_app.backend.PostgresBackend", "QUEUES": []}}
Q_CLUSTER = {
    "name": "default",
    "label": "Django Q",
    "broker_class": "tasks_app.engine.broker.PostgresBroker",
    "workers": WORKERS,
}
# Of two options that only its own engine reads, which never runs here.
warnings.filterwarnings("ignore", message="Retry and timeout are misconfigured")

# A thousand ticked runs and what comes with them; more are refused with a sentence as long as they can be read.
DATA_UPLOAD_MAX_NUMBER_FIELDS = 5_000

# Uploads of the thumbnail example
UPLOAD_MAX_BYTES = 20 * 1024 * 1024
UPLOAD_MAX_PIXELS = 50_000_000
FILE_UPLOAD_HANDLERS = [
    "tasks_app.uploads.BoundedUploadHandler",
    "django.core.files.uploadhandler.MemoryFileUploadHandler",
    "django.core.files.uploadhandler.TemporaryFileUploadHandler",
]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if DEBUG
        else "whitenoise.storage.CompressedManifestStaticFilesStorage"
    },
}

# Browsers
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
    }
}
X_FRAME_OPTIONS = "DENY"
HTTPS = flag("HTTPS", default=not DEBUG)
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
SECURE_SSL_REDIRECT = HTTPS
SECURE_REDIRECT_EXEMPT = ["^healthz$"]  # asked over plain http, from inside, by a load balancer
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = HTTPS
BEHIND_PROXY = flag("BEHIND_PROXY")
if BEHIND_PROXY:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SESSION_COOKIE_HTTPONLY = True

LANGUAGE_CODE = "en-gb"
TIME_ZONE = choice("TIME_ZONE", "UTC", available_timezones())
USE_I18N = True
USE_TZ = True

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"()": "tasks_app.engine.logs.LineFormatter"}},
    "handlers": {
        "console": {"class": "tasks_app.engine.logs.ConsoleHandler", "formatter": "line"},
        "file": {"class": "tasks_app.engine.logs.ClusterLogHandler", "filename": LOG_FILE, "formatter": "line"},
    },
    "root": {"handlers": ["console"], "level": LOG_LEVEL},
    "loggers": {
        "dumbwaiter": {"handlers": ["file"], "level": LOG_LEVEL},
        # Its own console handler would say everything twice.
        "django": {"handlers": [], "propagate": True},
        # Says every request over again; gunicorn's access log is the place for that.
        "django.server": {"handlers": ["console"], "level": "WARNING", "propagate": False},
        "django.request": {"level": "ERROR"},
        # With DEBUG it would say every statement with its values, and so the arguments of runs as they are.
        "django.db.backends": {"level": "INFO"},
        # Says "Enqueued [queue] id" at each async_task.
        "django-q": {"level": "WARNING"},
    },
}
