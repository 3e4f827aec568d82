"""What should this user see next? Candidates near the liked items, ranked by a trained model; no LLM anywhere.

Everything that does not depend on the request is computed when the recommender is made: items are embedded, stored
texts adapted, candidates indexed.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch

from ctr_models.samples import compare, encode_tables, encode_texts, gather, rating_above
from ctr_models.text import unit
from ctr_models.train import Run
from storage.features import load_features
from storage.ingest import load_dataset
from storage.schema import RECOMMENDATIONS
from storage.snapshot import Snapshot

QUERY_ITEMS = 50


class Recommender:
    """A trained run over the newest dataset and feature sets of a data root.

    Items and users that the run never saw are scored all the same: their ids are unknown to it, their attributes,
    histories and texts are not.
    """

    def __init__(self, run: Run, root: Path, *, nearest: int = 200, popular: int = 100) -> None:
        """nearest, popular: candidates by item vector and by popularity.

        Raises StoreError where the root has no dataset, or lacks a feature set (of the encoder) that the run needs.
        """
        dataset = load_dataset(root)
        features = {each.name: load_features(root, each.name) for each in run.statistics}
        snapshot = Snapshot(dataset, pl.DataFrame(), features, run.lineage)
        self._model, self._samples, self._nearest = run.model.eval(), run.config.samples, nearest
        self._tables = encode_tables(dataset, run.vocabulary, rating_above=rating_above(run.lineage))
        self._texts = encode_texts(snapshot, self._tables, run.statistics)
        self._vectors = {text.name: text.vectors for text in self._texts}
        with torch.inference_mode():
            self._prepared = self._model.prepare(self._tables, self._vectors)
        items = self._tables.item.numpy()[:-1]
        liked = items[self._tables.liked.numpy()[:-1]]
        n_items = len(self._tables.items.ids) + 1
        likes, seen = np.bincount(liked, minlength=n_items), np.bincount(items, minlength=n_items)
        self._by_popularity = np.lexsort((np.arange(n_items), -seen, -likes))
        self._by_popularity = self._by_popularity[self._by_popularity > 0]
        self._popularity = (likes / max(1, len(self._tables.users.ids))).astype(np.float32)
        self._popular = popular
        self._item_vectors = self._retrieval_vectors()
        self._indexed = np.flatnonzero(np.any(self._item_vectors != 0, axis=1))
        self._index = _flat_index(self._item_vectors[self._indexed])

    def recommend(self, user_id: str, k: int = 10) -> pl.DataFrame:
        """The best `k` items the user has not interacted with: `user_id, item_id, score, rank` (from 1).

        score: the model's probability of a like; for users without a history the share of all users who liked the
        item. Fewer rows where fewer unseen items are left.
        """
        user = int(self._tables.users.rows(pl.Series([user_id]))[0])
        start, end = (int(n) for n in self._tables.start[user : user + 2])
        if user and end > start:
            items, scores = self._ranked(user, start, end, k)
        else:
            items = self._by_popularity[:k]
            scores = self._popularity[items]
        return pl.DataFrame(
            {
                "user_id": [user_id] * len(items),
                "item_id": self._tables.items.ids.gather(items - 1),
                "score": scores,
                "rank": np.arange(1, len(items) + 1),
            },
            schema=RECOMMENDATIONS,
        )

    def recommend_many(self, user_ids: Sequence[str], k: int = 10) -> pl.DataFrame:
        """The rows of `recommend` for each user, in the order given."""
        return pl.concat([pl.DataFrame(schema=RECOMMENDATIONS), *(self.recommend(user, k) for user in user_ids)])

    def _ranked(self, user: int, start: int, end: int, k: int) -> tuple[np.ndarray, np.ndarray]:
        candidates = self._candidates(start, end, k)
        if not len(candidates):
            return candidates, np.zeros(0, np.float32)
        scores = self._score(user, candidates, end - start)
        best = np.argsort(-scores, kind="stable")[:k]
        return candidates[best], scores[best]

    def _candidates(self, start: int, end: int, k: int) -> np.ndarray:
        """Unseen item rows, ascending: nearest to the mean of the newest liked items, and the most popular."""
        history = self._tables.item.numpy()[start:end]
        unseen = np.ones(len(self._popularity), bool)
        unseen[history] = False
        unseen[0] = False
        chosen = self._by_popularity[unseen[self._by_popularity]][: max(self._popular, k)]
        liked = history[self._tables.liked.numpy()[start:end]][-QUERY_ITEMS:]
        query = self._item_vectors[liked].mean(axis=0, keepdims=True) if len(liked) else np.zeros((1, 0))
        if len(self._indexed) and np.any(query):
            many = min(len(self._indexed), self._nearest + end - start)
            found = self._indexed[self._index.search(query.astype(np.float32), many)[1][0]]
            chosen = np.union1d(chosen, found[unseen[found]][: self._nearest])
        return np.sort(chosen)

    def _score(self, user: int, items: np.ndarray, n_before: int) -> np.ndarray:
        """The model's probability of a like for each item row, given all of the user's history."""
        users, before = np.full(len(items), user), np.full(len(items), n_before)
        known = [text.rows[items] if text.entity == "item" else text.rows[users] for text in self._texts]
        rows = np.stack(known, axis=1) if known else np.zeros((len(items), 0), np.int32)
        window = self._samples.similarity_history
        similarity = compare(self._tables, self._texts, users, before, rows, window=window)
        with torch.inference_mode():
            batch = gather(
                self._tables,
                self._texts,
                user=torch.from_numpy(users),
                item=torch.from_numpy(items.astype(np.int32)),
                n_before=torch.from_numpy(before),
                text=torch.from_numpy(rows),
                similarity=torch.from_numpy(similarity),
                max_history=self._samples.max_history,
            )
            return self._model(batch, self._vectors, prepared=self._prepared).sigmoid().numpy()

    def _retrieval_vectors(self) -> np.ndarray:
        """A vector for each item row: its text's where the run reads item texts, else its learned embedding."""
        for text in self._texts:
            if text.entity == "item":
                return text.unit[text.rows]
        return unit(self._prepared.items_VE.numpy())


def _flat_index(vectors: np.ndarray):
    """Exact inner-product search over the rows of a matrix."""
    import faiss

    index = faiss.IndexFlatIP(vectors.shape[1])
    if len(vectors):
        index.add(np.ascontiguousarray(vectors, np.float32))
    return index
