"""Bad runs, made by spoiling every value of a good one: refused with a sentence, or harmless; never a traceback."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.config import load_config
from storage.errors import ConfigError
from storage.features import folder
from tests.flows.test_night import TINY, tiny

WRONG = (
    "-1",
    "0",
    '"nonsense"',
    "[]",
    "{}",
    "true",
    "1e300",
    "nan",
    '""',
    '"\\u0000"',
    "[[1]]",
    "1979-05-27",
    '"../x"',
)
MORE = (
    *(
        "[split]\nkind = 'global_time'",
        "[labels]\nknown_at = 3",
        "[engines]\nrule = 1",
        "[store]",
        "= 3",
        "[[dataset]]",
    ),
    *("[schedule]\ntimezone = 'Mars'", "[compare]\narms = ['all']", "[features.x]\nprompt = 'p'\nengine = 'none'"),
)


def leaves(value: dict[str, Any], path: str = "") -> Iterator[str]:
    for name, one in value.items():
        yield f"{path}{name}"
        if isinstance(one, dict):
            yield from leaves(one, f"{path}{name}.")


def test_every_spoilt_value_is_refused_or_harmless(tmp_path: Path) -> None:
    path = tiny(tmp_path)[0]
    keys = list(leaves(tomllib.loads(TINY.format(root=tmp_path, users=3))))
    spoilt = [f"{key}={value}" for key in keys for value in WRONG]
    spoilt += [f"{key}.unheard_of=1" for key in keys] + [f"unheard_of.{key}=1" for key in keys]
    refused = 0
    for override in spoilt:
        try:
            load_config(path, [override])
        except ConfigError as error:
            refused += 1
            said = str(error)
            if len(said) < 20:
                pytest.fail(f"{override}: {said}")
    for text in MORE:
        (tmp_path / "bad.toml").write_text(text)
        with pytest.raises(ConfigError, match=r"bad\.toml"):
            load_config(tmp_path / "bad.toml")
    assert refused + len(MORE) >= 100


@pytest.mark.parametrize(
    "name", ["../../evil", "/etc/evil", "a/b", "..", ".", ".hidden", "", "a\0b", "a\nb", "é", "x" * 101, "a b", "~root"]
)
def test_a_name_leads_nowhere_else(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot name anything stored"):
        folder(tmp_path, name)
