"""What a study of CTR models would cost: rows times epochs as parts needed them, at the pace of those before."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.studies.ctr.estimate import estimate
from storage import files
from storage.layout import STUDY_PARTS

ROWS = {"train": 1000, "validation": 0}


def fit(arm: str, seed: int, fraction: float, epochs: int = 10, settings: int = 1) -> Any:
    """What a plan says of a fit."""
    values = tuple(SimpleNamespace(train=SimpleNamespace(epochs=epochs)) for _ in range(settings))
    looks = round(ROWS["train"] * fraction) * settings
    return SimpleNamespace(model="deepfm", arm=arm, fraction=fraction, seed=seed, settings=values, looks=looks)


def part(root: Path, of: Any, *, epochs: int, seconds: float) -> files.Version:
    """Store a part: all its trials took so many epochs, and so many seconds."""
    meta = {"model": of.model, "fraction": of.fraction, "looks": of.looks, "epochs": epochs, "seconds": seconds}
    meta["tried"] = {str(place): 0.5 for place in range(len(of.settings))}
    return files.publish(files.named(root / STUDY_PARTS, name(of)), {}, content_hash="any", meta=meta)


def name(of: Any) -> str:
    return f"study.{of.model}.{of.arm}.{of.fraction}.{of.seed}"


def plan(root: Path, fits: list[Any], parts: dict[int, files.Version]) -> Any:
    """parts: by the place of their fit."""
    places = [(of.model, of.arm, of.fraction, of.seed) for of in fits]
    there = {places[number]: found for number, found in parts.items()}
    return SimpleNamespace(
        run=SimpleNamespace(store=SimpleNamespace(root=root)),
        rows=ROWS,
        fits=dict(zip(places, fits, strict=True)),
        parts=there,
        missing=lambda: [of for place, of in zip(places, fits, strict=True) if place not in there],
        part_name=name,
    )


def test_nothing_is_known_of_minutes_before_anything_was_fitted(tmp_path: Path) -> None:
    said = estimate(plan(tmp_path, [fit("base", 0, 1.0), fit("text", 0, 0.5, settings=2)], {}), processes=2)
    assert said == {"fits": 3, "stored": 0, "row_epochs": 20_000, "processes": 2, "minutes": None}


def test_parts_made_of_other_values_tell_the_pace_and_not_the_epochs(tmp_path: Path) -> None:
    fits = [fit("base", 0, 1.0)]
    part(tmp_path, fits[0], epochs=4, seconds=240)  # 60 s an epoch
    assert estimate(plan(tmp_path, fits, {}), processes=2)["minutes"] == pytest.approx(10 * 60 / 60 / 2)


def test_stored_parts_tell_how_many_epochs_their_fraction_needs(tmp_path: Path) -> None:
    fits = [fit("base", 0, 1.0, settings=2), fit("base", 1, 1.0), fit("base", 0, 0.1)]
    stored = {0: part(tmp_path, fits[0], epochs=6, seconds=360)}  # 3 epochs a trial, 60 s each
    minutes = 3 + 10 * 0.1  # the fraction that is not stored: all its epochs, at the pace of the other
    assert estimate(plan(tmp_path, fits, stored), processes=1)["minutes"] == pytest.approx(minutes)


def test_a_fraction_has_a_pace_of_its_own(tmp_path: Path) -> None:
    fits = [fit("base", 0, 1.0), fit("base", 0, 0.1), fit("base", 1, 1.0), fit("base", 1, 0.1)]
    stored = {0: part(tmp_path, fits[0], epochs=10, seconds=600), 1: part(tmp_path, fits[1], epochs=10, seconds=300)}
    assert estimate(plan(tmp_path, fits, stored), processes=1)["minutes"] == pytest.approx(10 + 5)
