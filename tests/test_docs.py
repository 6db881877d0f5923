"""README.md and docs/: links, make targets, paths, modules and parameters that they name exist. No
line of the prose, the pipeline, the pages, their styles and scripts is longer than 100 columns."""

import re
import subprocess
import unicodedata
from pathlib import Path

import pytest

from potstill.core import lockfile
from tests.conftest import ROOT

COLUMNS = 100
GUIDES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PARAMS = lockfile.read_yaml(ROOT / "params.yaml")
TARGETS = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8")))
SUFFIXES = ("json", "jsonl", "md", "py", "yaml")  # `expand.md` is no parameter


def tracked() -> list[str]:
    """The files that git knows, or would add, as paths from the root."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    return sorted(name for name in listed.split("\0") if name and (ROOT / name).is_file())


def measured(name: str) -> bool:
    """Whether a file's lines have COLUMNS at most: not those of a prompt, which a model reads, nor
    of vega.js, which is made elsewhere."""
    path = Path(name)
    if path.suffix == ".md":
        return path.parent.name != "prompts"
    pages = name.startswith("potstill/") and path.suffix in (".css", ".html", ".js")
    return (pages and path.name != "vega.js") or path.name in (
        "dvc.yaml",
        "params.yaml",
        "Makefile",
    )


def columns(line: str) -> int:
    """The width of a line on a terminal, where a Chinese character takes two columns."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in line)


def code(text: str) -> list[str]:
    """What stands in backticks, and each line of a code block."""
    blocks = re.findall(r"(?ms)^```\w*\n(.*?)^```$", text)
    rest = re.sub(r"(?ms)^```\w*\n.*?^```$", "", text)
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", rest)]
    return spans + [line for block in blocks for line in block.splitlines()]


def anchors(path: Path) -> set[str]:
    """The anchors of a Markdown file's headings, as GitHub makes them."""
    heads = re.findall(r"(?m)^#+ (.*)$", path.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
class TestGuide:
    def test_every_link_leads_somewhere(self, guide: Path) -> None:
        text = guide.read_text(encoding="utf-8")
        links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"(?m)^\[[^\]]+\]: (\S+)", text)
        for link in links:
            path, _, anchor = link.partition("#")
            if re.match(r"[a-z]+:", link):
                continue
            target = (guide.parent / path).resolve() if path else guide
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link
            assert target.is_relative_to(ROOT), link

    def test_every_make_target_is_in_the_makefile(self, guide: Path) -> None:
        for span in code(guide.read_text(encoding="utf-8")):
            for name in re.findall(r"\bmake ([a-z][a-z-]*)", span):
                assert name in TARGETS, span

    def test_every_path_of_the_code_exists(self, guide: Path) -> None:
        folders = r"(?:potstill|stages|tests|bench|schemas|base)"
        for span in code(guide.read_text(encoding="utf-8")):
            for path in re.findall(rf"(?<![\w./-]){folders}/[\w./-]*", span):
                assert (ROOT / path.rstrip(".")).exists(), span

    def test_every_module_that_is_run_exists(self, guide: Path) -> None:
        for span in code(guide.read_text(encoding="utf-8")):
            for module in re.findall(
                r"python -m ((?:potstill|stages|bench|base|tasks|data)[\w.]*)", span
            ):
                path = ROOT / module.replace(".", "/")
                assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), span

    def test_every_parameter_exists(self, guide: Path) -> None:
        sections = {name for name, value in PARAMS.items() if isinstance(value, dict)}
        name = rf"(?<![\w./-])({'|'.join(sections)})\.([a-z_]+)\b(?![./])"
        for span in code(guide.read_text(encoding="utf-8")):
            for section, key in re.findall(name, span):
                assert key in SUFFIXES or key in PARAMS[section], span


def test_no_line_is_too_long() -> None:
    long: dict[str, list[int]] = {}
    for name in filter(measured, tracked()):
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        numbers = [number for number, line in enumerate(lines, 1) if columns(line) > COLUMNS]
        long |= {name: numbers} if numbers else {}
    assert not long


def test_the_file_for_clouds_is_one_that_skypilot_reads() -> None:
    """By the names of its reference (SkyPilot YAML); it is no part of the environment."""
    found = lockfile.read_yaml(ROOT / "docs/sky.yaml")
    assert list(found) == ["name", "workdir", "num_nodes", "resources", "envs", "setup", "run"]
    assert found["workdir"] == "."
    assert found["num_nodes"] == 1
    assert set(found["resources"]) == {"accelerators", "disk_size"}
    assert re.fullmatch(r"[A-Z0-9]+:\d+", found["resources"]["accelerators"])
    assert set(found["envs"]) == {"TASK"}
    for script in (found["setup"], found["run"]):
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
        assert set(re.findall(r"make ([a-z-]+)", script)) <= TARGETS
        used = set(re.findall(r"\$\{?(\w+)", script)) - {"TASK"}
        assert used <= {"SKYPILOT_NUM_GPUS_PER_NODE"}
