"""4-train.jsonl, 4-valid.jsonl → models/seeds: the training of `sft` once more by each further one
of `seeds`.

models/seeds/43 is that student's adapter, with the training's log; 43.json says of what it is the
result, {"training": "…", "md5": "…"}: such a student that is there is not trained again.
report.json: {"stage": "sft_seeds", "seeds": [42, 43, 44]}, of which the first is models/sft.
"""

import shutil
from pathlib import Path
from types import SimpleNamespace

from potstill.core import jsonl, lockfile, params, project, stage
from potstill.core.project import DATA, MODELS
from potstill.training import run, scored


def train(p: SimpleNamespace, adapter: Path) -> str:
    """Trains one student with the parameters of `sft`; returns what became of it."""
    paths, scoring = (DATA / "4-train.jsonl", DATA / "4-valid.jsonl"), scored.settings()
    for path in paths:  # refuses a file that is not whole
        jsonl.read_jsonl(path, ("id", "messages"))
    steps, more = run.step_count(vars(p), paths[0]), scored.files() if scoring["rows"] else []
    config = run.config(p, *paths, scored.config(p, steps) if scoring["rows"] else {})
    code = sorted((project.ROOT / "potstill/training").rglob("*.py"))
    name = jsonl.row_id({path.name: lockfile.md5(path) for path in code})
    key, note = f"{run.key(config, more)} {name}", adapter.with_suffix(".json")
    made = jsonl.read_json(note) if note.is_file() and adapter.is_dir() else {}
    if made.get("training") == key and made.get("md5") == lockfile.md5(adapter):
        return "is there"
    with run.exclusive_folder("sft", config, more) as work:
        config, _ = run.validation(config, work)
        patience = scoring.get("patience")
        steps, seconds = run.train(config, work, adapter, base=p.model, patience=patience)
        jsonl.write_json(note, {"training": key, "md5": lockfile.md5(adapter)})
    return f"{steps:,} steps, {seconds:.1f} s"


def main() -> None:
    given = vars(params.load(*params.declared("sft_seeds")))
    seeds = given.pop("seeds")
    folder, further = MODELS / "seeds", [str(seed) for seed in seeds[1:]]
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():  # of seeds that are asked for no more, or of a killed run
        if path.name.removesuffix(".json") not in further:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    done = []
    for seed in further:
        p = SimpleNamespace(**given, seed=int(seed))
        done.append(f"{seed} {train(p, folder / seed)}")
        print(f"sft_seeds: {done[-1]}", flush=True)
    jsonl.write_json(folder / "report.json", {"stage": "sft_seeds", "seeds": seeds})
    print(f"sft_seeds: {'; '.join(done) or 'nothing to do, seeds has no further one'}")


if __name__ == "__main__":
    stage.run(main)
