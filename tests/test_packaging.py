"""What does a fresh machine get? The constraints, the installer's decisions, the package list, the images."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from deploy import install

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WANTED = [
    *PROJECT["project"]["dependencies"],
    *(requirement for extra in PROJECT["project"]["optional-dependencies"].values() for requirement in extra),
]


@pytest.fixture(scope="module")
def pins() -> dict[str, str]:
    lines = (ROOT / "deploy" / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(pair) == 2 for pair in pairs), "every line is one exact version"
    names = [canonicalize_name(name) for name, _ in pairs]
    assert len(set(names)) == len(names), "a library has one version"
    return dict(zip(names, (version for _, version in pairs), strict=True))


def test_constraints_are_versions_and_nothing_of_a_machine(pins: dict[str, str]) -> None:
    for name, version in pins.items():
        assert Version(version).local is None, f"{name}: a local build is not to be had everywhere"


@pytest.mark.parametrize("requirement", sorted(set(WANTED)))
def test_what_we_need_is_pinned_within_what_we_allow(pins: dict[str, str], requirement: str) -> None:
    wanted = Requirement(requirement)
    assert wanted.specifier.contains(pins[canonicalize_name(wanted.name)])


def test_every_package_is_listed() -> None:
    rooms = ("storage", "llm_features", "ctr_models", "flows")
    found = {path.parent.relative_to(ROOT) for room in rooms for path in (ROOT / room).rglob("__init__.py")}
    assert sorted(PROJECT["tool"]["setuptools"]["packages"]) == sorted(".".join(path.parts) for path in found)


def test_every_data_file_is_packaged() -> None:
    data = PROJECT["tool"]["setuptools"]["package-data"]
    packaged = {
        path for name, globs in data.items() for glob in globs for path in ROOT.joinpath(*name.split(".")).glob(glob)
    }
    rooms = ("storage", "llm_features", "ctr_models", "flows")
    there = {path for room in rooms for path in (ROOT / room).rglob("*") if path.is_file()}
    assert {path for path in there if path.suffix not in (".py", ".pyc")} == packaged


FAKE_PIP = """
import pathlib, sys
log = pathlib.Path({log!r})
log.write_text((log.read_text() if log.exists() else "") + " ".join(sys.argv[1:]) + "\\n")
sys.exit({local_has_it} is False and "--index-url" not in sys.argv)
"""


@pytest.mark.parametrize("local_has_it", [True, False])
def test_the_cpu_build_of_torch_comes_from_where_it_is(
    tmp_path: Path, pins: dict[str, str], *, local_has_it: bool
) -> None:
    log = tmp_path / "calls"
    (tmp_path / "pip.py").write_text(FAKE_PIP.format(log=str(log), local_has_it=local_has_it))
    install.install_cpu_torch([sys.executable, str(tmp_path / "pip.py")])
    wanted = f"install -qq --no-deps torch=={pins['torch']}+cpu"
    elsewhere = f"{wanted} --index-url https://download.pytorch.org/whl/cpu"
    assert log.read_text().splitlines() == ([wanted] if local_has_it else [wanted, elsewhere])


def run_main(monkeypatch: pytest.MonkeyPatch, venv: Path, *, extras: str = "cpu") -> None:
    monkeypatch.setattr(sys, "argv", ["install.py", "--extras", extras, "--venv", str(venv)])
    install.main()


@pytest.fixture
def installs(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The calls of `install`, which does nothing; environments are empty folders."""
    calls: list[list[str]] = []
    monkeypatch.setattr(install, "install", lambda python, extras: calls.append(extras))
    monkeypatch.setattr(install, "make_venv", _make_nothing)
    return calls


def _make_nothing(venv: Path, *, start_over: bool) -> None:
    venv.mkdir(exist_ok=True)
    (venv / "over").write_text(str(start_over))


def test_nothing_is_installed_twice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, installs: list) -> None:
    for extras in ("cpu,dev", "dev,cpu", "cpu", "cpu"):
        run_main(monkeypatch, tmp_path / "venv", extras=extras)
    assert installs == [["cpu", "dev"], ["cpu"]]


def test_a_killed_installation_starts_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, installs: list) -> None:
    def killed(python: Path, extras: list[str]) -> None:
        raise KeyboardInterrupt

    venv = tmp_path / "venv"
    with monkeypatch.context() as inner:
        inner.setattr(install, "install", killed)
        with pytest.raises(KeyboardInterrupt):
            run_main(monkeypatch, venv)
    run_main(monkeypatch, venv)
    assert (installs, (venv / "over").read_text()) == ([["cpu"]], "True")
    run_main(monkeypatch, venv, extras="dev")
    assert (installs, (venv / "over").read_text()) == ([["cpu"], ["dev"]], "False")


def test_a_failed_installation_is_tried_again_on_top(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, installs: list
) -> None:
    def failed(python: Path, extras: list[str]) -> None:
        raise subprocess.CalledProcessError(1, ["pip", "install"])

    venv = tmp_path / "venv"
    with monkeypatch.context() as inner:
        inner.setattr(install, "install", failed)
        with pytest.raises(SystemExit, match="pip install failed"):
            run_main(monkeypatch, venv)
    run_main(monkeypatch, venv)
    assert (installs, (venv / "over").read_text()) == ([["cpu"]], "False")


def test_another_python_gets_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, installs: list) -> None:
    monkeypatch.setattr(install, "OLDEST", (3, 99))
    with pytest.raises(SystemExit, match=r"nightshift needs Python 3\.99"):
        run_main(monkeypatch, tmp_path / "venv")
    assert installs == []
    assert PROJECT["project"]["requires-python"] == ">=3.11,<3.14"


def test_ci_calls_make() -> None:
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == "exec make --keep-going check"
    planned = subprocess.run(["make", "-n", "check"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for tool in (
        "install.py",
        "ruff check",
        "ruff format --check",
        "pyright",
        "hadolint",
        "check-jsonschema",
        "pytest",
    ):
        assert tool in planned


def test_images_and_services_name_versions() -> None:
    images = [path.read_text() for path in sorted((ROOT / "deploy" / "docker").glob("*.Dockerfile"))]
    assert len(images) == 3
    for text in images:
        assert re.search(r"^FROM \S+:\d+\.\d+\.\d+\S*$", text, flags=re.MULTILINE)
        assert re.search(r"^USER 10001$", text, flags=re.MULTILINE)
        assert re.search(r"^HEALTHCHECK ", text, flags=re.MULTILINE)
        copied = re.findall(r"deploy/\S+\.py", text)
        assert copied
        assert all(f"!{path}" in (ROOT / ".dockerignore").read_text().splitlines() for path in copied)
    services = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]
    for name, service in services.items():
        assert (
            "build" in service or service["image"].startswith("nightshift-") or re.search(r":\d", service["image"])
        ), name
        if "build" in service:
            assert (ROOT / service["build"]["dockerfile"]).is_file()
