"""What should this user see next? Candidates near the liked items, or expected by a sequential model, ranked; no LLM.

Everything that does not depend on the request is computed when the recommender is made: items are embedded, stored
texts adapted, candidates indexed.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import torch

from ctr_models.candidates import CandidateSimilarity
from ctr_models.nearest import flat_index
from ctr_models.samples import gather, rating_above
from ctr_models.sequential.retriever import CANDIDATES, Retriever
from ctr_models.sequential.train import Run as SequentialRun
from ctr_models.tables import encode_tables
from ctr_models.text import text_set, unit
from ctr_models.train import Run, cpu_threads
from storage.features import load_features
from storage.ingest import load_dataset
from storage.schema import RECOMMENDATIONS
from storage.snapshot import Snapshot

QUERY_ITEMS = 50
NO_SIMILARITY = torch.empty(0, 0)
NO_SAMPLES = pl.DataFrame(schema={"item_id": pl.String})


class Recommender:
    """A trained run over the newest dataset and feature sets of a data root.

    Items and users that the run never saw are scored all the same: their ids are unknown to it, their attributes,
    histories and texts are not.
    """

    def __init__(
        self,
        run: Run,
        root: Path,
        *,
        retrieval: SequentialRun | None = None,
        nearest: int = CANDIDATES,
        popular: int = 50,
    ) -> None:
        """nearest, popular: candidates by item vector (or by `retrieval`, where there is one) and by popularity.

        Raises StoreError where the root has no dataset, or lacks a feature set (of the encoder) that a run needs.
        """
        dataset = load_dataset(root)
        features = {each.name: load_features(root, each.name) for each in run.statistics}
        snapshot = Snapshot(dataset, NO_SAMPLES, features, run.lineage)
        self._model, self._samples, self._nearest = run.model.eval(), run.config.samples, nearest
        self._texts = tuple(text_set(snapshot, each) for each in run.statistics)
        columns = [pl.lit(0).alias(f"{each.name}_row") for each in run.statistics]
        self._tables, _ = encode_tables(
            dataset,
            run.vocabulary,
            self._texts,
            rating_above=rating_above(run.lineage),
            samples=NO_SAMPLES.with_columns(columns),
        )
        self._vectors = {text.name: text.vectors for text in self._texts}
        with torch.inference_mode():
            self._prepared = self._model.prepare(self._tables, self._vectors)
        self._similarity = CandidateSimilarity(self._tables, self._texts)
        self._user_rows = {user: row for row, user in enumerate(self._tables.user_ids, start=1)}
        self._item_ids = np.array(["", *self._tables.item_ids], dtype=object)
        self._item_rows = {item: row for row, item in enumerate(self._tables.item_ids, start=1)}
        self._acted = self._tables.item_of[self._tables.item.numpy()[:-1]]
        self._liked, self._start = self._tables.liked.numpy()[:-1], self._tables.start.numpy()
        n_items = len(self._item_ids)
        likes = np.bincount(self._acted[self._liked], minlength=n_items)
        seen = np.bincount(self._acted, minlength=n_items)
        order = np.lexsort((np.arange(n_items), -seen, -likes))
        self._by_popularity = order[order > 0]
        self._popularity = (likes / max(1, len(self._tables.user_ids))).astype(np.float32)
        self._popular = popular
        self._retriever: Retriever | None = None
        if retrieval is not None:
            text = None if retrieval.init is None else load_features(root, retrieval.init.feature_set)
            self._retriever = Retriever(retrieval, dataset.items["item_id"], text)
        else:
            self._item_vectors = self._retrieval_vectors()
            self._indexed = np.flatnonzero(np.any(self._item_vectors != 0, axis=1))
            self._index = flat_index(self._item_vectors[self._indexed])

    def recommend(self, user_id: str, k: int = 10) -> pl.DataFrame:
        """The best `k` items the user has not interacted with: `user_id, item_id, score, rank` (from 1).

        score: the model's probability of a like; for users without a history the share of all users who liked the
        item. Fewer rows where fewer unseen items are left.
        """
        user, start, end = self._history(user_id)
        if end > start:
            candidates = self._candidates(start, end, k)
            return self._rows(user_id, *self._best(user, candidates, end - start, k))
        return self._rows(user_id, self._by_popularity[:k], self._popularity[self._by_popularity[:k]])

    def rank(self, user_id: str, item_ids: Sequence[str]) -> pl.DataFrame:
        """The given items, best first, whether the user knows them or not: the columns and scores of `recommend`.

        Raises ValueError naming an item that the dataset does not have.
        """
        try:
            items = np.array([self._item_rows[item] for item in item_ids], dtype=np.int64)
        except KeyError as error:
            raise ValueError(f"the dataset has no item {error.args[0]!r}") from None
        user, start, end = self._history(user_id)
        if end > start:
            return self._rows(user_id, *self._best(user, items, end - start, len(items)))
        order = np.argsort(-self._popularity[items], kind="stable")
        return self._rows(user_id, items[order], self._popularity[items[order]])

    def recommend_many(self, user_ids: Sequence[str], k: int = 10) -> pl.DataFrame:
        """The rows of `recommend` for each user, in the order given."""
        return pl.concat([pl.DataFrame(schema=RECOMMENDATIONS), *(self.recommend(user, k) for user in user_ids)])

    def _history(self, user_id: str) -> tuple[int, int, int]:
        """(row, first and past-the-last interaction) of a user; both alike where there are none."""
        user = self._user_rows.get(user_id, 0)
        start, end = (int(place) for place in self._start[user : user + 2])
        return user, start, end if user else start

    def _rows(self, user_id: str, items: np.ndarray, scores: np.ndarray) -> pl.DataFrame:
        return pl.DataFrame(
            {
                "user_id": [user_id] * len(items),
                "item_id": self._item_ids[items].tolist(),
                "score": scores,
                "rank": np.arange(1, len(items) + 1, dtype=np.int32),
            },
            schema=RECOMMENDATIONS,
        )

    def _best(self, user: int, items: np.ndarray, n_before: int, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k best of some items and their scores, best first."""
        if not len(items):
            return items, np.zeros(0, np.float32)
        scores = self._score(user, items, n_before)
        best = np.argsort(-scores, kind="stable")[:k]
        return items[best], scores[best]

    def _candidates(self, start: int, end: int, k: int) -> np.ndarray:
        """Unseen items, ascending: the most popular, and those nearest to the newest liked items or expected next."""
        history = self._acted[start:end]
        unseen = np.ones(len(self._popularity), bool)
        unseen[history] = False
        unseen[0] = False
        chosen = self._by_popularity[unseen[self._by_popularity]][: max(self._popular, k)]
        if self._retriever is not None:
            found = self._retriever.candidates(self._item_ids[history].tolist(), self._nearest)
            return np.union1d(chosen, np.array([self._item_rows[item] for item in found], np.int64))
        liked = history[self._liked[start:end]][-QUERY_ITEMS:]
        query = self._item_vectors[liked].mean(axis=0, keepdims=True) if len(liked) else np.zeros((1, 0))
        if len(self._indexed) and np.any(query):
            many = min(len(self._indexed), self._nearest + end - start)
            found = self._indexed[self._index.search(query.astype(np.float32), many)[1][0]]
            chosen = np.union1d(chosen, found[unseen[found]][: self._nearest])
        return np.sort(chosen)

    def _score(self, user: int, items: np.ndarray, n_before: int) -> np.ndarray:
        """The model's probability of a like for each item, given all of the user's history.

        On one thread: a few hundred rows are scored before a second thread has been woken.
        """
        user_text = self._tables.users.text.numpy()[user]
        versions = self._tables.current[items]
        with torch.inference_mode(), cpu_threads(1):
            batch = gather(
                self._tables,
                user=torch.tensor([user]),
                item=torch.from_numpy(versions),
                n_before=torch.tensor([n_before]),
                user_text=torch.from_numpy(user_text[None]),
                similarity=NO_SIMILARITY,
                max_history=self._samples.max_history,
            )
            similarity = self._similarity(user, versions)
            batch = replace(batch, similarity_BS=torch.from_numpy(similarity))
            return self._model(batch, self._vectors, prepared=self._prepared).sigmoid().numpy()

    def _retrieval_vectors(self) -> np.ndarray:
        """A vector for each item: its text's where the run reads item texts, else its learned embedding."""
        for text in self._texts:
            if text.entity == "item":
                return text.unit[text.rows]
        return unit(self._prepared.items_VE.numpy()[self._tables.current])
