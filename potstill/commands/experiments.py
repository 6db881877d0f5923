"""Run experiments, and tell which of them differ by more than chance.

exp lora_rank=16 …       `make exp S="…"`: one experiment
sweep JOBS lora_rank=4,8 `make sweep S="…"`: one for each value, or for each combination of several;
                         with --rows N first, by successive halving from N rows on (halving.py)
compare                  `make compare`: this task's experiments, best first, each against the last
                         commit; what chance alone may explain is marked

The test is that of `make gate`, over the seeds, too, where there are several. With many experiments
some look good by chance, so p is Holm's (1979): the smallest of m times m, the next times m - 1,
and so on.
"""

import json
import re
import sys
from typing import Any

import yaml

from potstill.commands import doctor, gate, halving, profile, verify
from potstill.commands.repro import pull_option
from potstill.core import lockfile, params, project
from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.evaluation import compare, score, seeds, statistics
from potstill.evaluation.statistics import p_text, percents
from potstill.task import settings
from potstill.task.settings import Task


def results(task: Task, commits: dict[str, str]) -> list[Row]:
    """What each commit says of the task, {"name", "params", "model", "word" (what the share is
    called), "share", "interval", "right" (of each seed)}, but for commits that have no result. An
    experiment of another task has the last commit's result of this one, as the commit before it
    has: it is left out, too."""
    prefix = project.git("rev-parse", "--show-prefix")
    files = ("params.yaml", "reports/metrics.json", "reports/tables/marks.csv")
    paths = [prefix + file for file in files]
    revisions = [revision for sha in commits.values() for revision in (sha, f"{sha}^")]
    asked = [f"{revision}:{path}" for revision in revisions for path in paths]
    contents = iter(project.blobs(asked))
    found: list[Row] = []
    for name, sha in commits.items():
        own, before = ([next(contents) for _ in paths] for _ in "ab")
        given, metrics, marks = own
        if metrics is None or marks is None or (sha != "HEAD" and own == before):
            continue
        measured = json.loads(metrics)
        model = score.student(measured)
        of, several = measured[model], seeds.of(measured)
        table = compare.read_csv(marks.decode(), f"{name}: marks.csv")
        found.append(
            {"name": name, "params": flat(yaml.load(given or b"", lockfile.Loader) or {})}
            | {"model": model, "word": score.word_of(of)}
            | {"share": several["mean"] if several else score.headline(of)}
            | {"interval": score.interval(several or of)}
            | {"right": gate.students(task, table, model)}
        )
    return found


def flat(given: Row) -> Row:
    """Parameters by their full names, such as teacher.model."""
    found: Row = {}
    for name, value in given.items():
        parts = value.items() if isinstance(value, dict) else [("", value)]
        found |= {f"{name}.{key}".rstrip("."): part for key, part in parts}
    return found


def judged(base: Row, others: list[Row]) -> list[Row]:
    """The other results, best first, with what changed since `base`, p and a verdict."""
    table = []
    for one in others:
        p, how = gate.difference(base["right"], one["right"])
        given = one["params"]
        changed = {key: given[key] for key in given if base["params"].get(key) != given[key]}
        changed |= {key: one[key] for key in ("model", "word") if one[key] != base[key]}
        table.append(one | {"p": p, "how": how, "changed": changed})
    worst = 0.0
    for place, one in enumerate(sorted(table, key=lambda one: one["p"])):
        worst = one["p"] = min(1.0, max(worst, one["p"] * (len(table) - place)))
        one["verdict"] = statistics.difference(worst, one["share"] > base["share"])
    return sorted(table, key=lambda one: -one["share"])


def lines(base: Row, table: list[Row]) -> list[str]:
    """The table as text."""
    wide = max(len(one["name"]) for one in [base, *table])
    word = base["word"]
    head = f"{'':{wide}}  {base['model']} {word}  {'95 % interval':16}        p"
    text = [f"{head}  against the last commit"]
    shares = percents(*(one["share"] for one in [base, *table]))
    for one, share in zip([base, *table], shares, strict=True):
        said = " " * 9
        if "p" in one:
            said = f"{p_text(one['p']).removeprefix('= '):>7}  {one['verdict']}: {one['how']};"
        changed = ", ".join(f"{key}={value}" for key, value in one.get("changed", {}).items())
        left = f"{one['name']:{wide}}  {share:>{len(base['model'] + word) + 1}}"
        text.append(f"{left}  {one['interval']:16}  {said} {changed}".rstrip())
    return text


def of_one_seed(rows: list[Row]) -> list[str]:
    """What is to be said of the results of one seed, in a line; [] where there is none."""
    single = [one["name"] for one in rows if len(one["right"]) == 1]
    whose = "all" if len(single) == len(rows) else ", ".join(single)
    return [f"{whose}: {seeds.ONE}"] if single else []


def run_one() -> None:
    """`make exp`: writes the values into params.yaml and runs `dvc exp run`. Raises UserError for a
    value that cannot be, before anything runs, and when the experiment fails; then, and after a
    stop, params.yaml is as it was."""
    words = assignments("exp S='lora_rank=16'")
    changes = {}
    for override in _overrides(words):
        if override.is_sweep_override():
            raise UserError(f"S has several values, {override.input_line}: `make sweep` tries each")
        changes[override.key_or_group] = override.value()
    before = params.PATH.read_bytes()
    profile.apply(changes, params.PATH)
    code = 1
    try:
        code = project.call(*_exp_run(), *pull_option())
    finally:
        if code:
            params.PATH.write_bytes(before)
    if code:
        raise UserError("the experiment failed, see above; params.yaml is as it was before")


def assignments(example: str) -> list[str]:
    """The NAME=VALUE of the command line; white space in a value is part of it. Raises UserError,
    with an `example` of the target, where it is something else."""
    found = re.split(r"\s+(?=[\w.]+=)", " ".join(sys.argv[1:]).strip())
    for word in found:
        if not re.fullmatch(r"[\w.]+=\S.*", word, re.DOTALL):
            raise UserError(
                f"S is {word!r}, expected NAME=VALUE, no space round the =, as in `make {example}`"
            )
    return found


def _overrides(words: list[str]) -> list[Any]:
    """What DVC reads of NAME=VALUE each, by Hydra. Raises UserError for what it cannot read."""
    from dvc.utils.hydra import to_hydra_overrides
    from hydra.errors import HydraException

    found = []
    for word in words:
        try:
            found += to_hydra_overrides([word])
        except HydraException:
            raise UserError(
                f"S has {word!r}, whose value cannot be read: expected a number, a text, which is "
                "quoted where it has other signs than letters, [1,2] or {name: value}"
            ) from None
    return found


def refuse_untracked() -> None:
    """Raises UserError when the task has files that git does not know: an experiment in a copy
    would end in a missing file."""
    if unknown := doctor.untracked():
        raise UserError(unknown)


def _exp_run() -> list[str]:
    return [*project.DVC, "exp", "run"]


def sweep() -> None:
    """`make sweep`: runs the experiments, all of them even when one fails. Raises UserError for a
    value that cannot be, before anything runs, and when one fails. One after the other by `--temp`:
    DVC's own queue waits for ever where its worker dies, which it does now and then on a message
    that is half-written (kombu's transport by files)."""
    example = 'sweep S="lora_rank=4,8,16"'
    rows = None
    if sys.argv[1:2] == ["--rows"]:
        _, rows = sys.argv.pop(1), sys.argv.pop(1)
    jobs = sys.argv.pop(1) if len(sys.argv) > 2 else ""
    if not re.fullmatch("[1-9][0-9]*", jobs):
        raise UserError(f"expected `make {example}`, and JOBS from 1 up")
    if rows and (not re.fullmatch("[1-9][0-9]*", rows) or jobs != "1"):
        raise UserError(f"expected `make {example} ROWS=400`: ROWS from 1 up, and no JOBS")
    words = assignments(example)
    refuse_untracked()
    from dvc.utils.hydra import get_hydra_sweeps

    _overrides(words)
    each = [one[str(params.PATH)] for one in get_hydra_sweeps({str(params.PATH): words})]
    for values in each:
        one = {override.key_or_group: override.value() for override in _overrides(values)}
        profile.changed(one, params.PATH)
    for what, remedy in verify.abandoned():
        print(f"note: {what}: {remedy}")
    ran, failed, way = 0, list[str](), "--temp" if jobs == "1" else "--queue"

    def start(values: list[str]) -> int:
        nonlocal ran
        ran += 1
        of = "" if rows else f" of {len(each)}"
        print(f"sweep: {ran}{of}: {' '.join(values)}", flush=True)
        sets = [word for value in values for word in ("--set-param", value)]
        code = project.call(*_exp_run(), way, *sets)
        failed.extend([" ".join(values)] if code else [])
        return code

    if rows:
        print(*halving.lines(halving.run(each, int(rows), start)), sep="\n")
    else:
        for values in each:
            start(values)
    if way == "--queue" and project.call(*_exp_run(), "--run-all", "--jobs", jobs):
        failed.append(f"one of {jobs} at once")
    if failed:
        raise UserError(
            f"{len(failed)} of {ran} experiments failed: {'; '.join(failed)}: "
            "their own messages stand above"
        )


def main() -> None:
    """`make compare`. Raises UserError when there is nothing to compare."""
    task, known = settings.load(), project.experiments()
    rows = results(task, {"last commit": "HEAD", **known})
    if not rows or rows[0]["name"] != "last commit":
        raise UserError(
            f"the last commit has no result of task {task.name} to compare with: `make repro`, "
            "then commit dvc.lock and reports"
        )
    if not rows[1:]:
        raise UserError(
            f"no experiment of task {task.name} has a result: `make exp S='lora_rank=16'` makes one"
        )
    print(*lines(rows[0], judged(rows[0], rows[1:])), *of_one_seed(rows), sep="\n")
    if left := len(known) + 1 - len(rows):
        some = statistics.count(left, "experiment")
        print(f"left out: {some} of another task, or without a result")
