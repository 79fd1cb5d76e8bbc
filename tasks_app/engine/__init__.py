"""QUEUE and RUN: the only package that imports django_q.

`submit` puts runs in, `worker` claims and finishes them, `sentinel` keeps the workers, `cluster` keeps the sentinel.
"""
