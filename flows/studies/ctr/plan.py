"""What has to be fitted for a study, and what is there already?

With trials, the first seed's part decides for the others which trial they take, so these are ready only after it.
"""

import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ctr_models.train import RECIPE
from flows.digests import digest
from flows.studies.ctr.config import CONFIGURED, CTRStudyConfig
from flows.studies.ctr.rows import count
from flows.studies.ctr.settings import Settings, model_names, settings
from flows.studies.ctr.work import Fit, Group, Judging
from flows.studies.parts import stored
from storage import files
from storage.snapshot import Snapshot

if TYPE_CHECKING:
    from flows.config import RunConfig

Place = tuple[str, str, float, int]
"""(model, arm, fraction, seed)"""
VALIDATING = 0.25
"""What it takes to score a validation row, beside learning from a row: no backward pass, and larger batches."""


class Plan:
    """Every fit of a study by its place, and the parts that are stored; filled as parts are kept."""

    def __init__(self, run: "RunConfig", name: str, study: CTRStudyConfig, taken: Snapshot) -> None:
        self.run, self.name, self.study = run, name, study
        self.models, self.arms = model_names(run, study), study.all_arms()
        self.dataset = taken.dataset.name
        self.rows = dict(taken.samples.group_by("split").len().iter_rows())
        self.lineage = {key: value for key, value in taken.lineage.items() if key != "features"}
        made_from: Any = taken.lineage["features"]
        self.features: Mapping[str, str] = {feature: said["content_hash"] for feature, said in made_from.items()}
        self.fits: dict[Place, Fit] = {}
        self.parts: dict[Place, files.Version] = {}
        self._given: set[Place] = set()
        for model in self.models:
            for arm in self.arms:
                for fraction in study.fractions:
                    self._enter(model, arm, fraction)

    def missing(self) -> list[Fit]:
        """Fits that no part holds."""
        return [fit for place, fit in self.fits.items() if place not in self.parts]

    def ready(self) -> list[Group]:
        """The fits that can be made now and were not given before, in groups, those that take longest first."""
        groups = []
        for arm in self.arms:
            for fraction in self.study.fractions:
                for seed in self.study.seeds:
                    places = [(model, arm, fraction, seed) for model in self.models]
                    if all(self.fits[place].key for place in places):
                        due = [place for place in places if place not in self.parts and place not in self._given]
                        self._given.update(due)
                        groups += [Group(self.arms[arm], tuple(self.fits[place] for place in due))] if due else []
        return sorted(groups, key=lambda group: group.looks, reverse=True)

    def keep(self, fit: Fit, part: files.Version) -> list[Group | Judging]:
        """Remember a part that was published; what can be done now that it is there."""
        before = set(self.parts)
        self.parts[fit.model, fit.arm, fit.fraction, fit.seed] = part
        self._enter(fit.model, fit.arm, fit.fraction)
        return [*self.ready(), *(self.judging(self.parts[place]) for place in self.parts if place not in before)]

    def judging(self, part: files.Version) -> Judging:
        """The job of judging a part. No claim speaks of the bins of controls."""
        return Judging(part, bins=self.arms[part.meta["arm"]].vectors == "stored")

    def part_name(self, fit: Fit) -> str:
        """What the part of a fit is called."""
        return f"{self.name}.{fit.model}.{fit.arm}.{fit.fraction}.{fit.seed}"

    def key(self) -> str:
        """Hash of everything that the tables are made of, once every part is there."""
        return digest([self.study.model_dump(mode="json"), [[*place, fit.key] for place, fit in self.fits.items()]])

    def protocol(self) -> dict[str, Any]:
        """How the study is made, for those who read its tables; `warnings` are what a reader must know first."""
        shares = {name: trial.fractions for name, trial in self.study.trials.items()}
        only = {name: " at " + ", ".join(f"{100 * f:g} %" for f in at) if at else "" for name, at in shares.items()}
        trials = "; ".join([CONFIGURED, *(name + where for name, where in only.items())])
        tuning = "untuned: every model has the values as configured, in every arm and at every fraction"
        if self.study.trials:
            first = self.study.seeds[0]
            tuning = f"tuned: for each model and arm on seed {first} by validation AUC, of these trials: {trials}"
        alone = [arm for arm in self.arms if not self.study.is_controlled(arm)]
        uncontrolled = [f"uncontrolled: {arm} has not both a permuted and a random control beside it" for arm in alone]
        read = {name: self.features.get(name) for name in sorted(self.study.feature_sets())}
        return {
            "split_rows": self.rows,
            "parts": len(self.fits),
            "lineage": {**self.lineage, "features": read},
            "study": self.study.model_dump(mode="json"),
            "tuning": tuning,
            "warnings": [*([] if self.study.trials else [tuning]), *uncontrolled],
        }

    def heading(self) -> dict[str, Any]:
        """How the study's page is headed, and what it says of how the study was made."""
        study, said = self.study, self.protocol()
        shares, seeds = ", ".join(f"{100 * f:g} %" for f in study.fractions), ", ".join(map(str, study.seeds))
        what = {
            "sample_efficiency": "How many labelled rows does stored text save",
            "ablation": "Which stored text is worth most",
        }
        return {
            "title": f"{self.name.replace('_', ' ').capitalize()} on {self.dataset}",
            "lead": f"{what[self.name]}? {', '.join(self.models)}; {len(self.arms)} arms; {shares} of"
            f" {self.rows['train']:,} training rows; seeds {seeds}; {self.rows['test']:,} test rows, judged once.",
            "warnings": said["warnings"],
            "Dataset": f"{self.dataset}, {str(self.lineage['dataset'])[:12]}",
            "Labels": json.dumps(self.run.labels.model_dump(mode="json")),
            "Split": json.dumps(self.run.split.model_dump(mode="json")),
            "Rows": ", ".join(f"{self.rows.get(part, 0):,} {part}" for part in ("train", "validation", "test")),
            "Feature sets": ", ".join(f"{name} {str(at)[:12]}" for name, at in said["lineage"]["features"].items()),
            "Subsets": "one permutation of the training rows for each seed: a fraction is part of every larger one",
            "Tuning": said["tuning"],
            "Intervals": f"95 %, {study.resamples:,} resamples of users and seeds, in pairs",
            "Margin": f"{study.margin:g} AUC counts as nothing",
            "nightshift": importlib.metadata.version("nightshift"),
        }

    def _enter(self, model: str, arm: str, fraction: float) -> None:
        """Enter the fits of all seeds, as far as it is known which trial they take."""
        first = (model, arm, fraction, self.study.seeds[0])
        if first not in self.fits:
            self._place(first, settings(self.run, self.study, model, arm, fraction=fraction, seed=first[3]))
        for seed in self.study.seeds[1:]:
            place = (model, arm, fraction, seed)
            tried = settings(self.run, self.study, model, arm, fraction=fraction, seed=seed)
            if len(tried) == 1:
                chosen = tried[0].trial
            else:
                chosen = self.parts[first].meta["trial"] if first in self.parts else ""
            if chosen:
                self._place(place, [one for one in tried if one.trial == chosen])
            else:
                self.fits[place] = replace(self._fit(place, tried[:1]), key="")

    def _place(self, place: Place, tried: list[Settings]) -> None:
        fit = self.fits[place] = self._fit(place, tried)
        if part := stored(self.run.store.root, self.part_name(fit), fit.key):
            self.parts[place] = part

    def _fit(self, place: Place, tried: list[Settings]) -> Fit:
        model, name, fraction, seed = place
        arm = self.arms[name]
        read = [[feature, self.features.get(feature)] for feature in arm.features]
        made_of = [RECIPE, self.lineage, read, arm.vectors, fraction, seed, [one.said() for one in tried]]
        looks = self._looks(count(self.rows["train"], fraction)) * len(tried)
        return Fit(model, name, fraction, seed, tuple(tried), digest(made_of), looks)

    def _looks(self, train_rows: int) -> int:
        """What an epoch costs, in rows that are learned from."""
        return round(train_rows + VALIDATING * self.rows["validation"])
