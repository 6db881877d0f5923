"""Looks at everything that can go wrong before it costs anything: what you wrote, the prompts, the
lengths, the model, the disk, and the teacher's endpoint. All findings at once, each with what to
do.

`make doctor` also asks the endpoint, by a free call where it has one, else by one of a token. Each
stage that pays runs the rest before its first call (`--paid`): nothing is paid when one is fatal.
"""

import asyncio
import json
import math
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from potstill.checks import registry
from potstill.commands import repro
from potstill.core import params, preflight, project, weights
from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.dataset import expand, filtering, lengths, own_rows, reviews, split
from potstill.inference import gap
from potstill.task import settings
from potstill.task.settings import Task
from potstill.teacher import asking, batch_api, local
from potstill.training import model_folder, run

SHOWN = 10  # findings of one kind that are printed; the others are counted
RUNTIME = 1 << 30  # bytes of memory that libraries and rows need
KV_CACHE = 2 << 30  # bytes that predictions on a CPU take beside the weights
PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")


class Finding(NamedTuple):
    """One sentence: where it is, what was found, what to do. A fatal one ends a run, sooner or
    later, or spoils it."""

    fatal: bool
    text: str


Findings = Iterator[Finding]


class Looked(NamedTuple):
    """What the parts look at: the parameters, the task, and its rows where they can be read."""

    p: SimpleNamespace
    t: Task
    seeds: list[Row]
    gold: list[Row]
    own: list[split.Item]


def fatal(texts: list[str]) -> Findings:
    """The sentences as fatal findings, the first SHOWN of them; the others are counted."""
    yield from (Finding(True, text) for text in texts[:SHOWN])
    if len(texts) > SHOWN:
        yield Finding(True, f"and {len(texts) - SHOWN:,} more of this kind")


def findings(paid: bool) -> Findings:
    """Everything that is found; `paid`: without a call of the endpoint."""
    try:
        p = params.load(*params.schema())
        weights.prepare_student(*params.student())
        t = settings.load()
    except UserError as error:
        yield Finding(True, str(error))
        return
    seeds, faults = t.written(t.data / "seeds.jsonl")
    yield from fatal(faults)
    gold, wrong = t.written(t.data / "gold.jsonl", "gold")
    yield from fatal(wrong)
    own, left_out = list[split.Item](), tuple[Row, ...]()
    path = t.data / split.OWN
    if path.is_file() and path.stat().st_size:
        try:
            own, _, left_out = split.chats(t, path, p.split.several)
        except UserError as error:  # of the first rows
            yield from fatal(list(own_rows.read(path).problems) or [str(error)])
    if left_out:
        yield Finding(
            not own,
            f"{left_out[0]['where']}: {left_out[0]['reason']}: {len(left_out):,} rows of your own "
            "are not learnt; split.several of params.yaml decides",
        )
    looked = Looked(p, t, [] if faults else seeds, [] if wrong else gold, own)
    if not seeds and not own and not faults and not path.is_file():
        yield Finding(True, filtering.NOTHING)
    parts = (other_files, checks, prompts, near_duplicates, model, too_long, disk, teacher)
    for part in [*parts, *([] if paid else [endpoint, experiments])]:
        try:
            yield from part(looked)
        except UserError as error:
            yield Finding(True, str(error))


def other_files(at: Looked) -> Findings:
    """Reviews, the rules of knowledge.jsonl, headline_slice, and what ms-swift gets."""
    reads: list[Callable[[], object]] = [
        lambda: reviews.load(at.t.data / reviews.FILE),
        lambda: at.t.knowledge,
        params.check,
        lambda: run.config(at.p, params.PATH),  # any file will do for the rows
    ]
    if not at.gold and not at.t.written(at.t.data / "gold.jsonl", "gold")[1]:
        reads.append(lambda: repro.check_headline(at.t))
    for read in reads:
        try:
            read()
        except UserError as error:
            yield Finding(True, str(error))


def checks(at: Looked) -> Findings:
    """The checks of task.yaml, schema.json, and whether the gold answers pass them."""
    registry.validate(at.t)
    if not at.t.config["checks"]:
        yield Finding(True, "task.yaml: checks is empty, so every answer would be right: list some")
    for number, row in enumerate(at.gold, 1):
        split.refuse_reserved(row["slice"], f"{at.t.data}/gold.jsonl:{number}")
    compares = any("exact_match" in entry or "facts" in entry for entry in at.t.config["checks"])
    if not compares and any(row["gold"] is not None for row in at.gold):
        yield Finding(
            False,
            "task.yaml: no check compares an answer with gold.jsonl's (exact_match): the share is "
            "that of rows that pass the checks, no accuracy",
        )
    listed = [{entry: {}} if isinstance(entry, str) else entry for entry in at.t.config["checks"]]
    if not any("field" not in entry.get("exact_match", {"field": ""}) for entry in listed):
        return  # gold may name some of the keys only
    wrong = []
    for number, row in enumerate(at.gold, 1):
        if (answer := row["gold"]) is not None:
            text = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
            if reasons := registry.check(at.t, row | {"expected": answer}, text):
                wrong.append(f"{at.t.data}/gold.jsonl:{number}: {reasons[0]}")
    if wrong:
        yield Finding(
            False,
            f"{wrong[0]}: the gold answers of {len(wrong):,} rows do not pass the task's own "
            "checks, so no model can have them right: mend the answers or the checks",
        )


def prompts(at: Looked) -> Findings:
    """Whether teacher.md, student.md and the user's turn can be filled in for every row."""
    for kind in ("teacher", "student"):
        if kind == "teacher" and not Path("prompts/teacher.md").is_file() and not at.seeds:
            continue
        wrong = []
        for name, rows in (("seeds", at.seeds), ("gold", at.gold)):
            for number, row in enumerate(rows, 1):
                try:
                    at.t.messages(kind, row)
                except UserError as error:
                    wrong.append(f"{at.t.data}/{name}.jsonl:{number}: {error}")
                    if len(wrong) > SHOWN:  # it is the template's fault
                        break
        yield from fatal(wrong)


def near_duplicates(at: Looked) -> Findings:
    """Inputs that nobody will answer, and rows of one's own that are like a test row."""
    path, threshold = at.t.data / "seeds.jsonl", at.p.near_duplicate
    rows, dropped = expand.distinct(at.t, at.seeds, at.gold, threshold)
    if dropped:
        said = expand.left_out(expand.counts(dropped))
        hint = "give inputs that differ more, or raise near_duplicate of params.yaml"
        what = f"{path}: {len(dropped):,} of {len(at.seeds):,} inputs are left out, and not asked"
        yield Finding(
            not rows and not at.own, f"{what}: {said} (near_duplicate {threshold:g}); {hint}"
        )
    tests = split.items(at.t, at.t.data / "gold.jsonl", at.gold)
    if like := split.like_tests(at.own, tests, threshold):
        first = next(item for item in at.own if item.id in like)
        yield Finding(
            len(like) == len(at.own) and not rows,
            f"{first.where}: {like[first.id]}: {len(like):,} of {len(at.own):,} rows of your own "
            "are nearly test rows and are not learnt from; near_duplicate of params.yaml decides",
        )


def model(at: Looked) -> Findings:
    """Whether the student is there, reads as much as it must, has a chat template and the tokens of
    gkd.teacher, and fits into memory."""
    p = at.p
    if model_folder.at_hub(p.model):
        return
    folder = model_folder.local(p.model)
    if taught := params.open_teacher():
        weights.prepare(*taught)
        gap.check_vocabulary(folder, *taught)
    limit = model_folder.check_folder(folder).get("max_position_embeddings")
    needed = {"predict.max_model_len": p.predict.max_model_len, "max_length": p.max_length}
    for name, wanted in needed.items():
        if limit and wanted > limit:
            yield Finding(
                True, f"params.yaml: {name} is {wanted}, but {p.model} reads at most {limit} tokens"
            )
    size = parameters(folder)
    full, cuda = p.tuner_type == "full", model_folder.on_cuda()
    training = size * ((2 if cuda else 4) + (14 if full and cuda else 12 if full else 0))
    width = 4 if p.predict.dtype == "float32" else 2
    need = max(training, size * width + (0 if cuda else KV_CACHE)) + RUNTIME
    total = memory(cuda)
    if need > total:
        yield Finding(
            True,
            f"params.yaml: {p.model} has {size / 1e6:,.0f} M parameters and needs some "
            f"{need / 2**30:.1f} GB of {'GPU ' if cuda else ''}memory, and there are "
            f"{total / 2**30:.1f}: take a smaller model or a larger machine",
        )


def parameters(folder: Path) -> int:
    """The parameters of a model's folder, from the heads of its weights."""
    count = 0
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            head = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        head.pop("__metadata__", None)
        count += sum(math.prod(tensor["shape"]) for tensor in head.values())
    return count


def memory(cuda: bool) -> int:
    """Bytes of memory: the GPU's, or the machine's, within the limit of the container."""
    if cuda:
        import torch

        return int(torch.cuda.mem_get_info()[1])
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = preflight.MEMORY
    text = limit.read_text().strip() if limit.is_file() else "max"
    return min(total, int(text)) if text.isdigit() else total


def too_long(at: Looked) -> Findings:
    """Rows that no training and no prediction can read, in the student's own tokens."""
    p, t = at.p, at.t
    count = lengths.Counter(p.model, p.model_revision)
    files = (("seeds", at.seeds), ("gold", at.gold))
    kinds = ["student"] + (["teacher"] if Path("prompts/teacher.md").is_file() else [])
    for name, rows in files:
        for kind in kinds:
            # The student is trained on the seeds; test rows go to it and, with the long prompt, to
            # the untrained model.
            if name == "seeds" and kind == "teacher" and at.gold:
                continue
            trained = name == "seeds" and kind == "student"
            what = "max_length" if trained else "predict.max_model_len"
            limit = p.max_length if trained else p.predict.max_model_len
            try:
                chats = [t.messages(kind, row) for row in rows]
            except UserError:
                continue  # `prompts` says so
            found = list(count.longer(chats, limit - 1, answering=True))
            yield from fatal(
                [
                    f"{t.data}/{name}.jsonl:{i + 1}: its prompt (prompts/{kind}.md) has {tokens:,} "
                    f"tokens of {p.model}, expected fewer than {what} {limit:,} of params.yaml: "
                    f"shorten the row or raise {what}"
                    for i, tokens in found
                ]
            )
    chats = [item.row["messages"] for item in at.own]
    yield from fatal(
        [
            f"{at.own[i].where}: the row has {tokens:,} tokens of {p.model}, expected at most "
            f"max_length {p.max_length:,} of params.yaml: shorten or delete the row, or raise "
            "max_length"
            for i, tokens in count.longer(chats, p.max_length)
        ]
    )


def disk(at: Looked) -> Findings:
    """Whether what a run makes has room."""
    need, free = preflight.room(at.p.model), shutil.disk_usage(".").free
    if at.p.tuner_type == "full" and (folder := lengths.folder(at.p.model)):
        need += (at.p.save_total_limit + 1) * 12 * parameters(folder)  # with Adam's moments
    if free < need:
        yield Finding(
            True,
            f"{Path.cwd()}: {free / 2**30:.1f} GB free, and a run needs some {need / 2**30:.1f}: "
            "free some space",
        )


def teacher(at: Looked) -> Findings:
    """Whether there is a teacher to ask, with a key, and prices where there is a budget."""
    p = at.p.teacher
    if not at.seeds:
        return
    if p.model == "scripted" or local.is_local(p.model):
        asking.model_name(p)
        return
    if p.budget is not None and None in (p.price_in, p.price_out):
        yield Finding(
            True,
            f"params.yaml: teacher.budget is {p.budget:g}, but without teacher.price_in and "
            "teacher.price_out no cost is known: give both prices or no budget",
        )
    with asking.open_endpoint(p, p.model):
        pass
    for name in PROXIES:
        value = os.environ.get(name) or os.environ.get(name.lower())
        if value and not re.fullmatch(r"(https?|socks[45]h?)://(\S+@)?[^\s@/]+/?", value):
            yield Finding(True, f"{name} is no URL such as http://host:3128: mend or unset it")
        elif value:
            where = re.sub(r"//.*@", "//", value)
            yield Finding(False, f"{name}: the endpoint is asked through {where}")


def endpoint(at: Looked) -> Findings:
    """Whether the endpoint answers and knows the model, and batches where they are wanted: its
    lists are free; where it has none of models, one token is asked for."""
    p = at.p.teacher
    if not at.seeds or p.model == "scripted" or local.is_local(p.model):
        return
    with asking.open_endpoint(p, p.model) as opened:
        try:
            names = asyncio.run(opened.models())
        except UserError:
            asyncio.run(_one_token(opened, p.model))
            names = [p.model]
        asyncio.run(batch_api.check(opened))
    if p.model not in ("auto", *names):
        listed = ", ".join(names[:8]) or "none"
        what = f"teacher.model is {p.model}, which the endpoint does not list; it has: {listed}"
        yield Finding(False, what)


async def _one_token(opened: Any, name: str) -> None:
    """One call of one token. Raises UserError when it brings no answer."""
    import openai

    turn = {"role": "user", "content": "1"}
    try:
        async with asyncio.timeout(opened.params.timeout), opened.connected() as connection:
            await connection.chat.completions.create(model=name, messages=[turn], max_tokens=1)
    except openai.APIStatusError as error:
        if error.status_code in (400, 422, 429):  # it is there, and takes the key
            return
        said = " ".join(str(error.message).replace(opened.api_key, "***").split())[:200]
        raise UserError(f"{opened} answered {error.status_code} ({said})") from None
    except (openai.APIError, TimeoutError, ValueError) as error:
        said = str(error) or type(error).__name__
        raise UserError(f"{opened} cannot be reached ({said}): check TEACHER_BASE_URL") from None


def experiments(at: Looked) -> Findings:
    """What git does not know, and an experiment would not see."""
    try:
        unknown = untracked()
    except UserError:
        return
    if unknown:
        yield Finding(False, unknown)


def untracked() -> str:
    """A sentence on the files of the task that git does not know; "" where it knows them all."""
    new = ("ls-files", "--others", "--exclude-standard", "--", *preflight.WRITTEN)
    listed = project.git(*new).splitlines()
    if not listed:
        return ""
    # Relative to where the user is: the repository's root, from where `make` is called
    home = os.path.relpath(Path.cwd(), project.ROOT)
    paths = [os.path.normpath(f"{home}/{one}") for one in listed]
    many = len(listed) > SHOWN and home != "."
    return (
        f"{paths[0]}: git does not know {len(listed):,} files of this task, and an experiment in a "
        f"copy (`make sweep`, --temp) sees only what it knows: git add "
        f"{home if many else ' '.join(paths)}"
    )


def main() -> None:
    start = time.monotonic()
    paid = sys.argv[1:] == ["--paid"]
    found = sorted(findings(paid), key=lambda one: not one.fatal)
    count = sum(one.fatal for one in found)
    if count == 1:  # the error itself
        print(*(f"note: {one.text}" for one in found[1:]), sep="\n", end="\n" * bool(found[1:]))
        raise UserError(found[0].text)
    for one in found:
        print(f"{'fatal' if one.fatal else 'note'}: {one.text}")
    if count:
        raise UserError(f"{count:,} findings are fatal, see above: nothing was asked or paid for")
    if not paid:
        print(f"doctor: nothing stands in the way ({time.monotonic() - start:.1f} s)")
