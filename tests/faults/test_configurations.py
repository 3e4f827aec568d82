"""Bad runs, made by spoiling every value of good ones: refused with a sentence, or harmless; never a traceback."""

import tomllib
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storage.errors import ConfigError
from storage.features import folder
from tests.faults.commands import asked
from tests.flows.test_night import TINY

CONFIGS = Path(__file__).resolve().parents[2] / "deploy" / "configs"
WRONG = (
    *("-1", "0", '"nonsense"', "[]", "{}", "true", "1e300", "nan", "-inf", '""', '"\\u0000"', "[[1]]", "1979-05-27"),
    *('"../x"', "9999999999999999999999", '["a", 1]', "{ a = { b = 1 } }"),
)
MORE = (
    *("[split]\nkind = 'global_time'", "[labels]\nknown_at = 3", "[engines]\nrule = 1", "[store]", "= 3", "", "\0"),
    *("[[dataset]]", "[schedule]\ntimezone = 'Mars'", "[compare]\narms = ['all']", "\ufeff[store]", "[a]\n[a]"),
    *("[features.x]\nprompt = 'p'\nengine = 'none'", "store = 3\n[store]", "[store.root.more]\na = 1", "x = '''"),
    *('[store]\nroot = "a\\u0000b"', '["a\\u0000b"]\nc = 1', '[[a]]\nb = ["\\u0000"]'),
)


def leaves(value: dict[str, Any], path: str = "") -> Iterator[str]:
    for name, one in value.items():
        yield f"{path}{name}"
        if isinstance(one, dict):
            yield from leaves(one, f"{path}{name}.")


def test_every_spoilt_value_is_refused_or_harmless(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], count: Callable[[int, int], int]
) -> None:
    """Of a small run by `plan`, which reads the data, opens the engine and renders every prompt; of the shipped runs,
    whose data may not be there, by a question to a catalog that does not exist."""
    good = {"tiny.toml": TINY.format(root=tmp_path / "store", users=3)}
    good |= {path.name: path.read_text() for path in CONFIGS.glob("*.toml")}
    spoilt = []
    for name, text in good.items():
        (tmp_path / name).write_text(text)
        keys = list(leaves(tomllib.loads(text)))
        spoilt += [(name, key, f"{key}={value}") for key in keys for value in WRONG]
        spoilt += [(name, key, override) for key in keys for override in (f"{key}.unheard_of=1", f"unheard.{key}=1")]
    unspoilt = [(name, "good", f"store.root='{tmp_path}/store'") for name in good]
    chosen = np.random.default_rng(3).permutation(len(spoilt))[: count(400, len(spoilt))]
    said, wrong = Counter(), {}
    for name, key, override in (*unspoilt, *(spoilt[place] for place in chosen)):
        root = ["--set", f"store.root={tmp_path / 'store'}"] if not key.startswith("store") else []
        try:
            command = ("plan",) if name == "tiny.toml" else ("sql", "SELECT 1")
            ended, told = asked(capsys, *command, "-c", str(tmp_path / name), *root, "--set", override)
        except Exception as error:  # all that are wrong are told together
            ended, told = error, "".join(traceback.format_exception(error)[-2:])
        if ended == 0 or (name != "tiny.toml" and "catalog.duckdb does not exist yet" in str(ended)):
            said["harmless"] += 1
        elif isinstance(ended, str) and key != "good":
            said["refused"] += 1
            words = {key.split(".")[-1], key.split(".")[0], override.split("=")[0].split(".")[-1]}
            if not ended.startswith("nightshift: ") or "Traceback" in told or not any(word in ended for word in words):
                wrong[name, override] = ended + told
        else:
            wrong[name, override] = f"{ended}: {told}"
    for text in MORE:
        (tmp_path / "bad.toml").write_text(text)
        ended, _ = asked(capsys, "plan", "-c", str(tmp_path / "bad.toml"))
        said["refused"] += 1
        if not str(ended).startswith(f"nightshift: {tmp_path / 'bad.toml'} "):
            wrong[text] = str(ended)
    assert wrong == {}
    print(dict(said))
    assert said["refused"] >= 100
    assert {path.name for path in tmp_path.iterdir()} == {*good, "bad.toml"}, "a plan wrote something"


@pytest.mark.parametrize(
    "name", ["../../evil", "/etc/evil", "a/b", "..", ".", ".hidden", "", "a\0b", "a\nb", "é", "x" * 101, "a b", "~root"]
)
def test_a_name_leads_nowhere_else(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot name anything stored"):
        folder(tmp_path, name)
