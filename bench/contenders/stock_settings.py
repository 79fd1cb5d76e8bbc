"""Django settings of the two contenders that run on Django-Q2's own engine, apart from this project's.

BENCH_ENGINE says which: `django_q2` (the stock cluster) or `qraft` (django-qraft on top of it).
"""

import os

SECRET_KEY = "only-for-the-benchmark"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
QRAFT = os.environ["BENCH_ENGINE"] == "qraft"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "django_q", *(["qraft"] if QRAFT else [])]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": os.environ["PGDATABASE"],
        "USER": os.environ["PGUSER"],
        "HOST": os.environ["PGHOST"],
        "PORT": os.environ["PGPORT"],
        "CONN_MAX_AGE": 60,
    }
}
Q_CLUSTER = {
    "name": "default",
    "orm": "default",
    "workers": 2,
    "timeout": 60,
    "retry": 120,
    "save_limit": 0,  # every result is kept
    "bulk": 10,  # takes ten from the table at a time instead of one
    "queue_limit": 100,
    "log_level": "WARNING",
}
if QRAFT:
    Q_CLUSTER["broker_class"] = "qraft.brokers.QraftOrmBroker"
    QRAFT_CLUSTER = {"retry_defaults": {"max_attempts": 3}}
