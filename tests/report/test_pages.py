"""reports/report.html: every number of score is on it, no text of a model is ever HTML, and it
works offline."""

import json
import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from potstill.core import jsonl
from potstill.core.errors import UserError
from potstill.core.models import MODELS, Model
from potstill.evaluation import cascade, compare, score, seeds
from potstill.report import pages
from potstill.task import settings
from tests.conftest import Project

MD5 = "ab" * 16 + ".dir"
EVIL = "</script><script>document.title = 'owned'</script><img src=x onerror=alert(1)>"
TASK = """
name: toy
description: The last word of a line
headline_slice: a
checks: [json_schema, exact_match]
"""


def scored(
    project: Project, count: int, models: tuple[str, ...] = ("base", "sft", "teacher")
) -> settings.Task:
    """A task of `count` test rows, each fifth of them in slice b, of which base has each third
    right, sft all but each fifth, and whose wrong answers hold a script; as the stages up to score
    leave it."""
    project.write("task.yaml", TASK)
    project.write("dvc.yaml", "stages:\n  split: {}\n  sft: {}\n")
    entry = {
        "cmd": "python -m stages.sft",
        "params": {"params.yaml": {"lora_rank": 77}},
        "outs": [{"path": "models/sft/adapter", "md5": MD5}],
    }
    project.write("dvc.lock", json.dumps({"stages": {"sft": entry}}))
    t, tests = settings.load(), []
    for i in range(count):
        text = f"第{i}行 word{i} {EVIL if i == 1 else ''}".strip()
        expected = {"word": f"word{i}", "length": i}
        tests.append(
            {
                "id": jsonl.row_id({"text": text}),
                "text": text,
                "slice": "b" if i % 5 == 4 else "a",
                "expected": expected,
            }
        )
    jsonl.write_jsonl("data/4-test.jsonl", tests)
    right = {"base": lambda i: i % 3 == 0, "sft": lambda i: i % 5 > 0}
    predictions: dict[str, list[jsonl.Row]] = {}
    for model in models:
        predictions[model] = [
            {
                "id": test["id"],
                "answer": json.dumps(
                    test["expected"]
                    if right.get(model, lambda i: True)(i)
                    else {"word": f"{EVIL} {i}", "length": i}
                ),
                "finish_reason": "stop",
                "prompt_tokens": 90,
                "completion_tokens": 9,
            }
            for i, test in enumerate(tests)
        ]
        jsonl.write_jsonl(f"data/5-predictions/{model}/test.jsonl", predictions[model])
    for model, seconds in (("base", 1.234), ("sft", 0.056), ("dpo", 0.057)):
        latency = {"requests": 10, "median": seconds}
        jsonl.write_json(f"data/5-predictions/{model}/latency.json", latency)
    for name in ("seeds", "4-train", "4-valid"):
        jsonl.write_jsonl(f"data/{name}.jsonl", [{"id": str(i)} for i in range(8)])
    jsonl.write_json(
        "data/3-funnel.json", {"inputs": 9, "in": 9, "kept": 8, "dropped": {"grounded": 1}}
    )
    if "teacher" not in models:  # all rows are a user's own
        project.write("data/2-answers.jsonl", "")
    predictions = score.predictions(t)
    bought = [{"key": "a", "error": None, **row} for row in predictions.get("teacher", [])[:1]]
    marks = score.marked(t, tests, predictions)
    jsonl.write_json("reports/metrics.json", score.metrics(t, tests, marks))
    jsonl.write_json("reports/cost.json", score.cost([], bought, 8, 1.0, 5.0))
    jsonl.write_json("reports/tables/judge.json", {"pairs": []})
    jsonl.write_json(
        "reports/tables/fit.json", {"verdict": "well fitted", "advice": "nothing to change"}
    )
    for name in ("train_loss", "eval_loss"):
        project.write(
            f"reports/tables/{name}.csv",
            "step,loss\n" + "".join(f"{i},{1 / (i + 1):.4f}\n" for i in range(9)),
        )
    project.write("reports/tables/accuracy.csv", "step,accuracy\n")
    for name, made in (("slices", compare.slices), ("pairs", compare.pairs)):
        compare.write_csv(Path(f"reports/tables/{name}.csv"), made(t, tests, marks))
    compare.write_csv(Path("reports/tables/marks.csv"), compare.states(tests, marks))
    again = {**predictions, "again": predictions["base"], "adapter": predictions["base"]}
    table = compare.hops(t, tests, marks, again, {"lessons": 8, "other_tokens": []})
    compare.write_csv(Path("reports/tables/hops.csv"), table)
    if "teacher" in predictions:
        prices = SimpleNamespace(price_in=1.0, price_out=5.0, price_cached=None)
        behind = cascade.table(t, tests, predictions, marks, "sft", prices)
        compare.write_csv(Path("reports/tables/cascade.csv"), behind)
    return t


def data(page: str, id: str) -> Any:
    """What stands in the page's script of data."""
    found = re.search(rf'<script type="application/json" id="{id}">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_the_page_has_the_verdict_the_rows_and_what_made_them(project: Project) -> None:
    page = pages.build(scored(project, 50))
    assert "1,234 → 56 ms" in page
    text = re.sub(r"\s+", " ", page)
    assert "75.0% of the 40 test rows of a are right after the training. Before it, 35.0%." in text
    assert "59.8% to 85.8%" in text  # Wilson, of 30 of 40
    assert "20 rows fixed, 4 broken" in text
    assert "1 grounded" in text and "77" in text and MD5 in text
    verdicts = re.findall('class="(?:right|wrong)">(passed|failed)', text)
    assert verdicts == ["passed", "failed", "passed"]  # the adapter's answers are the base's here
    assert "<code>make serve CASCADE=1</code>" in text and "against the teacher (p " in text
    found = data(page, "data")
    assert found["groups"] == {"broken": 4, "neither": 6, "fixed": 27, "both": 13}
    assert sum(found["groups"].values()) == 50
    assert len(found["rows"]) == 37
    drawn = data(page, "charts")["rows"]
    assert set(drawn) == {"all", "key", "length", "slice", "losses", "funnel", "tokens"}
    assert [row["rows"] for row in drawn["funnel"]] == [8, 9, 9, 8, 8, 8, 50]
    assert set(re.findall(r'data-chart="(\w+)"', page)) == set(drawn)
    project.write("reports/tables/accuracy.csv", "step,accuracy\n4,0.5\n8,0.75\n")
    page = pages.build(settings.load())
    points = [{"step": 4, "accuracy": 0.5}, {"step": 8, "accuracy": 0.75}]
    assert data(page, "charts")["rows"]["accuracy"] == points
    assert 'data-chart="accuracy"' in page


def test_several_seeds_have_a_table_and_one_leaves_no_trace(project: Project) -> None:
    t = scored(project, 50)
    before = pages.build(t)
    lock = json.loads(Path("dvc.lock").read_text())
    nothing: dict[str, Any] = {"cmd": "x", "params": {"params.yaml": {"seeds": []}}}
    nothing["outs"] = [{"path": "models/seeds", "md5": MD5}]
    lock["stages"]["sft_seeds"] = nothing
    project.write("dvc.lock", json.dumps(lock))
    assert pages.build(t) == before and "seeds (" not in before
    assert "95% interval after the training, one seed</span>" in before
    tests, several = [{"slice": "a"}] * 50, {42: 40, 43: 35}
    students = {seed: [{"right": i < n} for i in range(50)] for seed, n in several.items()}
    table = seeds.table(t, tests, students)
    compare.write_csv(Path("reports/tables/seeds.csv"), table)
    found = jsonl.read_json("reports/metrics.json") | {"seeds": seeds.metrics(table)}
    jsonl.write_json("reports/metrics.json", found)
    text = re.sub(r"\s+", " ", pages.build(t))
    assert "2 seeds (42: 80.0%, 43: 70.0%): 75.0% on average, " in text
    assert "95% interval after the training, one of 2 seeds</span>" in text
    assert '<td>43 <td class="n">35 of 50 <td class="n">70.0%' in text


def test_rows_that_a_script_made_are_listed_first(project: Project) -> None:
    t = scored(project, 20)
    entry = {"cmd": "python -m rows", "outs": [{"path": "gold.jsonl", "md5": MD5}]}
    project.write("data/dvc.lock", json.dumps({"stages": {"rows": entry}}))
    page = pages.build(t)
    assert 0 < page.index("data/gold.jsonl") < page.index("models/sft/adapter")


def test_no_text_of_a_model_is_html_and_nothing_is_asked_for(project: Project) -> None:
    page = pages.build(scored(project, 20))
    own = page.replace((Path(pages.__file__).parent / "vega.js").read_text(encoding="utf-8"), "")
    assert len(own) < len(page) and own.count("<script") == own.count("</script>") == 4
    assert "owned" in own and "<img" not in own
    assert not re.findall(
        r"(?:src|href)=[\"'](?!data:)|url\(|@import|innerHTML|insertAdjacent|document\.write", own
    )
    assert "default-src 'none'" in own


def test_a_page_stays_small_and_says_what_it_leaves_out(project: Project) -> None:
    t = scored(project, 400)
    tests = t.inputs(t.data / "4-test.jsonl", "slice")
    states = compare.read_csv(Path("reports/tables/marks.csv").read_text(encoding="utf-8"), "")
    every = pages.explorer(t, tests, states, "sft", 10**9)
    some = pages.explorer(t, tests, states, "sft", 20_000)
    assert some["groups"] == every["groups"]
    assert 10 < len(some["rows"]) < len(every["rows"]) == 400 - every["groups"]["both"]
    assert (
        len(json.dumps(some["rows"], ensure_ascii=False, separators=(",", ":")).encode()) < 20_000
    )
    assert {row["group"] for row in some["rows"]} == {"fixed", "broken", "neither"}


@pytest.mark.parametrize(
    "name", ["reports/metrics.json", "reports/tables/slices.csv", "data/3-funnel.json"]
)
def test_what_is_missing_is_named(project: Project, name: str) -> None:
    t = scored(project, 20)
    Path(name).unlink()
    with pytest.raises(UserError, match=f"^{name} is missing: run `dvc repro`$"):
        pages.build(t)


def test_marks_of_other_rows_are_refused(project: Project) -> None:
    t = scored(project, 20)
    lines = Path("reports/tables/marks.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    project.write("reports/tables/marks.csv", "".join(lines[:-1]))
    with pytest.raises(
        UserError, match=r"^reports/tables/marks\.csv: not the rows of data/4-test\.jsonl: run"
    ):
        pages.build(t)


def test_the_index_lists_every_task_that_was_scored(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored(project, 20)
    project.write("tasks/unscored/task.yaml", "checks: []\n")
    monkeypatch.setattr("potstill.core.project.ROOT", project.dir)
    page = pages.index()
    assert "1 task, before" in page and "<a href" not in page
    project.write("reports/report.html", "")
    assert '<a href="report.html">toy</a>' in pages.index()
    Path("reports").rename("tasks/unscored/reports")
    assert '<a href="../tasks/unscored/reports/report.html">unscored</a>' in pages.index()


def test_a_model_is_one_entry(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    made_up = Model("another label", "another word", "#123456", "#abcdef", "teacher")
    monkeypatch.setitem(MODELS, "another", made_up)
    t = scored(project, 20, ("base", "sft", "teacher", "another"))
    found = jsonl.read_json("reports/metrics.json")
    assert list(found) == ["rows", "base", "sft", "teacher", "another"]
    assert score.student(found) == "sft"
    assert "another " in score.table(found) and "another word" in score.table(found)
    for name in ("slices", "pairs", "marks"):
        assert "another" in Path(f"reports/tables/{name}.csv").read_text()
    page = pages.build(t)
    assert "--another: #123456;" in page and "--another: #abcdef;" in page
    assert '<i style="background: var(--another)"></i>another label' in page
    assert re.search(r"<td>another label\s+<td>before", page)
    drawn = data(page, "charts")
    labels = ["before", "after", "teacher", "another label"]
    assert list(drawn["colours"]) == labels
    assert drawn["colours"]["another label"] == "var(--another)"
    for chart in ("all", "length", "tokens"):
        assert list(dict.fromkeys(row["model"] for row in drawn["rows"][chart])) == labels


@pytest.mark.slow
def test_the_page_in_chromium(project: Project, browser: Any) -> None:
    from playwright.sync_api import expect

    path = project.write("reports/report.html", pages.build(scored(project, 60)))
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme)
        asked: list[str] = []
        faults: list[str] = []
        page.on("request", lambda request, asked=asked: asked.append(request.url))
        page.on("pageerror", lambda error, faults=faults: faults.append(str(error)))
        page.on("console", lambda said, faults=faults: faults.append(said.text))  # of Vega, too
        page.goto(path.as_uri())
        expect(page.locator("body")).to_have_attribute("data-drawn", "7")
        assert page.locator(".chart svg").count() == 7
        assert all(
            page.locator(".chart svg").nth(i).bounding_box()["height"] > 60 for i in range(7)
        )
        assert page.locator("main img").count() == 0 and page.locator("script").count() == 4
        expect(page.locator("#rows article")).to_have_count(4)  # all that were broken
        page.click("[data-group=fixed]")
        expect(page.locator("#rows")).to_contain_text("<img src=x onerror=alert(1)>")
        assert page.locator("#rows mark").count() > 0
        page.fill("#search", "word7 第7行")
        expect(page.locator("#rows article")).to_have_count(1)
        expect(page.locator("#count")).to_contain_text("Rows: 1.")
        page.fill("#search", "no such row")
        expect(page.locator("#rows article")).to_have_count(0)
        page.fill("#search", "")
        page.click("#more")
        expect(page.locator("#rows article")).to_have_count(10)
        for width in (320, 390, 1280):  # nothing sticks out
            page.set_viewport_size({"width": width, "height": 800})
            page.wait_for_timeout(200)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        marks = page.locator("[data-chart=all] svg .mark-symbol path")
        colours = [marks.nth(i).get_attribute("fill") for i in range(marks.count())]
        assert colours == ["var(--base)", "var(--sft)", "var(--teacher)"]
        assert (page.title(), asked, faults) == ("toy · Potstill", [path.as_uri()], [])
        page.close()


HIDDEN = "pay\u202e001\u202c now\u2028and\u200b\u200bthen"
SEEN = "payU+202E001U+202C nowU+2028andU+200B ×2then"


@pytest.mark.slow
def test_the_page_of_rows_without_a_teacher(project: Project, browser: Any) -> None:
    from playwright.sync_api import expect

    built = pages.build(scored(project, 60, models=("base", "sft")))
    page, faults = browser.new_page(), list[str]()
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(project.write("reports/report.html", built).as_uri())
    expect(page.locator("body")).to_have_attribute("data-drawn", "7")
    assert page.locator(".chart svg").count() == 7 and not faults
    assert "dashed line" not in built


@pytest.mark.slow
def test_a_phone_shows_verdicts_first_and_no_text_hides_anything(
    project: Project, browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from playwright.sync_api import expect

    text = pages.build(scored(project, 60))
    found = data(text, "data")
    found["rows"] = [row for row in found["rows"] if row["group"] == "broken"][:3]
    for row, input, answer in zip(
        found["rows"],
        ("x" * 30_000, HIDDEN, "plain"),
        ("\n" * 40, HIDDEN, f"{'很长 ' * 10_000}end"),
        strict=True,
    ):
        row |= {"input": {"text": input}, "slice": HIDDEN}
        row["answers"]["sft"] |= {"text": answer, "why": [f"excludes: {HIDDEN}"]}
        del row["answers"]["teacher"]
    dumped = json.dumps(found).replace("<", "\\u003c")
    text = re.sub(r'(id="data">).*?(</script>)', lambda m: m[1] + dumped + m[2], text, flags=re.S)
    monkeypatch.setattr("potstill.core.project.ROOT", project.dir)
    files = {
        "report": project.write("reports/report.html", text),
        "index": project.write("reports/index.html", pages.index()),
    }
    for width in (390, 1280):
        for scheme in ("light", "dark"):
            size = {"width": width, "height": 844}
            page = browser.new_page(color_scheme=scheme, viewport=size)
            page.goto(files["report"].as_uri())
            expect(page.locator("body")).to_have_attribute("data-drawn", "7")
            page.locator("summary").first.click()
            page.screenshot(path=tmp_path / f"report-{width}-{scheme}.png", full_page=True)
            assert page.evaluate("document.documentElement.scrollWidth") == width
            for table, verdicts in (
                ("#pairs", ["worse", "worse", "better"]),
                ("#hops", ["passed", "failed", "passed"]),
            ):
                cells = page.locator(f"{table} tbody td:first-child")
                expect(cells).to_have_text(verdicts)
                for box in (cells.nth(i).bounding_box() for i in range(len(verdicts))):
                    assert box["x"] >= 0 and box["x"] + box["width"] <= width - 16
                shades = page.locator(table).evaluate("it => getComputedStyle(it).backgroundImage")
                assert shades.count("gradient") == 4  # the hint that more is beside it

            rows = page.locator("#rows article")
            after = rows.locator(".answers > div:has(.why)")
            for i in range(3):
                why, answer = (after.nth(i).locator(it).bounding_box() for it in (".why", ".text"))
                assert why["y"] + why["height"] <= answer["y"] and answer["height"] < 700
            expect(after.nth(0).locator(".text")).to_have_text("40 blank lines")
            expect(after.nth(1).locator(".text")).to_have_text(SEEN)
            expect(after.nth(1).locator(".why")).to_have_text(f"excludes: {SEEN}")
            expect(rows.nth(1).locator("> .text")).to_have_text(SEEN)
            expect(rows.nth(1).locator(".about")).to_contain_text(SEEN)
            for place, more, whole in (
                (rows.nth(0).locator("> .text"), "29,400", 30_000),
                (after.nth(2).locator(".text"), "29,403", 30_003),
            ):
                expect(place.locator("button")).to_have_text(f"{more} more characters")
                place.locator("button").click()
                assert len(place.text_content()) == whole

            page.goto(files["index"].as_uri())
            page.screenshot(path=tmp_path / f"index-{width}-{scheme}.png", full_page=True)
            assert page.evaluate("document.documentElement.scrollWidth") == width
            box = page.locator("tbody td:nth-child(2)").bounding_box()
            assert box["x"] + box["width"] <= width - 16
            page.close()


@pytest.mark.slow
def test_ten_thousand_rows_open_at_once(project: Project, browser: Any) -> None:
    t = scored(project, 10_000)
    start = time.monotonic()
    page_text = pages.build(t)
    assert time.monotonic() - start < 10
    assert len(page_text.encode()) <= 2_000_000
    path, page = project.write("reports/report.html", page_text), browser.new_page()
    took: list[float] = []
    while len(took) < 5 and min(took, default=2) >= 2:  # other work may be in the way
        start = time.monotonic()
        page.goto(path.as_uri())
        page.wait_for_selector("[data-drawn]")
        took.append(time.monotonic() - start)
    assert min(took) < 2
    page.fill("#search", "word9")
    page.wait_for_function("document.querySelectorAll('#rows article').length > 0")
