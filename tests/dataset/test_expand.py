"""expand and its stage: 56 seeds become 3,000 inputs, each accounted for, none near another or a
gold row, none bought twice."""

import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from aiohttp import web

from potstill.commands import fill, quote
from potstill.core import jsonl, params
from potstill.core.jsonl import Row
from potstill.dataset import expand, near_duplicates
from potstill.task import settings
from stages import expand as stage
from tasks.greeting.teacher import answer as greeting_answer
from tests.conftest import ROOT, Body, FakeTeacher, Project, completion, serving

# The shares of the seeds, so that every category has much to do, and 3,000 by them.
SHARES = {"short": 20, "long": 17, "essay": 7, "poem": 7, "letter": 5}
QUOTAS = {"short": 1071, "long": 911, "essay": 375, "poem": 375, "letter": 268}


async def greet(n: int, body: Body, request: web.Request) -> web.StreamResponse:
    """The task's own teacher behind the fake endpoint."""
    seed = hashlib.sha256(json.dumps([body["messages"], body["seed"]]).encode()).hexdigest()
    return web.json_response(completion(greeting_answer(body["messages"], seed)))


def greeting(folder: Path, **changes: object) -> Project:
    """A copy of the task greeting with SHARES, to be answered by a fake endpoint."""
    project = Project(folder)
    ignored = shutil.ignore_patterns("__pycache__", "[1-9]-*", "dvc.*", "models", "reports")
    shutil.copytree(ROOT / "tasks/greeting", folder, ignore=ignored, dirs_exist_ok=True)
    path = folder / "task.yaml"
    text, replaced = path.read_text(), 0
    for name, share in SHARES.items():
        text, count = re.subn(rf"(    {name}: .*\n      share: )\d+", rf"\g<1>{share}", text)
        replaced += count
    assert replaced == len(SHARES)
    path.write_text(text)
    project.set(teacher_model="fake-235b", generate_samples=1, **changes)
    return project


PARAMS = ("near_duplicate", "expand", "teacher", "generate")


def asked_twice(fake: FakeTeacher) -> int:
    """How many calls of the ledger were made before."""
    return len(fake.calls) - len({json.dumps(call, sort_keys=True) for call in fake.calls})


def read(name: str) -> list[Row]:
    return jsonl.read_jsonl(f"data/{name}")


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """The project after its growth to 3,000, with what the stage printed and the ledger."""
    folder = tmp_path_factory.mktemp("greeting")
    with (
        pytest.MonkeyPatch.context() as patch,
        serving() as fake,
        redirect_stdout(StringIO()) as out,
    ):
        patch.chdir(folder)
        patch.setenv("DVC_ROOT", ".")
        patch.delenv("TEACHER_JOURNAL", raising=False)
        for name, value in fake.env().items():
            patch.setenv(name, value)
        fake.behave = greet
        greeting(folder, expand_rows=3000)
        stage.main()
        yield SimpleNamespace(folder=folder, out=out, fake=fake, calls=len(fake.calls))


@pytest.fixture
def there(grown: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """`grown`, whose project is the working folder."""
    monkeypatch.chdir(grown.folder)
    monkeypatch.setenv("DVC_ROOT", ".")
    monkeypatch.delenv("TEACHER_JOURNAL", raising=False)
    for name, value in grown.fake.env().items():
        monkeypatch.setenv(name, value)
    return grown


def test_56_seeds_in_5_categories_become_3000_inputs(there: SimpleNamespace) -> None:
    seeds, found = read("seeds.jsonl"), read("1-inputs.jsonl")
    assert found[:56] == [{**seed, "family": seed["id"]} for seed in seeds]
    assert len(seeds) == 56
    assert Counter(row["category"] for row in found) == QUOTAS
    assert len({row["id"] for row in found}) == 3000
    kinds = {seed["id"]: seed["category"] for seed in seeds}
    for row in found:
        assert set(row) == {"id", "text", "category", "family"}
        assert row["id"] == jsonl.row_id({"text": row["text"]})
        assert kinds[row["family"]] == row["category"]
        assert len(row["text"]) <= 800
    # every seed leads: no category lives by one or two of them
    families = Counter(row["family"] for row in found)
    assert min(families.values()) > 1 and len(families) == 56


def test_what_happened_is_a_table_that_adds_up(there: SimpleNamespace) -> None:
    report = json.loads(Path("data/1-expand/report.json").read_text())
    replies = Counter(row["id"].split(":")[0] for row in read("1-expand/calls.jsonl"))
    assert report["calls"] == sum(replies.values()) == there.calls <= 300
    for name, one in report["categories"].items():
        assert one["asked"] + one["varied"] == one["new"] + sum(one["refused"].values())
        assert (one["seeds"] + one["new"], one["calls"], one["stopped"]) == (
            one["total"],
            replies[name],
            "quota",
        )
        assert one["total"] == one["quota"] == QUOTAS[name]
    letter = report["categories"][
        "letter"
    ]  # two calls an input, and one where the first wrote nothing
    assert (
        letter["calls"]
        == 2 * letter["asked"] - letter["refused"]["material: empty answer"]
        < 2 * letter["asked"]
    )
    said = there.out.getvalue()
    assert f"expand: 56 seeds + 2,944 new = 3,000 inputs, {there.calls} calls" in said
    assert re.search(r"short +20 +1,071 +\d+ +\d+ +\d+ +1,051 +\d+ +0 +1,071  quota", said)
    reasons = {reason for one in report["categories"].values() for reason in one["refused"]}
    assert reasons >= {
        "no JSON",
        "wrong category",
        "repeats an example",
        "near-duplicate",
        "fewer than asked for",
    }


def test_no_two_inputs_are_near_duplicates_and_none_is_near_a_gold_row(
    there: SimpleNamespace,
) -> None:
    """Every pair, by matrices and not by what the stage uses."""
    from scipy.sparse import csr_matrix

    found = read("1-inputs.jsonl")
    both = found + [{**row, "family": "gold"} for row in read("gold.jsonl")]
    texts = [near_duplicates.normal(row["text"]) for row in both]
    long = np.array([len(text) >= 20 for text in texts])
    close: set[tuple[int, int]] = set()
    for n, of in ((3, long[:, None] & long[None, :]), (2, ~(long[:, None] & long[None, :]))):
        grams = [{text[i : i + n] for i in range(len(text) - n + 1)} for text in texts]
        places = {gram: i for i, gram in enumerate(sorted(set().union(*grams)))}
        at = [(i, places[gram]) for i, own in enumerate(grams) for gram in own]
        matrix = csr_matrix(
            (np.ones(len(at), "int32"), tuple(zip(*at, strict=True))), (len(texts), len(places))
        )
        shared = (matrix @ matrix.T).toarray()
        sizes = np.array([len(own) for own in grams])
        similar = shared >= 0.8 * (sizes[:, None] + sizes[None, :] - shared)
        close |= {(int(i), int(j)) for i, j in np.argwhere(np.triu(similar & of, 1))}
    assert len(close) > 1000  # the varied numbers
    for i, j in close:
        assert both[i]["family"] == both[j]["family"], (texts[i], texts[j])
        if (
            both[i]["family"] != "gold"
        ):  # two gold rows may resemble each other: both are on the test side
            assert re.findall(r"\d+", texts[i]) != re.findall(r"\d+", texts[j])


def test_numbers_are_varied_within_the_family(there: SimpleNamespace) -> None:
    lengths: dict[tuple[str, str], set[str]] = {}
    for row in read("1-inputs.jsonl"):
        lengths.setdefault((row["family"], re.sub(r"\d+(?=字)", "N", row["text"])), set()).update(
            re.findall(r"\d+(?=字)", row["text"])
        )
    assert Counter(len(one) for one in lengths.values())[3] > 250
    first = read("seeds.jsonl")[0]
    its = lengths[first["id"], first["text"].replace("50字", "N字")]
    assert "50" in its and len(its) == 3 and all(30 <= int(one) <= 80 for one in its)


def test_two_steps_the_letter_first_then_the_request(there: SimpleNamespace) -> None:
    letters = [
        row["answer"].strip()
        for row in read("1-expand/calls.jsonl")
        if row["id"].endswith(":letter")
    ]
    written = [
        row
        for row in read("1-inputs.jsonl")
        if row["category"] == "letter" and row["family"] != row["id"]
    ]
    assert len(written) == 263
    of_seeds = {row["text"].partition("\n\n")[2] for row in read("seeds.jsonl")}
    about = Counter(row["text"].partition("\n\n")[2] for row in written)
    assert set(about) <= set(filter(None, letters)) | of_seeds
    assert (
        sum(count for text, count in about.items() if text in of_seeds) == 10
    )  # the seeds with two other numbers each
    shown = [call for call in there.fake.calls if '"material"' in call["messages"][-1]["content"]]
    assert len(shown) == len([letter for letter in letters if letter])
    assert all("response_format" in call for call in shown)
    wrote = [
        call for call in there.fake.calls if "请写一封新的信" in call["messages"][0]["content"]
    ]
    assert len(wrote) == len(letters) and not any("response_format" in call for call in wrote)
    assert all(
        call["temperature"] == 1.0 and call["max_completion_tokens"] == 4096
        for call in shown + wrote
    )


def test_a_second_run_asks_nothing_and_gives_the_same(
    there: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("1-inputs.jsonl", "1-expand/calls.jsonl", "1-expand/report.json")
    before = [(there.folder / "data" / name).read_bytes() for name in names]
    stage.main()
    assert [(there.folder / "data" / name).read_bytes() for name in names] == before
    fill.main()
    monkeypatch.setenv(
        "TEACHER_JOURNAL", "elsewhere"
    )  # a colleague's machine, filled from the data
    fill.main()
    stage.main()
    assert [(there.folder / "data" / name).read_bytes() for name in names] == before
    assert len(there.fake.calls) == there.calls and not asked_twice(there.fake)


def test_the_quote_of_a_finished_growth_is_of_its_very_rows(there: SimpleNamespace) -> None:
    p = params.load(*PARAMS)
    lines = [line.split() for line in quote.quote(settings.load(), p).splitlines()]
    assert lines[2] == ["expand", str(there.calls), str(there.calls), "0", "0", "0", "unknown"]
    assert lines[3][:4] == ["generate", "3,000", "0", "3,000"]
    # Not by the replies of expand, which are much longer: no other answer is known, so it is the
    # most that there can be.
    assert lines[3][5] == f"{3000 * 1024:,}"
    assert " ".join(lines[5]).startswith("generate: the 3,000 inputs that expand gives")


def test_a_stopped_run_goes_on_and_pays_nothing_twice(project: Project, fake: FakeTeacher) -> None:
    one = greeting(project.dir / "a", expand_rows=800, teacher_concurrency=4)

    async def slow(n: int, body: Body, request: web.Request) -> web.StreamResponse:
        time.sleep(0.02)
        return await greet(n, body, request)

    fake.behave = slow
    for count in (5, 30):
        process = one.start("stages.expand")
        while len(fake.calls) < count:
            assert process.poll() is None, process.communicate()
            time.sleep(0.005)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 130, process.communicate()
        assert not (one.dir / "data/1-inputs.jsonl").exists()
    stopped = len(fake.calls)
    assert one.run("stages.expand")[0] == 0
    assert len(fake.calls) > stopped and not asked_twice(fake)
    two, fake.behave = greeting(project.dir / "b", expand_rows=800), greet
    assert two.run("stages.expand")[0] == 0
    found = [(path / "data/1-inputs.jsonl").read_bytes() for path in (one.dir, two.dir)]
    assert found[0] == found[1]


def test_a_larger_quota_asks_for_what_is_new_alone(
    project: Project, fake: FakeTeacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.behave = greet
    monkeypatch.chdir(project.dir)
    small = greeting(project.dir / "a", expand_rows=600)
    monkeypatch.chdir(small.dir)
    stage.main()
    first, calls = read("1-inputs.jsonl"), len(fake.calls)
    small.set(expand_rows=1200)
    stage.main()
    assert {row["id"] for row in first} <= {row["id"] for row in read("1-inputs.jsonl")}
    assert calls < len(fake.calls) and not asked_twice(fake)


def test_at_the_ceiling_the_stage_goes_on_with_what_there_is(
    project: Project,
    fake: FakeTeacher,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake.behave = greet
    monkeypatch.chdir(greeting(project.dir / "a", expand_rows=3000, expand_calls=11).dir)
    stage.main()
    report = json.loads(Path("data/1-expand/report.json").read_text())
    assert report["calls"] <= 11 and len(fake.calls) == report["calls"] > 9
    assert len(read("1-inputs.jsonl")) == report["rows"] < 1000
    assert {one["stopped"] for one in report["categories"].values()} == {"calls"}
    assert (
        "rows, not all that were wanted: short, long, essay, poem, letter stopped by"
        in capsys.readouterr().out
    )


def test_seeds_that_are_enough_pass_through(
    project: Project, fake: FakeTeacher, capsys: pytest.CaptureFixture[str]
) -> None:
    seeds = project.seeds(4)
    project.set(teacher_model="fake-235b")
    (project.dir / "data/1-inputs.jsonl").unlink()
    stage.main()
    assert project.read("1-inputs.jsonl") == [{**seed, "family": seed["id"]} for seed in seeds]
    assert not Path("data/1-expand/calls.jsonl").exists()
    assert json.loads(Path("data/1-expand/report.json").read_text()) == {
        "rows": 4,
        "calls": 0,
        "categories": {},
    }
    assert capsys.readouterr().out == "expand: 4 seeds + 0 new = 4 inputs, 0 calls\n"
    fill.main()  # finds no reply to take
    assert fake.calls == []
    assert not Path(".cache").exists()


def test_the_fixtures_own_teacher_serves_the_stage(project: Project) -> None:
    """As a user runs it: the real scripted server, in a process of its own."""
    one = greeting(project.dir / "a", expand_rows=200)
    one.set(teacher_model="scripted")
    code, out = one.run("stages.expand")
    assert code == 0, out
    assert "expand: 56 seeds + 144 new = 200 inputs" in out


def test_nothing_that_grows_inputs_or_reads_own_rows_is_imported_in_vain() -> None:
    """The default run has nothing to grow and no rows of the user's."""
    program = (
        "import sys; from types import SimpleNamespace as N; from pathlib import Path;"
        "from stages import expand as _, split as __; from potstill.dataset import expand, split;"
        "p = N(expand=N(rows=0), near_duplicate=0.8, teacher=N(model='scripted'));"
        "expand.grow(None, [], [], p, None); split.chats(None, Path('none'), 'first');"
        "print(*(name for name in sys.modules if name.startswith('potstill.dataset.')))"
    )
    command = [sys.executable, "-c", program]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    expected = "expand frozen lengths near_duplicates scoring split".split()
    assert sorted(out.split()) == [f"potstill.dataset.{name}" for name in expected]


@pytest.mark.parametrize("model", ["fake-235b", "scripted"])
def test_what_is_never_learnt_is_not_asked_of_a_teacher_that_is_paid(
    project: Project, model: str
) -> None:
    """Rows that are there twice, near-duplicates, and what is like a gold row."""
    texts = ["please write a kind letter to the neighbours", "what is the capital of Norway today"]
    seeds = [texts[0], texts[0], texts[0] + "!", texts[1] + "?", "a third one that is like nothing"]
    jsonl.write_jsonl("data/seeds.jsonl", [{"text": text} for text in seeds])
    jsonl.write_jsonl("data/gold.jsonl", [{"text": texts[1], "gold": "Oslo"}])
    t, teacher = settings.load(), SimpleNamespace(model=model)
    p = SimpleNamespace(expand=SimpleNamespace(rows=0), near_duplicate=0.8, teacher=teacher)
    rows, report, dropped = expand.grow(t, t.seeds(), t.gold(), p, lambda *_: [])
    paid = model != "scripted"
    assert [row["text"] for row in rows] == [seeds[i] for i in ((0, 4) if paid else (0, 2, 3, 4))]
    reasons = {"duplicate": 1, "near_duplicate": 1, "gold": 1} if paid else {"duplicate": 1}
    assert report["dropped"] == reasons and report["rows"] == len(rows)
    assert len(rows) + len(dropped) == len(seeds)
    if paid:
        gold, like = t.gold()[0]["id"], next(row for row in dropped if "gold" in row["reason"])
        assert like["reason"].startswith(f"gold: a near_duplicate of {gold} (0.9")
