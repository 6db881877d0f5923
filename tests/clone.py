"""A git clone of a small DVC project: the toy task's real data stages, and a training and a scoring
that take no time."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from potstill.core import jsonl, params, project
from tests.conftest import ROOT, Project

TRAIN = '''
"""4-train.jsonl → models/student: a model whose bytes are the rank and the rows."""
import os
import pathlib
import time
from potstill.core import params, stage
def main():
    p = params.load("lora_rank")
    rows = pathlib.Path("data/4-train.jsonl").read_text()
    time.sleep(float(os.environ.get("SLOW", "0")))
    out = pathlib.Path("models/student")
    out.mkdir(parents=True, exist_ok=True)
    (out / "model.safetensors").write_text(f"{p.lora_rank} {rows}")
    (out / "config.json").write_text("{}")
    with (pathlib.Path(os.environ["LEDGER"]) / "trainings").open("a") as ledger:
        ledger.write(f"{p.lora_rank}\\n")
if __name__ == "__main__":
    stage.run(main)
'''
SCORE = '''
"""models/student → reports: of 100 test rows the rank's number right, and 40 more."""
from pathlib import Path
from potstill.core import jsonl, stage
from potstill.evaluation import compare, statistics
def main():
    rank = int(Path("models/student/model.safetensors").read_text().split()[0])
    right = 40 + rank
    low, high = statistics.wilson(right, 100)
    found = {"accuracy": right / 100, "low": low, "high": high}
    found |= {"right": right, "wrong": 100 - right, "unscored": 0}
    jsonl.write_json("reports/metrics.json", {"rows": 100, "sft": found, "base": found})
    cost = {"answers": 60, "prompt_tokens": 7, "completion_tokens": 3, "spent": None}
    cost["break_even_requests"] = None
    jsonl.write_json("reports/cost.json", cost)
    marks = [{"id": str(i), "slice": "a", "base": 0, "sft": int(i < right)} for i in range(100)]
    compare.write_csv(Path("reports/tables/marks.csv"), marks)
    compare.write_csv(Path("reports/tables/pairs.csv"), [compare.pair("base", "sft", [], [])])
    hop = {"hop": "merged", "rows": 60, "differ": 0, "flips": 0, "passed": 1}
    compare.write_csv(Path("reports/tables/hops.csv"), [hop])
if __name__ == "__main__":
    stage.run(main)
'''
STAGES = """
  sft:
    cmd: PYTHONPATH=${root} python -m stages.sft
    deps: ["${root}/stages/sft.py", data/4-train.jsonl]
    params: [lora_rank]
    outs: [models/student]
  score:
    cmd: PYTHONPATH=${root} python -m stages.score
    deps: ["${root}/stages/score.py", models/student]
    outs: [reports/tables: {cache: false}]
    metrics: [reports/metrics.json: {cache: false}, reports/cost.json: {cache: false}]
"""
ARTIFACTS = (
    "\nartifacts:" + (ROOT / "dvc.yaml").read_text(encoding="utf-8").partition("\nartifacts:")[2]
)


class Clone(Project):
    """A checkout with a git history and DVC, in a folder of its own; its ledger counts the
    trainings."""

    def __init__(self, folder: Path, ledger: Path) -> None:
        self.dir, self.ledger = folder, ledger
        self.env = {
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("DVC_", "GIT_", "TEACHER_"))
            },
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "HOME": str(ledger),
            "LEDGER": str(ledger),
            **{
                f"GIT_{who}_{what}": "t@example.org"
                for who in ("AUTHOR", "COMMITTER")
                for what in ("NAME", "EMAIL")
            },
            **{
                f"DVC_{name}": str(ledger / name)
                for name in ("GLOBAL_CONFIG_DIR", "SYSTEM_CONFIG_DIR")
            },
            "DVC_SITE_CACHE_DIR": str(ledger / "site" / folder.name),
        }

    @classmethod
    def make(cls, folder: Path) -> "Clone":
        """A new project with a commit; nothing has run."""
        self = cls(folder, folder.parent)
        folder.mkdir()
        Project.__init__(self, folder)
        for name in (".gitignore", ".dvcignore", "Makefile", "pyproject.toml"):
            shutil.copy(ROOT / name, folder)
        for name in ("potstill", "stages", "schemas", ".dvc"):
            ignored = shutil.ignore_patterns(
                "__pycache__", "cache", "tmp", "config.local", "vega.js"
            )
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        shutil.copytree(ROOT / "models/tiny-base", folder / "models/tiny-base")  # doctor wants it
        head, _, rest = (ROOT / "dvc.yaml").read_text(encoding="utf-8").partition("\n  sft:")
        assert rest
        self.write("dvc.yaml", head + STAGES + ARTIFACTS)
        self.write("stages/sft.py", TRAIN)
        self.write("stages/score.py", SCORE)
        self.write("data/gold.jsonl", "")
        self.set(split_valid_share=0.2)
        self.seeds(60, alike=False)
        (folder / "data/1-inputs.jsonl").unlink()
        self.git("init", "-q", "-b", "main")
        self.commit()
        return self

    def clone(self, name: str) -> "Clone":
        """A `git clone` of this one, beside it: no data, no journal."""
        other = Clone(self.dir.parent / name, self.ledger)
        subprocess.run(["git", "clone", "-q", self.dir, other.dir], env=self.env, check=True)
        other.env |= {
            name: self.env[name] for name in self.env if name.startswith(("TEACHER_", "AWS_"))
        }
        return other

    def twin(self, folder: Path) -> "Clone":
        """A copy of all there is, data and cache included, with a ledger of its own; no stage has
        run in it yet."""
        shutil.copytree(self.dir, folder, symlinks=True)
        shutil.rmtree(folder / ".cache/stages", ignore_errors=True)
        other = Clone(folder, folder.parent)
        other.env |= {name: self.env[name] for name in self.env if name.startswith("TEACHER_")}
        return other

    def add_task(self, name: str) -> None:
        """Another task, like toy, in a folder of its own."""
        home = self.dir / "tasks" / name
        home.mkdir(parents=True)
        for path in ("data", "prompts", "teacher"):
            ignored = shutil.ignore_patterns("[1-9]-*", "__pycache__")
            shutil.copytree(self.dir / path, home / path, ignore=ignored)
        for path in ("schema.json", "params.yaml"):
            shutil.copy(self.dir / path, home / path)
        text = (self.dir / "dvc.yaml").read_text(encoding="utf-8")
        self.write(f"tasks/{name}/dvc.yaml", text.replace("{root: .}", "{root: ../..}"))
        texts = (row["text"] for row in self.read("seeds.jsonl"))
        rows = [{"text": text.replace("line", name)} for text in texts]
        jsonl.write_jsonl(
            home / "data/seeds.jsonl", ({"id": jsonl.row_id(row), **row} for row in rows)
        )
        text = (self.dir / "task.yaml").read_text(encoding="utf-8")
        self.write(f"tasks/{name}/task.yaml", text.replace("name: toy", f"name: {name}"))

    def task(self, name: str) -> "Clone":
        """The same clone, working in the folder of another task."""
        other = Clone(self.dir / "tasks" / name, self.ledger)
        other.env = self.env | {"PYTHONPATH": str(self.dir)}
        return other

    def git(self, *command: str) -> str:
        done = subprocess.run(
            ["git", *command], cwd=self.dir, env=self.env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def commit(self) -> None:
        self.git("add", "-A")
        self.git("commit", "-qm", "state")

    def start(self, *command: str, **env: str) -> "subprocess.Popen[str]":
        """Starts `python -m …`, of the clone's own code."""
        return subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=self.dir,
            env={**self.env, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=project.restore_sigint,  # the tests may run under nohup
        )

    def do(self, *command: str, **env: str) -> str:
        """The output of `python -m …`, which must end well."""
        process = self.start(*command, **env)
        out, _ = process.communicate(timeout=600)
        assert process.returncode == 0, out
        return out

    def fail(self, *command: str, **env: str) -> str:
        """The output of `python -m …`, which must end badly, with no traceback."""
        process = self.start(*command, **env)
        out, _ = process.communicate(timeout=600)
        assert process.returncode != 0 and "Traceback" not in out, out
        return out

    def make_target(self, *arguments: str) -> str:
        """The output of `make …` with this Python instead of .venv's."""
        command = ["make", "-s", "-o", ".venv/ready", f"PY={sys.executable}", *arguments]
        done = subprocess.run(
            command, cwd=self.dir, env=self.env, capture_output=True, text=True, timeout=900
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def trainings(self) -> list[str]:
        """The ranks that were trained, in this clone and those that share its ledger."""
        path = self.ledger / "trainings"
        return path.read_text().split() if path.exists() else []

    def lock(self) -> dict[str, dict[str, object]]:
        """dvc.lock's stages."""
        path = self.dir / "dvc.lock"
        return dict(params.parse(path.read_text(encoding="utf-8"), path)["stages"])
