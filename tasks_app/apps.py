from django.apps import AppConfig


class TasksAppConfig(AppConfig):
    name = "tasks_app"
    verbose_name = "Dumbwaiter"

    def ready(self) -> None:
        from tasks_app import catalog, checks  # noqa: F401
        from tasks_app.engine import broker, schedules  # noqa: F401  their receivers stand at Django-Q2's door

        catalog.discover()
