"""Is everything stored what it was when it was written, and was every joined row known at its time?"""

from flows.config import RunConfig
from flows.learning import snapshot
from flows.progress import progress
from storage.inspect import inspect
from storage.snapshot import point_in_time_violations


def verify(config: RunConfig, *, users: int) -> dict:
    """Read back every file of the data root against what its manifest says, recompute the joined rows of random users.

    Returns the counts and `problems`, one sentence each; changes nothing.
    """
    with progress("reading back") as on_progress:
        n_files, problems = inspect(config.store.root, on_progress=on_progress)
    checked, chosen = 0, 0
    if users and not problems:
        taken = snapshot(config)
        checked, wrong = point_in_time_violations(taken, users=users)
        chosen = min(users, taken.samples["user_id"].n_unique())
        problems += wrong
    return {"files": n_files, "rows_checked": checked, "users": chosen, "problems": problems}
