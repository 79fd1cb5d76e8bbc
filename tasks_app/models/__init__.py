from tasks_app.models.audit import AuditEntry
from tasks_app.models.cluster import Cluster
from tasks_app.models.failure import FailureGroup, FailureStat
from tasks_app.models.log import RunLog
from tasks_app.models.queue import Queue, TaskLimit
from tasks_app.models.run import Failure, Status, TaskRun, TaskRunQuerySet
from tasks_app.models.schedule import Missed, Overlap, ScheduleRules
from tasks_app.models.stat import CountedTo, Grain, QueueStat, RunStat
from tasks_app.models.view import BadView, SavedView
from tasks_app.models.workflow import OnFailure, Workflow, WorkflowNews

__all__ = [
    "AuditEntry",
    "BadView",
    "Cluster",
    "CountedTo",
    "Failure",
    "FailureGroup",
    "FailureStat",
    "Grain",
    "Missed",
    "OnFailure",
    "Overlap",
    "Queue",
    "QueueStat",
    "RunLog",
    "RunStat",
    "SavedView",
    "ScheduleRules",
    "Status",
    "TaskLimit",
    "TaskRun",
    "TaskRunQuerySet",
    "Workflow",
    "WorkflowNews",
]
