"""STEER: what can be done to many runs at once, in the words of its buttons and of the page that asks back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tasks_app.powers import CANCEL, CHANGE, DELETE, RETRY

ACTS = "tasks_app.tasks.bulk.act_on_runs"
REMOVALS = "tasks_app.tasks.schedules.delete_schedule"
"""The tasks by which what was wished is done."""

ENDED = ("successful", "failed", "cancelled")
UNHELD = ("ready", "scheduled", "retrying", "waiting")
NOBODY_HAS = "Those stay as they are that a worker has taken, or that have ended."


@dataclass(frozen=True)
class Deed:
    """One of them: `word` in URLs and arguments, `label` on its button."""

    word: str
    label: str
    permission: str
    ask: str
    """The question, with a place for which runs."""
    note: str
    """To which of them it is done, in a sentence."""
    button: str
    """The answer yes, with a place for how many runs."""
    states: tuple[str, ...]
    """A list of runs of another state has none to which it could be done."""
    icon: str = ""
    is_harm: bool = False

    def why_not(self, state: str) -> str:
        """Why it cannot be done to runs of this state, in a sentence; empty if it can."""
        if not state or state in self.states:
            return ""
        if state in ENDED:
            return "They have ended already."
        return "They have not ended yet." if self.states == ENDED else "Workers have them already."


DEEDS = {
    deed.word: deed
    for deed in (
        Deed(
            "retry", "Retry", RETRY, "Send {} once more?",
            "Only those that failed or were cancelled are sent, each as a new run with the same arguments, and none"
            " that was sent once more before.",
            "Retry {}", ENDED, icon="retrying",
        ),
        Deed(
            "cancel", "Cancel", CANCEL, "Cancel {}?",
            "Those that have ended stay as they are. A worker that is at one is told to stop it.",
            "Cancel {}", (*UNHELD, "claimed", "running"), icon="close", is_harm=True,
        ),
        Deed(
            "delete", "Delete", DELETE, "Delete {} for good?",
            "With their logs and their files. Those that have not ended stay.",
            "Delete {}", ENDED, is_harm=True,
        ),
        Deed(
            "run-now", "Run now", CHANGE, "Have {} run now?",
            f"What waits for a later time is due at once. {NOBODY_HAS}", "Run {} now", UNHELD,
        ),
        Deed(
            "run-at", "Run at a time", CHANGE, "Have {} wait for a time?",
            f"They run not before it. {NOBODY_HAS}", "Set the time of {}", UNHELD,
        ),
        Deed(
            "priority", "Change priority", CHANGE, "Change the priority of {}?",
            f"Of the runs of a queue those with a higher priority go first. {NOBODY_HAS}",
            "Set the priority of {}", UNHELD,
        ),
        Deed(
            "move", "Move to queue", CHANGE, "Move {} to another queue?",
            f"Each takes its place there by priority and time. {NOBODY_HAS}", "Move {}", UNHELD,
        ),
    )
}  # fmt: skip


def wished(task_path: str, kwargs: Any) -> str:
    """What a run was asked for that is itself a deed, in words; empty for any other run.

    Of its arguments the two that say so will do: `verb` and `what`.
    """
    if not isinstance(kwargs, dict):
        return ""
    if task_path == REMOVALS and (title := kwargs.get("title")):
        return f"Delete: the schedule {title}"
    deed = DEEDS.get(str(kwargs.get("verb"))) if task_path == ACTS else None
    return f"{deed.label}: {what}" if deed and (what := kwargs.get("what")) else ""
