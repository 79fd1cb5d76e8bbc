from django.apps import AppConfig


class TasksAppConfig(AppConfig):
    name = "tasks_app"
    verbose_name = "Dumbwaiter"

    def ready(self) -> None:
        from tasks_app import access, catalog, checks  # noqa: F401
        from tasks_app.engine import broker, q2_options, schedules  # noqa: F401  receivers at Django-Q2's door

        q2_options.install()
        access.forget_forms_at_logout()
        catalog.discover()
