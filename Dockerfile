# syntax=docker/dockerfile:1

FROM python:3.13-slim AS packages
WORKDIR /build
COPY requirements.txt constraints.txt ./
RUN sed '/^# Only on one.s own machine/,$d' requirements.txt > server.txt \
    && python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check -c constraints.txt -r server.txt

FROM python:3.13-slim AS runtime
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    BIND=0.0.0.0 \
    PORT=8004
# The application cannot change its own code: it owns only the folders it writes to, which become volumes.
RUN useradd --uid 10001 --create-home app \
    && install -d -o app -g app /app/media /app/logs
WORKDIR /app
COPY --from=packages /opt/venv /opt/venv
COPY manage.py ./
COPY config config
COPY tasks_app tasks_app
COPY templates templates
COPY static static
RUN SECRET_KEY=only-for-this-step python manage.py collectstatic --noinput
USER app
EXPOSE 8004
CMD ["gunicorn", "-c", "config/gunicorn.py", "config.wsgi"]

# `docker compose run --rm tests`: the same image, with the test suite, a browser and a PostgreSQL of its own.
FROM runtime AS test
USER root
RUN apt-get update \
    && apt-get install --yes --no-install-recommends chromium fonts-dejavu-core make procps \
    && rm -rf /var/lib/apt/lists/*
COPY requirements.txt requirements-dev.txt constraints.txt ./
RUN pip install --no-cache-dir --disable-pip-version-check -c constraints.txt -r requirements-dev.txt
COPY . .
RUN install -d -o app -g app /app/var
USER app
ENV REQUIRE_BROWSER=1
CMD ["python", "-m", "pytest", "-p", "no:cacheprovider"]

# What `docker build .` without a target makes.
FROM runtime
