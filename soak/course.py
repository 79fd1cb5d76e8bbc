"""The course of a soak: load and faults, then peace, the end of every cluster, the proof and the report."""

from __future__ import annotations

import re
import shutil
import time
import uuid
from collections import Counter
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connections

from soak import events, ledger, proof
from soak.events import Event
from soak.faults import FAULTS, Trouble, undo_everything
from soak.load import Load
from soak.memory import Memory
from soak.promises import RUNS_OF
from soak.scene import Scene, exhaust, until
from tasks_app.clock import database_now
from tasks_app.retention import prune

SECONDS_TO_DRAIN = 60.0
"""After the last fault every run is final within this time: the longest waits are a few seconds of run_after, of
backoff, and until a silent cluster counts as lost."""

MOST_TOLD = 10
"""Violations are all counted; so many are told with the history of their run."""

PROMISED = ("unique", "expired", "scheduled", "retries", "workflows")

NAMES = re.compile(r"\S*\d[\d:.+-]*\S*")
"""Ids, holders, numbers and times, without which sentences of one kind are the same."""


class Course:
    """One soak from its first cluster to its report."""

    def __init__(self, scene: Scene, seconds: float, seed: int, faults: Collection[str]) -> None:
        self.scene, self.seconds, self.seed = scene, seconds, seed
        self.load = Load(f"{seed}/load")
        self.trouble = Trouble(scene, f"{seed}/faults", [one for one in FAULTS if not faults or one.__name__ in faults])
        self.memory = Memory(scene)
        self.verdict = proof.Verdict()
        self.pruned = datetime.max.replace(tzinfo=UTC)

    def run(self) -> bool:
        """Answers whether everything was proved."""
        scene = self.scene
        for place in scene.places:
            place.start()
        exhaust(until(lambda: all(place.is_ready for place in scene.places), seconds=30))
        self.load.declare()
        scene.began = time.monotonic()
        self.load.start()
        while scene.seconds < self.seconds:
            self.trouble.go_on()
            self.look_after()
            time.sleep(0.02)
        self.load.stop()
        while self.trouble.go_on(more=False):
            self.look_after()
            time.sleep(0.02)
        undo_everything(scene)
        self.load.await_end()
        scene.complaints += self.load.notes.complaints
        scene.say("the faults are over")
        left = scene.drain(SECONDS_TO_DRAIN)
        scene.say(f"{len(left)} runs are not final" if left else "every run is final")
        for run in left[:MOST_TOLD]:  # told as they are now, because a cluster that stops gives back what it holds
            scene.complaints += [f"run {run['id']} is not final:", *(f"    {line}" for line in proof.history(run, []))]
        self.prune()
        self.memory.look()
        scene.complaints += self.memory.complaints()
        scene.stop_all()
        scene.leftovers()
        evidence = self.evidence()
        self.verdict = proof.judge(evidence)
        self.verdict.counts["clusters lost"] = len(evidence.lost_clusters)
        lost = exhaust(scene.insist("SELECT name FROM tasks_app_cluster WHERE lost_at IS NOT NULL"))
        self.verdict.counts["lost by themselves"] = sum(row["name"] not in scene.silenced for row in lost)
        return not (scene.complaints or self.verdict.violations)

    def prune(self) -> None:
        """Once more, after everything has ended: whatever is not kept has to go."""
        self.pruned = database_now()
        prune(why="The soak is over.")
        connections.close_all()

    def look_after(self) -> None:
        for place in self.scene.places:
            place.look_after()
        self.memory.look()

    # The proof

    def evidence(self) -> proof.Evidence:
        scene = self.scene
        gone = exhaust(scene.insist("SELECT id FROM tasks_app_cluster WHERE lost_at IS NOT NULL"))
        return proof.Evidence(
            runs=self.runs(),
            executions=ledger.executions(scene.ledger_url),
            notes=self.load.notes,
            lost_clusters={row["id"].hex[:12] for row in gone},
            lines=exhaust(scene.insist(events.LINES)),
            events=[Event(**row) for row in exhaust(scene.insist(events.QUERY))],
            holds=scene.holds,
            workflows=exhaust(scene.insist(events.FLOWS)),
            acts=exhaust(scene.insist(events.ACTS)),
            rules=settings.RETENTION,
            pruned=self.pruned,
        )

    def runs(self) -> Iterator[proof.Run]:
        """One by one, because a long soak has many."""
        with self.scene.server.connect() as connection, connection.transaction(), connection.cursor("runs") as cursor:
            yield from cursor.execute(events.RUNS)

    # The report

    def report(self) -> Iterator[str]:
        counts, scene = self.verdict.counts, self.scene
        statuses = ", ".join(f"{counts[name]:,} {name.lower()}" for name in ("SUCCESSFUL", "FAILED", "CANCELLED"))
        yield f"runs        {counts['runs']:,}: {statuses}"
        promises = {promise.value: counts[promise.value] for promise in RUNS_OF}
        yield f"sent        {_listed(promises)}; {len(self.load.notes.wished):,} wished cancelled"
        yield f"executions  {counts['executions']:,}; {counts['more than one execution']:,} runs had more than one"
        yield (
            f"promises    {_listed({name: counts[name] for name in PROMISED})} "
            f"of {counts['claims']:,} claims, under {len(scene.holds)} pauses and limits"
        )
        yield (
            f"gone        {counts['gone']:,} runs, {counts['deleted']:,} of them deleted by somebody, "
            f"{counts['workflows gone']:,} workflows"
        )
        attempts = {name: n for name, n in sorted(counts.items()) if name.startswith("attempt ended")}
        yield f"attempts    {_listed({name.rpartition(' ')[2]: n for name, n in attempts.items()})}"
        yield f"given back  {counts['attempt ended by given_back']} at a stop, after they had begun"
        yield f"faults      {_listed({name.replace('_', ' '): n for name, n in sorted(scene.faults.items())})}"
        yield (
            f"clusters    {len(scene.server.clusters)} started, {counts['clusters lost']} declared lost, "
            f"{counts['lost by themselves']} of them neither frozen nor killed as a whole"
        )
        yield f"late        {sum(map(len, self.verdict.late.values()))} executions began after their cluster was lost"
        yield from (f"memory      {line}" for line in self.memory.table())
        total = len(scene.complaints) + len(self.verdict.violations)
        yield f"violations  {total}"
        yield from (f"  {complaint}" for complaint in scene.complaints)
        yield from self.told()

    def told(self) -> Iterator[str]:
        """Each violation, the first ones with the history of their run."""
        kinds = Counter(NAMES.sub("…", violation.sentence)[:100] for violation in self.verdict.violations)
        if len(self.verdict.violations) > MOST_TOLD:
            yield from (f"  {n:6} x {sentence}" for sentence, n in kinds.most_common(MOST_TOLD))
        for violation in self.verdict.violations[:MOST_TOLD]:
            yield f"  {f'run {violation.run}: ' if violation.run else ''}{violation.sentence}"
            if violation.run is not None:
                yield from (f"      {line}" for line in self.history(violation.run))

    def history(self, run_id: uuid.UUID) -> list[str]:
        rows: list[dict[str, Any]] = exhaust(
            self.scene.insist(f"SELECT * FROM ({events.RUNS}) AS run WHERE id = %s", run_id)
        )
        executions = self.verdict.by_run.get(run_id, [])
        if not rows:
            return [f"no row; executions: {executions}"]
        return proof.history(rows[0], executions)

    def keep(self, folder: Path, report: list[str]) -> None:
        """What a reader of the violations may want, where it outlives the soak."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for cluster in self.scene.server.clusters:
            shutil.copy(cluster.output_file, folder)
        for log in (self.scene.folder / "product" / "postgres").glob("server.log*"):
            shutil.copy(log, folder)
        (folder / "report.txt").write_text("\n".join(report) + "\n")


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{n:,} {name}" for name, n in counts.items()) or "none"
