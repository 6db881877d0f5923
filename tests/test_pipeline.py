"""The whole pipeline for real and small: DVC, the scripted teacher's server, ms-swift and vLLM on
120 seeds and 40 gold rows.

The tests share one checkout and run in order: a run, a run that does nothing, an experiment, bad
input, and a last run.
"""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import safe_open

from potstill.commands import repro
from potstill.evaluation import compare
from tests.conftest import ROOT

pytestmark = pytest.mark.slow
SEEDS, GOLD = 120, 40
QUICK = {
    "num_train_epochs": 1,
    "per_device_train_batch_size": 8,
    "save_steps": 5,
    "eval_steps": 5,
    "logging_steps": 1,
}
DATA = "data/"


class Checkout:
    """A copy of this checkout in a folder of its own, with fewer rows and a shorter training."""

    def __init__(self, folder: Path) -> None:
        self.dir = folder / "checkout"
        self.env = {
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("DVC_", "TEACHER_", "GIT_"))
            },
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "GIT_CONFIG_GLOBAL": os.devnull,
            **{
                f"GIT_{who}_{what}": "test@example.org"
                for who in ("AUTHOR", "COMMITTER")
                for what in ("NAME", "EMAIL")
            },
            **{
                f"DVC_{name}": str(folder / name)
                for name in ("GLOBAL_CONFIG_DIR", "SYSTEM_CONFIG_DIR", "SITE_CACHE_DIR")
            },
        }
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        )
        for name in filter(None, listed.stdout.decode().split("\0")):
            if (ROOT / name).is_file():  # not where it is deleted but not yet committed
                self.write(name, (ROOT / name).read_bytes())
        self.write("dvc.lock", b"")
        (self.dir / "dvc.lock").unlink()
        self.keep_rows(DATA + "seeds.jsonl", SEEDS)
        self.keep_rows(DATA + "gold.jsonl", GOLD)
        self.set(**QUICK)
        self.commit("init", "-q")

    def write(self, name: str, content: bytes) -> None:
        path = self.dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def keep_rows(self, name: str, count: int) -> None:
        """Keeps `count` lines, taken evenly from the whole file."""
        lines = (self.dir / name).read_bytes().splitlines(keepends=True)
        self.write(name, b"".join(lines[i * len(lines) // count] for i in range(count)))

    def set(self, **params: object) -> None:
        """Sets parameters in params.yaml."""
        text = (self.dir / "params.yaml").read_text(encoding="utf-8")
        for name, value in params.items():
            text, found = re.subn(rf"(?m)^{name}: \S+", f"{name}: {value}", text)
            assert found == 1, name
        self.write("params.yaml", text.encode())

    def commit(self, *first: str) -> None:
        for command in (first, ("add", "-A"), ("commit", "-qm", "state")):
            if command:
                subprocess.run(["git", *command], cwd=self.dir, env=self.env, check=True)

    def run(self, *module: str, **env: str) -> tuple[int, str]:
        """Exit code and output of `python -m …`; what it started ends with it."""
        process = subprocess.Popen(
            [sys.executable, "-m", *module],
            cwd=self.dir,
            env={**self.env, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            out = process.communicate(timeout=1200)[0]
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        print(out)
        return process.returncode, out

    def dvc(self, *args: str) -> str:
        """The output of a DVC command that must succeed."""
        code, out = self.run("dvc", *args)
        assert code == 0, out
        return out

    def read(self, name: str) -> str:
        return (self.dir / name).read_text(encoding="utf-8")

    def state(self) -> dict[str, bytes]:
        """What a run must not change when nothing is new: the lock, the metrics, the journal of the
        teacher's answers."""
        return {
            name: (self.dir / name).read_bytes()
            for name in ("dvc.lock", METRICS, ".cache/teacher/address.jsonl")
        }


METRICS = "reports/metrics.json"
STAGES = repro.stage_names()


def ran(out: str) -> list[str]:
    """The stages that a DVC command ran, by name."""
    return re.findall(r"Running stage '([\w@-]+)'", out)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return Checkout(tmp_path_factory.mktemp("pipeline"))


def test_a_run_makes_everything(checkout: Checkout) -> None:
    code, shown = checkout.run("potstill", "repro")
    assert code == 0, shown
    out = checkout.read(".cache/repro.log")
    assert sorted(ran(out)) == sorted(STAGES)
    assert len(shown.splitlines()) <= 80
    assert not re.search(r"(?i)warn|is empty|traceback", shown), shown
    assert not re.search(r"is empty", out), out
    numbers = re.findall(rf"(?m)^\[ *(\d+)/{len(STAGES)}\] ", shown)
    assert {int(number) for number in numbers} == set(range(1, len(STAGES) + 1))
    metrics = json.loads(checkout.read(METRICS))
    unseen = sum(
        '"unseen_layout"' in line for line in checkout.read(DATA + "gold.jsonl").splitlines()
    )
    assert metrics["rows"] == GOLD - unseen
    for model in ("teacher", "base", "sft"):
        assert metrics[model]["right"] + metrics[model]["wrong"] == metrics["rows"]
        assert metrics[model]["unseen_layout"]["rows"] == unseen
        assert re.search(rf"(?m)^{model} .* {metrics['rows']} rows .*\d+ right .*\d+ wrong", out), (
            out
        )
    assert metrics["teacher"]["accuracy"] > 0.75
    assert metrics["sft"]["prompt_tokens"] < metrics["base"]["prompt_tokens"]
    answers, kept, dropped = (
        len(checkout.read(f"{DATA}{name}.jsonl").splitlines())
        for name in ("2-answers", "3-kept", "3-dropped")
    )
    assert answers == kept + dropped == SEEDS
    for name in ("train_loss.png", "eval_loss.png"):
        assert (checkout.dir / "reports/tables" / name).read_bytes().startswith(b"\x89PNG")
    with safe_open(checkout.dir / "models/sft/merged/model.safetensors", "np") as merged:
        assert "lm_head.weight" not in list(merged.keys())  # tied, as in the base
    learnt = len(checkout.read(DATA + "4-train.jsonl").splitlines())
    hops = compare.read_csv(checkout.read("reports/tables/hops.csv"), "hops.csv")
    assert [(hop["rows"], hop["passed"]) for hop in hops] == [
        (str(GOLD), "1"),
        (str(GOLD), "1"),
        (str(min(100, learnt)), "1"),
    ]
    assert metrics["examples"]["prompt_tokens"] > metrics["base"]["prompt_tokens"]
    assert "like_seeds are right after the training" in checkout.read("reports/report.html")
    code, out = checkout.run("tests.second_scorer")
    assert (code, out.splitlines()[-1]) == (0, "address: 0 differences"), out
    checkout.commit()


def test_a_second_run_does_nothing(checkout: Checkout) -> None:
    before = checkout.state()
    out = checkout.dvc("repro")
    assert not ran(out)
    assert "up to date" in out
    assert checkout.state() == before
    code, out = checkout.run("potstill", "repro")
    assert (code, "nothing was to do" in out, "address: 0.0% → " in out) == (0, True, True), out


def test_predict_and_score_alone_run_nothing_again(checkout: Checkout) -> None:
    code, out = checkout.run("potstill", "eval")
    assert (code, "nothing was to do" in out) == (0, True), out
    assert "address: 0.0% → " in out


def test_an_experiment_trains_and_scores_only(checkout: Checkout) -> None:
    out = checkout.dvc("exp", "run", "--name", "rank-16", "-S", "lora_rank=16")
    after = {"sft", "sft_seeds", "merge", "sample", "align", "predict@sft", "parity"}
    after |= {"choose", "judge"}
    assert set(ran(out)) == after | {"score", "report"}
    assert re.findall(r"(\w+): nothing to do, models has no dpo", out) == ["sample", "align"]
    adapter = json.loads(checkout.read("models/sft/adapter/adapter_config.json"))
    assert adapter["r"] == 16


def test_experiments_and_metrics_read_well(checkout: Checkout) -> None:
    shown = checkout.dvc("exp", "show", "--csv", "--no-pager")
    head, *rows = shown.splitlines()
    assert {"lora_rank", "sft.accuracy", "base.accuracy"} <= {
        cell.split(":")[-1] for cell in head.split(",")
    }
    assert any("rank-16" in row for row in rows)
    assert re.search(r"sft\.accuracy +\|", checkout.dvc("metrics", "diff", "--all", "--md"))
    checkout.dvc("plots", "show", "--out", "plots")
    page = checkout.read("plots/index.html")
    assert "training loss" in page
    assert "validation loss" in page
    assert not re.findall(
        r'src="(?!(?:\.\./)+potstill/report/vega\.js)', page
    )  # nothing from elsewhere


def test_the_gate_holds_the_last_commit(checkout: Checkout) -> None:
    code, out = checkout.run("potstill", "gate")
    assert (code, "0 broken" in out or "fixed" in out) == (0, True), out


def line(number: int, new: bytes) -> Callable[[bytes], bytes]:
    """An edit: line `number` becomes `new`."""

    def edit(content: bytes) -> bytes:
        lines = content.splitlines()
        lines[number - 1] = new
        return b"\n".join(lines) + b"\n"

    return edit


def put(name: str, value: str) -> Callable[[bytes], bytes]:
    """An edit: the parameter gets the value."""
    return lambda content: re.sub(
        rf"(?m)^{name}: \S+".encode(), f"{name}: {value}".encode(), content
    )


REPRO = ("dvc", "repro")
BAD = {
    "broken seed": (
        DATA + "seeds.jsonl",
        line(7, b'{"id": '),
        REPRO,
        r"data/seeds\.jsonl:7: not JSON",
    ),
    "seed not UTF-8": (
        DATA + "seeds.jsonl",
        line(7, b'{"id": "\xb9\xe3"}'),
        REPRO,
        r"seeds\.jsonl:7: .* not UTF-8",
    ),
    "broken gold row": (
        DATA + "gold.jsonl",
        line(3, b"{]"),
        REPRO,
        r"data/gold\.jsonl:3: not JSON",
    ),
    "gold not UTF-8": (
        DATA + "gold.jsonl",
        line(3, b'{"id": "\xff"}'),
        REPRO,
        r"gold\.jsonl:3: .* not UTF-8",
    ),
    "gold row twice": (
        DATA + "gold.jsonl",
        lambda c: c + c.splitlines()[1] + b"\n",
        REPRO,
        r"gold\.jsonl:41: its input stands in line 2 already: delete one of the two",
    ),
    "unknown parameter": (
        "params.yaml",
        lambda c: c + b"lora_rnak: 8\n",
        ("stages.filter",),
        r"params\.yaml:\d+: .*'lora_rnak'",
    ),
    "out of range": (
        "params.yaml",
        put("lora_rank", "100"),
        REPRO,
        r"params\.yaml:\d+: lora_rank is 100, .* 1 to 64",
    ),
    "no such task": (
        "",
        None,
        ("potstill", "--task", "nosuch", "check"),
        r"no task 'nosuch', .* address",
    ),
    "no such model": (
        "params.yaml",
        put("model", "models/nosuch"),
        REPRO,
        r"'models/nosuch', and there is no such folder",
    ),
    "teacher down": ("params.yaml", put("  model", "big-model"), REPRO, r"127\.0\.0\.1:9\b"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_sentence(checkout: Checkout, case: str) -> None:
    name, edit, command, sentence = BAD[case]
    good = (checkout.dir / name).read_bytes() if name else b""
    if edit:
        checkout.write(name, edit(good))
    try:
        code, out = checkout.run(
            *command, TEACHER_BASE_URL="http://127.0.0.1:9/v1", TEACHER_API_KEY="none"
        )
    finally:
        if edit:
            checkout.write(name, good)
    assert code != 0
    errors = [text for text in out.splitlines() if text.startswith("error: ")]
    assert len(errors) == 1, out
    assert re.search(sentence, errors[0]), errors
    assert "Traceback" not in out


def test_a_full_disk_gets_one_sentence(checkout: Checkout) -> None:
    """The file that the stage writes to first is one that is always full."""
    checkout.dvc("repro", "generate")
    part = checkout.dir / DATA / "3-kept.jsonl.part"
    part.symlink_to("/dev/full")
    try:
        code, out = checkout.run("dvc", "repro", "--force", "--single-item", "filter")
    finally:
        part.unlink(missing_ok=True)
    assert code != 0
    assert re.search(r"(?m)^error: no space left on device", out), out
    assert "Traceback" not in out


def test_nothing_was_lost(checkout: Checkout) -> None:
    """After all that, the same state comes back without a question to the teacher, a training or a
    prediction."""
    journal = checkout.state()[".cache/teacher/address.jsonl"]
    out = checkout.dvc("repro")
    assert not set(ran(out)) - {"filter", "score", "report"}, out
    assert checkout.state()[".cache/teacher/address.jsonl"] == journal
    assert json.loads(checkout.read("models/sft/adapter/adapter_config.json"))["r"] == 16
    assert not ran(checkout.dvc("repro"))
