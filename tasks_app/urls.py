from django.contrib.auth import views as auth_views
from django.urls import path

from tasks_app import api
from tasks_app.views import audit, health, home, launch, logs, preferences, queues, runs, schedules, workflows

urlpatterns = [
    path("", home.home, name="home"),
    path("launch/create_task/", launch.create_task, name="launch-create_task"),
    path("launch/make_thumbnails/", launch.make_thumbnails, name="launch-make_thumbnails"),
    path("runs/changes/", runs.changes, name="runs-changes"),
    path("runs/<uuid:pk>/", runs.run, name="run"),
    path("runs/<uuid:pk>/live/", runs.live, name="run-live"),
    path("runs/<uuid:pk>/cancel/", runs.cancel, name="run-cancel"),
    path("runs/<uuid:pk>/files/<str:name>", runs.file, name="run-file"),
    path("queues/", queues.index, name="queues"),
    path("queues/steer/", queues.steer, name="queue-steer"),
    path("schedules/", schedules.index, name="schedules"),
    path("schedules/new/", schedules.new, name="schedule-new"),
    path("schedules/preview/", schedules.preview, name="schedule-preview"),
    path("schedules/<int:pk>/", schedules.schedule, name="schedule"),
    path("schedules/<int:pk>/steer/", schedules.steer, name="schedule-steer"),
    path("workflows/", workflows.index, name="workflows"),
    path("workflows/<uuid:pk>/", workflows.workflow, name="workflow"),
    path("workflows/<uuid:pk>/steer/", workflows.steer, name="workflow-steer"),
    path("logs/", logs.index, name="logs"),
    path("audit/", audit.audit, name="audit"),
    path("theme/", preferences.theme, name="theme"),
    path("refresh/", preferences.refresh, name="refresh"),
    path("time-zone/", preferences.time_zone, name="time-zone"),
    path("keys/", preferences.keys, name="keys"),
    path("login/", auth_views.LoginView.as_view(redirect_authenticated_user=True), name="login"),
    path("logout/", auth_views.LogoutView.as_view(), name="logout"),
    path("healthz", health.healthz, name="healthz"),
    path("tasks", api.tasks, name="api-tasks"),
    path("tasks/<path:task_id>", api.task, name="api-task"),
]
