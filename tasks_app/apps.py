from django.apps import AppConfig


class TasksAppConfig(AppConfig):
    name = "tasks_app"
    verbose_name = "Dumbwaiter"

    def ready(self) -> None:
        from tasks_app import catalog, checks  # noqa: F401

        catalog.discover()
