"""Scoring pairs of images with the workers of a cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from restore.cluster.driver import share_out
from restore.cluster.groups import Group
from restore.cluster.options import ClusterOptions
from restore.cluster.pool import Pool
from restore.cluster.worker import Assignment, Introduction, Line, Result, Scoring
from restore.errors import RestoreError
from restore.evaluation.pairs import Pair, load_pair
from restore.evaluation.scoring import ScoredBatch, ScoredBy, Scorer, open_metrics


class _Item(NamedTuple):
    """A pair as the queue takes it: `source` is its name, which no other pair has."""

    source: str
    pair: Pair


def scored_on_cluster(
    scoring: Scoring, cluster: ClusterOptions, *, on_event: Callable[[str], None] = lambda line: None
) -> ScoredBy:
    """What scores pairs with the workers of a Ray cluster, for `score_folders`.

    Args:
        scoring: the arguments of `score_folders`; weights must lie at the same paths on all machines.
        cluster: which cluster, and how many workers.
        on_event: called with a line when workers come and go.
    """

    def scored(pairs: Sequence[Pair], failed: list[dict[str, str]], done: Callable[[], None]) -> Iterator[ScoredBatch]:
        if not pairs:
            return
        scores = _Scores(pairs, done, on_event)
        places = {os.path.abspath(path) for pair in pairs[:1] for path in (pair.restored, pair.reference)}
        ending = share_out(
            Assignment(scoring, None, None, os.getcwd(), tuple(sorted(places))), cluster, scores, len(pairs)
        )
        if ending.interrupted:
            raise KeyboardInterrupt
        if ending.stopped:
            raise RestoreError(ending.stopped, where="--ray", exit_code=1)
        for pair in pairs:
            if (reason := scores.reasons.get(pair.name)) is not None:
                failed.append({"name": pair.name, "reason": reason})
            else:
                yield scores.batches[pair.name]

    return scored


class _Scores:
    """Receives the scores of all pairs, in any order."""

    def __init__(self, pairs: Sequence[Pair], done: Callable[[], None], on_event: Callable[[str], None]) -> None:
        self._pairs, self._done, self.on_event = pairs, done, on_event
        self.pool: Pool | None = None
        self.batches: dict[str, ScoredBatch] = {}
        self.reasons: dict[str, str] = {}

    def items(self) -> Iterator[_Item]:
        """The pairs."""
        return (_Item(pair.name, pair) for pair in self._pairs)

    def opened(self, worker: Introduction) -> None:
        """Nothing is logged."""

    def result(self, worker: Introduction, result: Result) -> None:
        """Keep the scores of a pair, or why it has none."""
        name = result["record"]["input"]
        if "batch" in result:
            self.batches[name] = result["batch"]
        else:
            self.reasons[name] = result["reason"]
        self._done()

    def blame(self, item: Any, reason: str) -> None:
        """A pair ends its workers."""
        self.reasons[item.source] = reason
        self._done()

    def lost(self, worker: Introduction, groups: list[Group]) -> None:
        """Nothing was written."""


class ScoringHand:
    """Scores pairs of images."""

    def __init__(self, scoring: Scoring) -> None:
        from restore.devices import pick_device
        from restore.metrics import find_convention

        device = pick_device(scoring.device)
        suite = open_metrics(
            scoring.metrics, replace(find_convention(scoring.convention), border_px=scoring.border_px), device,
            masked=scoring.masked, lpips_net=scoring.lpips_net, lpips_weights=scoring.lpips_weights,
            fid_weights=scoring.fid_weights,
        )  # fmt: skip
        self._scorer, self._stopped = Scorer(suite, device), False
        self.facts: dict[str, Any] = {"model": "", "model_sha256": None, "settings": {}}

    def take(self, items: Sequence[_Item], line: Line, *, again: bool) -> None:
        """See `restore.cluster.worker.Hand`."""
        for name, pair in items:
            if self._stopped:
                return
            line.begin(name)
            result: Result = {"record": {"input": name}}
            try:
                result["batch"] = self._scorer([load_pair(pair)])
            except RestoreError as error:
                result["reason"] = str(error)
            line.end(name, result)

    def stop(self, reason: str) -> None:
        """See `restore.cluster.worker.Hand`."""
        self._stopped = True
