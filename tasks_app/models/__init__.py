from tasks_app.models.cluster import Cluster
from tasks_app.models.log import RunLog
from tasks_app.models.run import Failure, Status, TaskRun, TaskRunQuerySet
from tasks_app.models.schedule import Missed, Overlap, ScheduleRules

__all__ = [
    "Cluster",
    "Failure",
    "Missed",
    "Overlap",
    "RunLog",
    "ScheduleRules",
    "Status",
    "TaskRun",
    "TaskRunQuerySet",
]
