from tasks_app.models.cluster import Cluster
from tasks_app.models.log import RunLog
from tasks_app.models.run import Failure, Status, TaskRun, TaskRunQuerySet

__all__ = ["Cluster", "Failure", "RunLog", "Status", "TaskRun", "TaskRunQuerySet"]
