"""The project itself: what its files may not say, and that version and pinned requirements are in step."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import plait

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

# Put together from pieces, so that this file does not say them itself.
FORBIDDEN = {
    "a package registry's host": r"pypi\.or[g]|pythonhosted\.or[g]|registry\.npmjs\.or[g]|deb\.debian\.or[g]",
    "a path of one machine": r"(?<![\w.~-])/(?:wor[k]|roo[t]|hom[e]/\w+|User[s]/\w+)/|/tm[p]/v\b",
    "the specification's folder": r"shared/spe[c]",
    "a number of the specification": r"\b[Ss]tatemen[t]s? \d|\bfaults\.m[d]\b",
    "an issue's number": r"\b[Ii]ssu[e]s? #?\d|\b[Pp]ull reques[t] #?\d",
    "talk of the work itself": (
        r"(?i)\bwork(?:ing)?[ -]sessio[n]|\bthis sessio[n] (?:of work|did|added)|\b(?:my|the helper's) brie[f]\b"
    ),
}


def project_files() -> list[Path]:
    """Every file of the project: tracked, or not ignored and about to be."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        timeout=45,
    )
    paths = (ROOT / name for name in listed.stdout.decode().split("\0") if name)
    return sorted(path for path in paths if path.is_file())


def test_the_list_of_files_is_the_project() -> None:
    names = {str(path.relative_to(ROOT)) for path in project_files()}
    assert {"pyproject.toml", "Makefile", "src/plait/errors.py", "tests/test_project.py"} <= names
    assert not [name for name in names if name.startswith(".venv")]


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_names(what: str) -> None:
    pattern = re.compile(FORBIDDEN[what])
    found = []
    for path in project_files():
        text = path.read_bytes().decode("utf-8", "replace")
        found += [
            f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]!r}"
            for match in pattern.finditer(text)
        ]
    assert found == []


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("a package registry's host", "https://py" + "pi.org/simple"),
        ("a path of one machine", "see /wor" + "k/main"),
        ("a path of one machine", "'/hom" + "e/someone/plait'"),
        ("the specification's folder", "../shared/sp" + "ec/design.md"),
        ("a number of the specification", "state" + "ment 12 says"),
        ("a number of the specification", "see faults" + ".md"),
        ("an issue's number", "see iss" + "ue #4"),
        ("talk of the work itself", "in the last work ses" + "sion"),
    ],
)
def test_what_is_forbidden_is_recognised(what: str, text: str) -> None:
    assert re.search(FORBIDDEN[what], text)


@pytest.mark.parametrize("text", ["src/work/x.py", "an SQL statement", "a database session", "https://host/root/x"])
def test_what_is_harmless_is_not(text: str) -> None:
    assert [what for what, pattern in FORBIDDEN.items() if re.search(pattern, text)] == []


def test_version() -> None:
    assert plait.__version__ == version("plait") == PROJECT["version"]


def direct(*sources: str) -> dict[str, Requirement]:
    """The direct dependencies that pyproject.toml or ``.in`` files state, by name."""
    lines: list[str] = []
    for source in sources:
        if source == "pyproject.toml":
            lines += PROJECT["dependencies"]
        else:
            lines += (ROOT / "requirements" / source).read_text("utf-8").splitlines()
    stated = [Requirement(line.split(" #")[0]) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(requirement.name): requirement for requirement in stated}


def pinned(name: str) -> dict[str, tuple[str, int]]:
    """What a pinned file holds: the version and the number of hashes of each package."""
    text = (ROOT / "requirements" / name).read_text("utf-8").replace("\\\n", "")
    lines = [line.split() for line in text.splitlines() if line and not line.startswith((" ", "#"))]
    pins = [(Requirement(line[0]), sum(word.startswith("--hash=sha256:") for word in line[1:])) for line in lines]
    return {
        canonicalize_name(requirement.name): (str(requirement.specifier).removeprefix("=="), hashes)
        for requirement, hashes in pins
    }


@pytest.mark.parametrize(
    ("name", "sources"),
    [
        ("run.txt", ["pyproject.toml", "run.in"]),
        ("dev.txt", ["pyproject.toml", "run.in", "dev.in"]),
        ("mcp-servers.txt", ["mcp-servers.in"]),
        ("tables.txt", ["tables.in"]),
        ("lock.txt", ["lock.in"]),
    ],
)
def test_pinned_requirements_are_in_step(name: str, sources: list[str]) -> None:
    pins = pinned(name)
    wrong = [
        str(requirement)
        for package, requirement in direct(*sources).items()
        if package not in pins or not requirement.specifier.contains(pins[package][0])
    ]
    assert wrong == [], f"run 'make lock': requirements/{name} does not pin these"


def test_every_pin_has_the_hashes_of_its_whole_release() -> None:
    pins = {name: pinned(name) for name in ("run.txt", "dev.txt", "mcp-servers.txt", "tables.txt", "lock.txt")}
    assert [(name, package) for name, held in pins.items() for package, (_, hashes) in held.items() if not hashes] == []
    # A release with compiled parts has a wheel for each Python and machine; one hash means a local wheel was pinned.
    assert min(pins["dev.txt"][package][1] for package in ("aiohttp", "msgspec", "pydantic-core")) > 20


def test_pinned_npm_packages_are_in_step() -> None:
    folder = ROOT / "requirements" / "node"
    stated = json.loads((folder / "package.json").read_text("utf-8"))["dependencies"]
    packages = json.loads((folder / "package-lock.json").read_text("utf-8"))["packages"]
    assert packages.pop("")["dependencies"] == stated, "run 'make lock': package-lock.json was made for others"
    assert {name: packages[f"node_modules/{name}"]["version"] for name in stated} == stated, "versions must be exact"
    assert [name for name, held in packages.items() if not held["integrity"].startswith("sha512-")] == []
    assert [name for name, held in packages.items() if "resolved" in held] == []


def test_demo_and_tests_run_on_the_same_versions() -> None:
    dev = pinned("dev.txt")
    assert {package: pin for package, pin in pinned("run.txt").items() if dev.get(package) != pin} == {}
