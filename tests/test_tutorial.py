"""docs/tutorial.md: every command in it, in its order, as a reader types it, in a clone. Only the endpoint is a fake one."""

import hashlib
import json
import re
import subprocess
from pathlib import Path

import pytest
from aiohttp import web
from tasks._template.task.teacher import answer

from tests.conftest import KEY, ROOT, Body, FakeTeacher, completion
from tests.test_pipeline import Checkout

TEXT = (ROOT / "docs/tutorial.md").read_text(encoding="utf-8")
FENCES = re.findall(r"(?ms)^```(\w*)\n(.*?)^```$", TEXT)
COMMANDS = [line for language, block in FENCES if language == "sh" for line in block.splitlines()]


def test_every_command_is_one_that_is_executed() -> None:
    assert not [block for language, block in FENCES if language not in ("sh", "text", "json")]
    assert not [
        block
        for language, block in FENCES
        if language == "text" and re.search(r"(?m)^(make|dvc|\$) ", block)
    ]
    assert (
        len(COMMANDS) == len(set(COMMANDS)) + 1
    )  # `make repro` with the scripted teacher, and with the real one
    made = {name for line in COMMANDS for name in re.findall(r"make ([a-z-]+)", line)}
    assert made >= {"new-task", "repro", "validate", "import", "quote", "review", "profile"}
    assert made <= set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text()))


def test_what_it_says_of_files_and_links_is_so() -> None:
    for path in re.findall(r"\]\(([\w.-]+\.md)", TEXT):
        assert (ROOT / "docs" / path).is_file(), path
    for path in re.findall(r"`((?:tasks|schemas|data)/invoice\S*)`", TEXT):
        template = (
            path.replace("schemas/invoice.json", "schema.json")
            .replace("tasks/invoice", "task")
            .replace("data/invoice", "data")
        )
        assert (ROOT / "tasks/_template" / template).is_file(), path
    for path, key in re.findall(r"\]\(([\w.-]+\.md)#([\w-]+)\)", TEXT):
        heads = re.findall(r"(?m)^#+ (.*)$", (ROOT / "docs" / path).read_text())
        assert key in {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}, (
            key
        )


async def bills(n: int, body: Body, request: web.Request) -> web.StreamResponse:
    """A teacher that answers word for word as the scripted one: what is trained on stays the same, and DVC trains once."""
    seed = hashlib.sha256(json.dumps([body["messages"], body["seed"]]).encode()).hexdigest()
    return web.json_response(completion(answer(body["messages"], seed)))


@pytest.mark.slow
def test_the_way_that_it_describes(tmp_path: Path, fake: FakeTeacher) -> None:
    fake.behave = bills
    clone = Checkout(tmp_path)
    clone.write("params.yaml", (ROOT / "params.yaml").read_bytes())
    clone.commit()
    python = Path(clone.env["PATH"].split(":")[0])
    for name in (
        "bin",
        "lib",
        "pyvenv.cfg",
    ):  # the environment is there, and make finds it younger than its lock
        (clone.dir / ".venv").mkdir(exist_ok=True)
        (clone.dir / ".venv" / name).symlink_to(python.parent / name)
    (clone.dir / ".venv/ready").touch()
    texts = [
        json.loads(line)["text"]
        for line in (ROOT / "tasks/_template/data/seeds.jsonl").read_text().splitlines()
    ]
    clone.write(
        "inputs.json",
        json.dumps([{"instruction": text} for text in texts], ensure_ascii=False).encode(),
    )
    done: dict[str, list[str]] = {}
    script = f"set -e\nexport TEACHER_BASE_URL={fake.url} TEACHER_API_KEY={KEY} BROWSER=none\n"
    for command in COMMANDS:
        if command.startswith("export "):
            continue
        if command == "make review":  # it waits for the reader
            command = "timeout --signal=INT 6 make review || test $? = 124"
        out = subprocess.run(
            ["bash", "-c", script + command],
            cwd=clone.dir,
            env=clone.env,
            capture_output=True,
            text=True,
            check=False,
        )
        print(command, out.stdout, out.stderr, sep="\n")
        assert out.returncode == 0, out.stdout + out.stderr
        done.setdefault(command, []).append(out.stdout + out.stderr)
    first, second = done["make repro TASK=invoice"]
    table = re.search(r"(?m)^teacher .*\n(.*\n)*?^fit: .*", first)
    assert table
    assert {"sft", "merge", "predict-base", "score"} <= set(
        re.findall(r"Running stage '([\w-]+)@invoice'", first)
    )
    assert "task: address → invoice" in first
    assert "300 in data/invoice/seeds.jsonl" in done["make import FILE=inputs.json TASK=invoice"][0]
    assert re.search(r"generate +300 +0 +300", done["make quote"][0])
    assert "teacher qwen3-235b-a22b-instruct" in second
    assert len(fake.calls) == 360  # each input and each test row once
    assert (
        "review: open http://127.0.0.1:"
        in done["timeout --signal=INT 6 make review || test $? = 124"][0]
    )
    metrics = json.loads(clone.read("reports/invoice/metrics.json"))
    assert metrics["rows"] == 60
    assert metrics["sft"]["accuracy"] > metrics["base"]["accuracy"]
    assert "model: Qwen/Qwen3-0.6B" in clone.read("params.yaml")
    assert "lora_alpha: 32 " in clone.read("params.yaml")
