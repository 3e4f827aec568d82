"""How long does a user wait? The same requests to a model without text, to one with stored vectors, and to an LLM.

A request ranks some items for one user. Warm: in a process that has answered before, timed inside it, users in seeded
random order. Cold: from the start of a fresh process to its first answer. The arms take turns within one run, in seeded
random order, so that whatever else the machine does falls on all alike.
"""

import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl

import llm_features.engines
from ctr_models import runs
from flows.config import RunConfig
from flows.learning import run_name
from flows.progress import progress
from flows.studies.latency.arms import Arm, Asked, Served
from flows.studies.latency.costs import costs
from flows.studies.latency.tables import TIMINGS, results
from flows.studies.page import latency as page
from flows.studies.parts import REPORT, publish_tables
from storage import files
from storage.errors import ConfigError, NightshiftError
from storage.ingest import load_dataset
from storage.plugins import load

STUDY = "latency"
WARM_UP = 10
"""Requests to a process before the first that counts."""


class Study:
    """The request times of the newest runs of a data root."""

    def __init__(self, config: RunConfig) -> None:
        """Raises ConfigError without models, StoreError where one was never trained with and without features."""
        if not config.models:
            raise ConfigError("the run has no [models], so there is nothing to time")
        self.config, self.section, self.root = config, config.latency, config.store.root
        self.dataset = load_dataset(self.root)
        self.models = self.section.models or (config.recommend.model,)
        self.served: list[Served] = []
        self.runs: list[str] = []
        for model in self.models:
            for arm in ("without", "with"):
                version = files.version(runs.folder(self.root, run_name(model, arm)))
                self.served.append(Served(self.root, run_name(model, arm), model=model, arm=arm))
                self.runs.append(f"{run_name(model, arm)} v{version.number}")
        engine = self.section.engine or next(iter(language_models(config)), None)
        self.asked = None if engine is None else Asked(config, engine, self.dataset)
        self.why_not = "" if engine else "the run has no engine that is a language model (kind vllm or openai)"
        n_items = len(self.dataset.items)
        self.counts = sorted({min(count, n_items) for count in self.section.candidates})
        self.llm_counts = [n for n in self.counts if n in {min(c, n_items) for c in self.section.llm_candidates}]
        if engine and not self.llm_counts:
            self.why_not = "none of latency.llm_candidates is among latency.candidates"
        self._random = np.random.default_rng(self.section.seed)
        self._timings: list[tuple[str, str, str, int, int, float]] = []

    def run(self) -> dict[str, Any]:
        """Measure, publish the tables and the page; a summary with the results."""
        section = self.section
        plans = [
            ("cold", section.cold_starts, section.llm_cold_starts),
            ("warm", section.requests, section.llm_requests),
        ]
        per_plan = [len(self.served) * len(self.counts) * n + len(self.llm_counts) * m for _, n, m in plans]
        try:
            with progress("request times") as on_progress:
                for cache, n, m in plans:
                    self._measure(cache, n, m, lambda: on_progress(len(self._timings), sum(per_plan)))
        finally:
            for arm in (*self.served, self.asked):
                if arm is not None:
                    arm.close()
        timings = pl.DataFrame(self._timings, schema=TIMINGS, orient="row")
        found = results(timings, self.counts, self.asked.model if self.asked else "", self.why_not)
        tables = {"results": found, "costs": costs(self.root), "timings": timings}
        meta = {"models": list(self.models), "candidates": self.counts, "loaded": self._loaded()}
        published = publish_tables(self.root, STUDY, tables, meta, page=page.render(tables, self._made()))
        return {"study": STUDY, "results": tables["results"].to_dicts(), "page": str(published.path / REPORT), **meta}

    def _arms(self) -> list[Arm]:
        return [*self.served, *([self.asked] if self.asked is not None and not self.why_not else [])]

    def _measure(self, cache: str, requests: int, llm_requests: int, on_done: Callable[[], None]) -> None:
        """Time every arm at every number of candidates; the LLM's fewer requests are spread over the whole."""
        if cache == "warm":
            self._warm_up()
        llm_requests = min(llm_requests, requests)
        spread = {i * requests // llm_requests for i in range(llm_requests)}
        for place, (user, items) in enumerate(self._requests(requests)):
            for count in self._shuffled(self.counts):
                for arm in self._shuffled(self._arms()):
                    if arm is not self.asked or (count in self.llm_counts and place in spread):
                        self._time(arm, cache, user, items[:count], place)
                        on_done()

    def _time(self, arm: Arm, cache: str, user: str, items: Sequence[str], place: int) -> None:
        try:
            seconds = self._cold(arm, user, items) if cache == "cold" else arm.rank(user, items)
        except NightshiftError as error:
            if arm is not self.asked:
                raise
            self.why_not = str(error).splitlines()[0]
            return
        self._timings.append((arm.model, arm.arm, cache, len(items), place, 1000 * seconds))

    def _cold(self, arm: Arm, user: str, items: Sequence[str]) -> float:
        arm.close()
        started = time.perf_counter()
        arm.start()
        arm.rank(user, items)
        seconds = time.perf_counter() - started
        arm.close()
        return seconds

    def _warm_up(self) -> None:
        for arm in self._arms():
            try:
                arm.start()
                for user, items in self._requests(WARM_UP if arm is not self.asked else 2):
                    arm.rank(user, items[: self.llm_counts[-1] if arm is self.asked else self.counts[-1]])
            except NightshiftError as error:
                if arm is not self.asked:
                    raise
                self.why_not = str(error).splitlines()[0]

    def _requests(self, n: int) -> Iterator[tuple[str, list[str]]]:
        """n users in random order, each with as many random items as the largest request ranks."""
        users, items = self.dataset.users["user_id"].to_list(), self.dataset.items["item_id"].to_list()
        for user in self._random.choice(len(users), size=n, replace=n > len(users)):
            chosen = self._random.choice(len(items), size=self.counts[-1], replace=False)
            yield users[int(user)], [items[int(item)] for item in chosen]

    def _shuffled(self, things: Sequence[Any]) -> list[Any]:
        return [things[int(place)] for place in self._random.permutation(len(things))]

    def _loaded(self) -> list[str]:
        return sorted(set().union(*(arm.loaded for arm in self.served)))

    def _made(self) -> dict[str, str]:
        """How the page is headed, and how it was made."""
        data, section = self.dataset, self.section
        said = f"{section.requests:,} warm requests and {section.cold_starts} cold starts"
        llm = f"{section.llm_requests:,} and {section.llm_cold_starts}; one prompt a candidate, one token of answer"
        read = f", {self.asked.readable:,} of {self.asked.answers:,} answers were yes or no" if self.asked else ""
        return {
            "title": f"Request times on {data.name}",
            "lead": f"How long does a user wait for a ranking? {len(data.users):,} users, {len(data.items):,} items.",
            "Dataset": f"{data.name}, {files.version(self.root / 'dataset').content_hash[:12]}",
            "Runs": "; ".join(self.runs),
            "Each model, arm and number of candidates": said,
            "The LLM": f"{llm}{read}" if self.asked else self.why_not,
            "LLM libraries in the processes that served models": ", ".join(self._loaded()) or "none",
            "Cold": "from the start of a fresh process, everything loaded, to its first answer",
            "Warm": "ranking alone, inside a process that has answered before; one thread for models",
            "Order": f"users, candidates and the arms' turns drawn with seed {section.seed}",
            "Machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
            f"torch {importlib.metadata.version('torch')}",
            "nightshift": importlib.metadata.version("nightshift"),
        }


def language_models(config: RunConfig) -> list[str]:
    """Tables of [engines] behind which a language model answers."""
    return [name for name, engine in config.engines.items() if load(llm_features.engines, engine.kind).Engine.is_model]


def latency(config: RunConfig) -> dict[str, Any]:
    """Time the requests of a configuration; every call measures anew."""
    return Study(config).run()
