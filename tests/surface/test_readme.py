"""What the documentation says can be done and found: commands, files, links, layers, the example of the README."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from peftide.cli import COMMANDS, main, parse
from peftide.config import TrainSettings
from peftide.data.datasets import read_dataset

ROOT = Path(__file__).parents[2]
README, GUIDE, ARCHITECTURE = (ROOT / name for name in ("README.md", "docs/guide.md", "ARCHITECTURE.md"))
PAGES = (README, GUIDE, ARCHITECTURE, ROOT / "CHANGELOG.md", ROOT / "SECURITY.md")


def blocks(page: Path, language: str | None = None) -> list[str]:
    """The fenced blocks of a page, of any or of one language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return [text for name, text in found if language in (None, name)]


def commands(page: Path) -> list[str]:
    """The lines of a page's blocks that call peftide, without the first word."""
    lines = [line for block in blocks(page) for line in block.splitlines()]
    return [line.removeprefix("peftide ") for line in lines if line.startswith("peftide ")]


def section(page: Path, title: str) -> str:
    """The text from one heading to the next."""
    return page.read_text("utf-8").split(f"## {title}\n")[1].split("\n## ")[0]


def headings(page: Path) -> set[str]:
    """The anchors of a page's headings: lower case, hyphens for spaces, no punctuation."""
    titles = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def make_example_files() -> None:
    """What the README says to paste into a shell, in the working folder."""
    [script] = [block for block in blocks(README, "bash") if block.startswith("cat > ")]
    subprocess.run(["sh", "-e", "-c", script], check=True)


@pytest.mark.parametrize("command", [*commands(README), *commands(GUIDE)])
def test_a_command_of_the_documentation_is_understood_without_a_warning(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    [settings] = blocks(GUIDE, "toml")
    for path in (Path("run.toml"), Path("runs/swept/best.toml")):  # the second is what a command before it writes
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(settings, "utf-8")
    assert parse(command.split())[2] == ()


def test_every_command_of_peftide_is_shown_in_the_readme_or_the_guide() -> None:
    shown = {command.split()[0] for page in (README, GUIDE) for command in commands(page)}
    assert shown | {"demo"} == set(COMMANDS)
    assert "make demo" in README.read_text("utf-8")


def test_the_example_of_the_readme_trains_measures_predicts_and_embeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_example_files()
    assert [main(command.split()) for command in commands(README)] == [0, 0, 0, 0]
    assert {path.name for path in Path("runs/first").iterdir()} == {
        *("adapter", "head.safetensors", "predictions.tsv", "report.html", "run.json", "split.tsv"),
    }
    header, *rows = Path("scores.tsv").read_text("utf-8").splitlines()
    assert header.split("\t") == ["protein_a", "protein_b", "prediction", "probability"]
    assert [row.split("\t")[:2] for row in rows] == [["TIM8", "TOM7"], ["COX9", "TOM6"]]
    for example in blocks(README, "python"):
        exec(example, {})
    assert Path("runs/python/run.json").is_file()


def test_the_example_of_the_readme_shares_no_protein_between_its_splits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_example_files()
    dataset = read_dataset(TrainSettings(data="pairs.csv", sequences="proteins.fasta", out="o"))
    parts = [set(dataset.part(split).members_NK.ravel().tolist()) for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == [4, 4, 4]
    assert len(set.union(*parts)) == 12


def test_every_path_of_the_file_map_exists() -> None:
    paths = re.findall(r"^\| `([^`]+)` \|", section(README, "What is inside"), re.MULTILINE)
    assert len(paths) > 10
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_file_that_the_architecture_names_exists() -> None:
    text = ARCHITECTURE.read_text("utf-8")
    paths = re.findall(r"`((?:src/|tests/|\w+/)*\w+\.py)`", text)
    assert len(paths) > 30
    assert [path for path in paths if not any((base / path).is_file() for base in (ROOT, ROOT / "src/peftide"))] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_or_heading_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8"))
    broken = []
    for target in targets:
        path, _, anchor = target.partition("#")
        if path.startswith("https://"):
            continue
        linked = page.parent / path if path else page
        if not linked.is_file() or (anchor and anchor not in headings(linked)):
            broken.append(target)
    assert broken == []


def test_the_layers_of_the_architecture_are_those_that_are_checked() -> None:
    [block] = [block for block in blocks(ARCHITECTURE) if block.startswith("cli")]
    names = [re.split(r"\s{2,}", line)[0] for line in block.splitlines()]
    layers = [" | ".join(f"peftide.{name}" for name in line.split(" | ")) for line in names]
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    assert [contract["layers"] for contract in contracts if contract["type"] == "layers"] == [layers]
