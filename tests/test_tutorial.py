"""docs/tutorial.md: every command in it, in its order, as a reader types it, in a clone. Only the
endpoint is a fake one."""

import hashlib
import json
import re
import subprocess
from pathlib import Path

import pytest
from aiohttp import web

from tasks._template.teacher import answer
from tests.conftest import KEY, ROOT, Body, FakeTeacher, completion
from tests.test_pipeline import Checkout

TEXT = (ROOT / "docs/tutorial.md").read_text(encoding="utf-8")
FENCES = re.findall(r"(?ms)^```(\w*)\n(.*?)^```$", TEXT)
COMMANDS = [line for language, block in FENCES if language == "sh" for line in block.splitlines()]
HOME = "tasks/invoice"
REVIEW = "timeout --signal=INT 6 make review TASK=invoice || test $? = 124"  # it waits for a reader


def test_every_command_is_one_that_is_executed() -> None:
    assert not [block for language, block in FENCES if language not in ("sh", "text", "json")]
    texts = [block for language, block in FENCES if language == "text"]
    assert not [block for block in texts if re.search(r"(?m)^(make|dvc|\$) ", block)]
    # `make repro` stands there for the scripted teacher and for the real one
    assert len(COMMANDS) == len(set(COMMANDS)) + 1
    targets = {name for line in COMMANDS for name in re.findall(r"make ([a-z-]+)", line)}
    assert targets >= {"new-task", "repro", "validate", "import", "quote", "review", "profile"}
    assert targets <= set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text()))


def test_the_files_that_it_names_are_in_the_template() -> None:
    paths = re.findall(rf"{HOME}/([\w./-]+)", TEXT)
    made = [path for path in paths if re.match(r"data/\d|reports/|params\.yaml", path)]
    own = set(paths) - set(made)
    assert own >= {"task.yaml", "schema.json", "prompts/teacher.md", "data/gold.jsonl"}
    for path in own:
        assert (ROOT / "tasks/_template" / path).is_file(), path


async def bills(n: int, body: Body, request: web.Request) -> web.StreamResponse:
    """A teacher that answers word for word as the scripted one: what is trained on stays the same,
    and DVC trains once."""
    seed = hashlib.sha256(json.dumps([body["messages"], body["seed"]]).encode()).hexdigest()
    return web.json_response(completion(answer(body["messages"], seed)))


@pytest.mark.slow
def test_the_way_that_it_describes(tmp_path: Path, fake: FakeTeacher) -> None:
    fake.behave = bills
    clone = Checkout(tmp_path)
    clone.write("params.yaml", (ROOT / "params.yaml").read_bytes())
    clone.commit()
    python = Path(clone.env["PATH"].split(":")[0])
    # The environment is there, and make finds it younger than its lock.
    for name in ("bin", "lib", "pyvenv.cfg"):
        (clone.dir / ".venv").mkdir(exist_ok=True)
        (clone.dir / ".venv" / name).symlink_to(python.parent / name)
    (clone.dir / ".venv/ready").touch()
    seeds = (ROOT / "tasks/_template/data/seeds.jsonl").read_text(encoding="utf-8").splitlines()
    inputs = [{"instruction": json.loads(line)["text"]} for line in seeds]
    clone.write("inputs.json", json.dumps(inputs, ensure_ascii=False).encode())
    said: dict[str, list[str]] = {}
    script = f"set -e\nexport TEACHER_BASE_URL={fake.url} TEACHER_API_KEY={KEY} BROWSER=none\n"
    shorter = "make profile NAME=cpu TASK=tickets"  # the tiny base: CI has no time for a real one
    assert f"`{shorter}`" in TEXT
    commands = [command for command in COMMANDS if not command.startswith("export ")]
    commands.insert(commands.index("make repro TASK=tickets"), shorter)
    for command in commands:
        command = REVIEW if command == "make review TASK=invoice" else command
        done = subprocess.run(
            ["bash", "-c", script + command],
            cwd=clone.dir,
            env=clone.env,
            capture_output=True,
            text=True,
            check=False,
        )
        print(command, done.stdout, done.stderr, sep="\n")
        assert done.returncode == 0, done.stdout + done.stderr
        said.setdefault(command, []).append(done.stdout + done.stderr)
    first, _ = said["make repro TASK=invoice"]
    assert re.search(r"(?m)^invoice: [\d.]+% → [\d.]+% right \(95 % interval .* to ", first)
    shown = re.findall(r"(?m)^  (\w+) +[\d.]+%  [\d.]+% to [\d.]+% +\d+  ", first)
    assert shown == ["base", "examples", "sft", "teacher"]
    ran = set(re.findall(r"(?m)^\[ *\d+/\d+\] (\S+)", first))
    assert {"sft", "merge", "predict@base", "ask_teacher", "score", "report"} <= ran
    assert 'model: "smollm2-135m" → "models/tiny-base"' in said[shorter][0]
    own = said["make repro TASK=tickets"][0]
    assert re.search(r"(?m)^tickets: [\d.]+% → [\d.]+% right", own)
    assert re.findall(r"(?m)^  (\w+) +[\d.]+%  [\d.]+% to", own) == ["base", "examples", "sft"]
    assert "cost: nothing was asked of a teacher" in own
    found = json.loads(clone.read("tasks/tickets/reports/metrics.json"))
    assert 20 <= found["rows"] <= 50 and "teacher" not in found
    # the example's own, so that nothing is trained again
    assert "300 that stood there" in said["make import FILE=inputs.json TASK=invoice"][0]
    assert re.search(r"generate +300 +0 +300", said["make quote TASK=invoice"][0])
    assert "teacher qwen3-235b-a22b-instruct" in clone.read(f"{HOME}/.cache/repro.log")
    assert len(fake.calls) == 360  # each input and each test row once
    assert "review: open http://127.0.0.1:" in said[REVIEW][0]
    metrics = json.loads(clone.read(f"{HOME}/reports/metrics.json"))
    assert metrics["rows"] == 60
    assert metrics["sft"]["accuracy"] > metrics["base"]["accuracy"]
    params = clone.read(f"{HOME}/params.yaml")
    assert "model: Qwen/Qwen3-0.6B" in params
    assert "model_revision: c1899de289a04d12100db370d81485cdf75e47ca" in params
    assert "lora_alpha: 32 " in params
