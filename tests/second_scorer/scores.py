"""The numbers of a task's reports, computed a second time from docs/evaluation.md and the files of
data/, and held against the files of reports/."""

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import combinations, pairwise
from operator import mul
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml
from sacrebleu.metrics import BLEU, CHRF

from tests.second_scorer import checks
from tests.second_scorer.checks import Row, Verdicts, right
from tests.second_scorer.statistics import (
    ALPHA,
    fisher,
    mcnemar,
    over_seeds,
    rouge_l,
    smallest_difference,
    wilson,
)

WHOLE = "answer"  # the place of an answer that is no object
MODELS = ("base", "examples", "sft", "dpo", "grpo", "gkd", "teacher")
TOKENS = ("prompt_tokens", "completion_tokens")
HOPS = {  # the model, and the predictions that should be the same; the floor comes first
    "base, predicted twice": ("base", "5-predictions/examples/again.jsonl"),
    "adapter on its base to merged": ("sft", "5-parity/sft.jsonl"),
    "dpo's adapter on sft to merged": ("dpo", "5-parity/dpo.jsonl"),
    "grpo's adapter on sft to merged": ("grpo", "5-parity/grpo.jsonl"),
    "gkd's adapter on sft to merged": ("gkd", "5-parity/gkd.jsonl"),
}


def read(path: Path) -> list[Row]:
    """The rows of a file of JSON lines; [] where there is none."""
    lines = path.read_text("utf-8").split("\n") if path.exists() else []
    return [json.loads(line) for line in lines if line.strip()]


def number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def digits(value: float, count: int) -> float:
    return float(f"{value:.{count}g}")


def mean(values: Iterable[float]) -> float:
    return round(fmean(values), 4)


class Second:
    """A task's numbers. `folder` is the task's; `differences` gives where its reports say another
    thing."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data, self.reports = folder, folder / "data", folder / "reports"
        self.config: Row = yaml.safe_load((folder / "task.yaml").read_text("utf-8"))
        self.params: Row = yaml.safe_load((folder / "params.yaml").read_text("utf-8"))
        self.task = checks.Task(folder, self.config)
        self.tests = read(self.data / "4-test.jsonl")
        predictions = {m: read(self.data / f"5-predictions/{m}/test.jsonl") for m in MODELS}
        self.answers = {model: rows for model, rows in predictions.items() if rows}
        self.verdicts = {model: self.judged(rows) for model, rows in self.answers.items()}
        self.marks = {model: [right(of) for of in every] for model, every in self.verdicts.items()}
        name = self.config.get("headline_slice")
        self.slices: dict[str, list[int]] = {name or "all": []}
        for index, test in enumerate(self.tests):
            self.slices.setdefault(test["slice"] if name else "all", []).append(index)
        self.first, self.headline = next(iter(self.slices.items()))
        self.students: dict[int, list[bool | None]] = {}  # of the further seeds
        for seed in self.params["seeds"][1:]:
            answers = read(self.data / f"5-seeds/{seed}.jsonl")
            self.students[seed] = [right(of) for of in self.judged(answers)]

    def judged(self, answers: list[Row]) -> list[Verdicts]:
        assert [row["id"] for row in answers] == [test["id"] for test in self.tests]
        pairs = zip(self.tests, answers, strict=True)
        return [self.task.verdicts(test, row["answer"]) for test, row in pairs]

    # ---- metrics.json

    def share(self) -> str:
        """The name of the share of right rows."""
        if not any("exact_match" in check for check in self.config["checks"]):
            return "pass_rate"
        if any(test["slice"] == "held_out" for test in self.tests):  # the teacher's own answers
            return "agreement"
        labels = any(test.get("expected") is not None for test in self.tests)
        return "accuracy" if labels else "pass_rate"

    def metrics(self) -> Row:
        found: Row = {"rows": len(self.headline)}
        for model in self.answers:
            found[model] = self.summary(model, self.headline)
            if self.labels:
                scores = {place: self.macro_f1(model, place) for place in self.labels}
                found[model]["macro_f1"] = scores
            for name, rows in self.slices.items():
                if name != self.first:
                    found[model][name] = {"rows": len(rows), **self.summary(model, rows)}
        if self.students:
            *_, line = self.seed_table()
            ends = {"low": line["low"], "high": line["high"]}
            found["seeds"] = {"count": len(self.students) + 1, "mean": line["share"], **ends}
        if self.other in self.answers:
            tests = [self.tests[i] for i in self.headline]
            two = ([self.answers[model][i] for i in self.headline] for model in ("sft", self.other))
            found["ship"] = {**self.choice(), "test": self.comparison(tests, *two)}
        return found

    def summary(self, model: str, rows: list[int]) -> Row:
        marks = [self.marks[model][i] for i in rows]
        answers = [self.answers[model][i] for i in rows]
        right, unscored = marks.count(True), marks.count(None)
        low, high = wilson(right, len(rows))
        found: Row = {self.share(): round(right / len(rows), 4), "low": low, "high": high}
        found |= {"right": right, "wrong": len(rows) - right - unscored, "unscored": unscored}
        found |= {name: mean(answer[name] or 0 for answer in answers) for name in TOKENS}
        listed = [name for name, _ in self.task.checks]
        texts = [answer["answer"] for answer in answers]
        if "json_schema" in listed:
            found["valid_json"] = mean(self.task.parse(text)[0] for text in texts)
            first = listed.index("json_schema")
            found["schema_valid"] = mean(self.verdicts[model][i][first][1] is True for i in rows)
            bare = [(i, checks.bare(self.task, text)) for i, text in zip(rows, texts, strict=True)]
            if wrapped := [(i, text) for i, text in bare if text is not None]:
                marks = [checks.right(self.task.verdicts(self.tests[i], t)) for i, t in wrapped]
                found["wrapped"] = {"rows": len(wrapped), "right": marks.count(True)}
        if "length_within" in listed:
            off = [self.off(self.tests[i], text) for i, text in zip(rows, texts, strict=True)]
            found["within"] = {str(n): mean(value <= n for value in off) for n in (2, 5, 10)}
        if keys := self.keys(model, rows):
            found["keys"] = {key: mean(right) for key, right in keys.items()}
        expected = [self.tests[i].get("expected") for i in rows]
        pairs = [(a or "", e) for a, e in zip(texts, expected, strict=True) if isinstance(e, str)]
        if pairs and WHOLE not in self.labels:
            found["overlap"] = overlap(*map(list, zip(*pairs, strict=True)))
        return found

    def off(self, test: Row, text: str | None) -> float:
        """How far an answer is from the length asked for; infinitely where one cannot say."""
        readable, answer = self.task.parse(text)
        options = next(given for name, given in self.task.checks if name == "length_within")
        about = self.task.texts(answer, options["field"]) if "field" in options else [text or ""]
        if not readable or not all(isinstance(one, str) for one in about):
            return math.inf
        names = [options["input"]] if "input" in options else self.task.input
        asked = "\n".join(test[name] for name in names)
        off = [checks.distance(one, asked) for one in about]
        return sum(math.inf if one is None else one for one in off)

    def keys(self, model: str, rows: list[int]) -> dict[str, list[bool]]:
        """Of each expected key whether it is right, in the rows that expect it."""
        found: dict[str, list[bool]] = {}
        for i in rows:
            for key, value in self.expected(i).items():
                if isinstance(self.tests[i]["expected"], dict):
                    how = checks.how(self.task.compared.get(key, self.task.compared.get("", {})))
                    right = checks.same(self.said(model, i, key), value, *how)
                    found.setdefault(key, []).append(right)
        return found

    def expected(self, i: int) -> Row:
        """What a row expects: as a whole, or at each key and at each path that is compared."""
        whole = self.tests[i].get("expected")
        if not isinstance(whole, dict):
            return {} if whole is None else {WHOLE: whole}
        paths = {name: checks.look(whole, self.task.way(name)) for name in self.task.compared}
        there = {name: value for name, value in paths.items() if value is not checks.NOTHING}
        return whole | {name: there[name] for name in there if name and name not in whole}

    def said(self, model: str, i: int, place: str) -> Any:
        """What an answer has where something is expected."""
        whole = self.tests[i]["expected"]
        answer = self.task.parse(self.answers[model][i]["answer"])[1]
        if not isinstance(whole, dict):
            return answer
        return checks.look(answer, [place] if place in whole else self.task.way(place))

    # ---- labels

    @cached_property
    def labels(self) -> dict[str, dict[Any, str]]:
        """At each place that has labels their names, by what makes values one label."""
        values: dict[str, list[Any]] = {}
        for i in self.headline:
            for place, value in self.expected(i).items():
                values.setdefault(place, []).append(value)
        found = {}
        for place, every in values.items():
            names = {label(value): str(name(value)) for value in reversed(every)}
            once = [one for one in names if list(map(label, every)).count(one) == 1]
            if None in names or not 2 <= len(names) <= 30 or len(every) < 3 * len(names):
                continue
            if len(once) <= len(names) / 4:
                found[place] = names
        return found

    def confused(self, model: str, place: str) -> Counter[tuple[str, str]]:
        """The rows by the label expected and the one answered, "" for none of them."""
        names, found = self.labels[place], Counter[tuple[str, str]]()
        for i in self.headline:
            if place in self.expected(i):
                said = names.get(label(self.said(model, i, place)), "")
                found[names[label(self.expected(i)[place])], said] += 1
        return found

    def macro_f1(self, model: str, place: str) -> float:
        found, scores = self.confused(model, place), []
        for one in self.labels[place].values():
            hits = found[one, one]
            precision = hits / max(1, sum(n for (_, said), n in found.items() if said == one))
            recall = hits / sum(n for (wanted, _), n in found.items() if wanted == one)
            scores.append(2 * precision * recall / (precision + recall) if hits else 0.0)
        return mean(scores)

    def confusion_table(self) -> Iterator[Row]:
        for place in self.labels:
            for model in self.marks:
                for (wanted, said), rows in self.confused(model, place).items():
                    given = {"key": place, "model": model, "expected": wanted}
                    yield {**given, "answer": said, "rows": rows}

    # ---- reports/tables

    def slice_table(self) -> Iterator[Row]:
        parts = [("all", self.first, self.headline)]
        parts += [*self.labelled(), *self.lengths()]
        if len(self.slices) > 1:
            parts += [("slice", name, rows) for name, rows in self.slices.items()]
        for model, marks in self.marks.items():
            for kind, name, rows in parts:
                yield share_row(kind, name, model, [marks[i] is True for i in rows])
            for key, values in self.keys(model, self.headline).items():
                yield share_row("key", key, model, values)

    def labelled(self) -> Iterator[tuple[str, str, list[int]]]:
        objects = any(isinstance(self.tests[i].get("expected"), dict) for i in self.headline)
        expected = {i: self.expected(i) for i in self.headline}
        for place, names in self.labels.items():
            for one, named in names.items():
                having = [i for i in self.headline if place in expected[i]]
                rows = [i for i in having if label(expected[i][place]) == one]
                yield "label", f"{place} {named}" if objects else named, rows

    def lengths(self) -> Iterator[tuple[str, str, list[int]]]:
        sizes = {i: sum(len(self.tests[i][n]) for n in self.task.input) for i in self.headline}
        ordered, last = sorted(sizes.values()), len(sizes) - 1
        bounds = [ordered[0] - 1, ordered[last // 3], ordered[2 * last // 3], ordered[last]]
        for below, high in pairwise(bounds):
            rows = [i for i in self.headline if below < sizes[i] <= high]
            low = below + 1
            span = str(high) if low == high else f"{low} to {high}"
            if rows:
                yield "length", f"{span} character{'' if high == 1 else 's'}", rows

    def pair_table(self) -> Iterator[Row]:
        order = [model for model in MODELS if model in self.marks]
        for one, other in combinations(order, 2):
            model, against = (one, other) if other == "teacher" else (other, one)
            now, then = (
                [self.marks[m][i] is True for i in self.headline] for m in (model, against)
            )
            seen, rows = Counter(zip(now, then, strict=True)), len(now)
            fixed, broken = seen[True, False], seen[False, True]
            counts = {"fixed": fixed, "broken": broken, "both": seen[True, True]}
            smallest = smallest_difference(fixed + broken, rows)
            yield {
                **{"model": model, "against": against, "rows": rows},
                **{**counts, "neither": seen[False, False]},
                **{"p": digits(mcnemar(fixed, broken), 3)},
                "smallest_difference": "" if smallest is None else smallest,
            }

    def mark_table(self) -> Iterator[Row]:
        for i, test in enumerate(self.tests):
            every = self.marks | {f"sft@{seed}": marks for seed, marks in self.students.items()}
            marks = {model: marks[i] for model, marks in every.items()}
            says = {model: "" if mark is None else int(mark) for model, mark in marks.items()}
            yield {"id": test["id"], "slice": test["slice"], **says}

    def hop_table(self) -> Iterator[Row]:
        floor: int | None = None
        for hop, (model, path) in HOPS.items():
            if not (again := read(self.data / path)):
                continue
            pairs = zip(self.answers[model], again, strict=True)
            differ = sum(one["answer"] != other["answer"] for one, other in pairs)
            marks = zip(self.marks[model], map(right, self.judged(again)), strict=True)
            flips = sum((one is True) != (other is True) for one, other in marks)
            floor = flips if floor is None else floor
            p, rows = fisher(flips, floor, len(again)), len(again)
            passed = int(flips <= floor or p >= ALPHA)
            yield hop_row(hop, rows, differ, flips, digits(p, 3), passed)
        tokens: Row = json.loads((self.data / "5-parity/report.json").read_text("utf-8"))
        others = len(tokens["other_tokens"])
        hop = "training rows: other tokens where served"
        yield hop_row(hop, tokens["lessons"], others, others, 1.0, int(not others))

    def cascade_table(self) -> Iterator[Row]:
        """The student that ships with the teacher behind it: sent on is what was cut off or fails
        a check that needs no expected answer."""
        student, teacher = self.choice()["ship"], self.answers["teacher"]
        bare = [{name: test[name] for name in self.task.input} for test in self.tests]
        sent = [
            row["finish_reason"] not in ("stop", None)
            or any(passed is False for _, passed in self.task.verdicts(test, row["answer"]))
            for test, row in zip(bare, self.answers[student], strict=True)
        ]
        alone = {"student": student, "teacher": "teacher"}
        marks = {who: [mark is True for mark in self.marks[m]] for who, m in alone.items()}
        marks["cascade"] = [marks["teacher" if on else "student"][i] for i, on in enumerate(sent)]
        prices = [self.params["teacher"][name] for name in ("price_in", "price_out")]
        for name, rows in self.slices.items():
            for who in ("student", "cascade", "teacher"):
                on = [i for i in rows if who == "teacher" or who == "cascade" and sent[i]]
                right, count = [marks[who][i] for i in rows], len(rows)
                line: Row = {"slice": name, "who": who, "rows": count, "right": sum(right)}
                for start, many in (("", sum(right)), ("sent_", len(on))):
                    low, high = wilson(many, count)
                    line |= {"sent": many} if start else {}
                    line |= {f"{start}share": round(many / count, 4)}
                    if start and who != "cascade":
                        low = high = float(who == "teacher")
                    line |= {f"{start}low": low, f"{start}high": high}
                for key in TOKENS:
                    line[key] = round(1000 * sum(teacher[i][key] or 0 for i in on) / count)
                line |= dict.fromkeys(("cost", "cost_low", "cost_high"), "")
                if None not in prices:
                    used = [[teacher[i][key] or 0 for key in TOKENS] for i in on or rows]
                    each = sum(sum(map(mul, one, prices)) for one in used) / len(used) / 1e3
                    shares = (len(on) / count, line["sent_low"], line["sent_high"])
                    costs = [digits(round(each * share, 12), 4) for share in shares]
                    line |= dict(zip(("cost", "cost_low", "cost_high"), costs, strict=True))
                for other in alone:
                    before = [marks[other][i] for i in rows]
                    seen = Counter(zip(before, right, strict=True))
                    line[f"p_{other}"] = digits(mcnemar(seen[False, True], seen[True, False]), 3)
                yield line

    def seed_table(self) -> Iterator[Row]:
        every = {self.params["seed"]: self.marks["sft"], **self.students}
        right = {seed: [marks[i] is True for i in self.headline] for seed, marks in every.items()}
        for seed, one in right.items():
            line = share_row("", "", "", one)
            yield {"seed": seed} | {key: line[key] for key in list(line)[3:]}
        share, low, high = over_seeds(list(right.values()))
        count = round(fmean(sum(one) for one in right.values()), 4)
        rows = {"rows": len(self.headline), "right": count}
        yield {"seed": "mean", **rows, "share": share, "low": low, "high": high}

    def losses(self, key: str) -> Iterator[Row]:
        for row in read(self.folder / "models/sft/adapter/logging.jsonl"):
            if key in row:
                yield {"step": row["step"], "loss": digits(row[key], 6)}

    # ---- cost.json, the funnel and the choice

    def cost(self) -> Row:
        files = ("2-answers", "1-expand/calls", "4-pairs/rejected", "5-predictions/teacher/test")
        paths = [f"{name}.jsonl" for name in files]
        paid = [row for path in paths for row in read(self.data / path) if row["error"] is None]
        once = list({row["key"]: row for row in paid}.values())
        tests = [row for row in self.answers.get("teacher", []) if row["error"] is None] or once
        kept = len(read(self.data / "3-kept.jsonl"))
        prices = [self.params["teacher"][name] for name in ("price_in", "price_out")]

        def tokens(rows: list[Row]) -> list[int]:
            return [sum(row[name] or 0 for row in rows) for name in TOKENS]

        counts = dict(zip(TOKENS, tokens(once), strict=True))
        found: Row = {"answers": len(once), "kept_rows": kept, **counts}
        money = ("spent", "per_kept_row", "per_request", "break_even_requests")
        if None in prices or any(row[name] is None for row in once for name in TOKENS):
            return found | dict.fromkeys(money)
        tested = sum(map(mul, tokens(tests), prices)) / 1e6
        spent = sum(map(mul, tokens(once), prices)) / 1e6
        for row in once:  # of what was asked in a batch a part was paid only
            unpaid = 1 - row.get("price_share", 1)
            spent -= unpaid * sum(map(mul, tokens([row]), prices)) / 1e6 if unpaid else 0
        each = tested / len(tests)
        requests = math.ceil(spent / each) if spent and each else None
        shown = [digits(value, 4) for value in (spent, spent / kept, each)]
        return found | dict(zip(money, [*shown, requests], strict=True))

    def funnel(self) -> Row:
        dropped = read(self.data / "3-dropped.jsonl")
        return {
            "inputs": len(read(self.data / "1-inputs.jsonl")),
            "in": len(read(self.data / "2-answers.jsonl")),
            "kept": len(read(self.data / "3-kept.jsonl")),
            "dropped": dict(Counter(row["reason"].split(":")[0] for row in dropped)),
        }

    def filtered(self) -> Iterator[str]:
        """What is wrong with 3-kept and 3-dropped: each answer is in one of them, and what it says
        of the checks is so."""
        inputs = {row["id"]: row for row in read(self.data / "1-inputs.jsonl")}
        answers = {(row["id"], row["sample"]): row for row in read(self.data / "2-answers.jsonl")}
        kept, dropped = read(self.data / "3-kept.jsonl"), read(self.data / "3-dropped.jsonl")
        every = Counter((row["id"], row["sample"]) for row in [*kept, *dropped])
        for place in answers.keys() | every.keys():
            if every[place] != 1 or place not in answers:
                yield f"answer {place} is {every[place]} times in 3-kept and 3-dropped"
        judged = {row["id"] for row in read(self.data / "own/reviews.jsonl")}
        listed = {name for name, _ in self.task.checks} | {"json", "text"}
        for row in [*kept, *dropped]:
            place = (row["id"], row["sample"])
            said = row["reason"].split(":")[0] if "reason" in row else "kept"
            checked = said in {*listed, "kept", "spare"} and row["id"] not in judged
            if place not in answers or not checked:
                continue
            text = answers[place]["answer"]
            verdicts = self.task.verdicts(inputs[row["id"]], text, train=True)
            found = next((name for name, verdict in verdicts if verdict is False), "kept")
            if not self.task.parse(text)[0]:
                found = "json" if self.task.json else "text"
            if found != ("kept" if said == "spare" else said):
                yield f"answer {place} is {said} in 3-kept and 3-dropped, {found} here"

    @property
    def other(self) -> str:
        """The student beside sft, "" without one."""
        return "".join(set(self.params["models"]) - {"base", "sft"})

    def comparison(self, rows: list[Row], sft: list[Row], aligned: list[Row]) -> Row:
        """Two students' answers to the same rows."""
        marks, failed, other = [], [], self.other
        for answers in (sft, aligned):
            pairs = zip(rows, answers, strict=True)
            every = [self.task.verdicts(row, answer["answer"]) for row, answer in pairs]
            marks.append([right(verdicts) is True for verdicts in every])
            fails = ({name for name, passed in verdicts if passed is False} for verdicts in every)
            failed.append(Counter(name for names in fails for name in names))
        seen = Counter(zip(*marks, strict=True))
        alone = {"only_sft": seen[True, False], f"only_{other}": seen[False, True]}
        names = sorted(failed[0].keys() | failed[1].keys())
        return {
            **{"rows": len(rows), "sft": sum(marks[0]), other: sum(marks[1]), **alone},
            "p": digits(mcnemar(*alone.values()), 3),
            "checks": {n: {"sft": failed[0][n], other: failed[1][n]} for n in names},
            "phrase": self.phrase(rows, sft, aligned),
        }

    def phrase(self, rows: list[Row], sft: list[Row], aligned: list[Row]) -> Row | None:
        """The six characters that the aligned student says most beyond the two others."""
        wanted = [row["expected"] for row in rows if row.get("expected") is not None]
        said = {"kept": [x if isinstance(x, str) else json.dumps(x) for x in wanted]}
        said |= {"sft": [one["answer"] or "" for one in sft]}
        said |= {self.other: [one["answer"] or "" for one in aligned]}
        share = {who: Counter[str]() for who in said}
        for who, answers in said.items():
            for answer in answers:
                texts = list(strings(answer))
                six = {text[at : at + 6] for text in texts for at in range(len(text) - 5)}
                share[who].update(six)
        parts = {who: {six: n / len(said[who]) for six, n in share[who].items()} for who in said}

        def beyond(six: str) -> float:
            return parts[self.other][six] - max(parts[who].get(six, 0) for who in ("kept", "sft"))

        if not parts[self.other]:
            return None
        text = min(parts[self.other], key=lambda six: (-beyond(six), six))
        return {"text": text, **{who: round(part.get(text, 0), 4) for who, part in parts.items()}}

    def choice(self) -> Row:
        """6-choice.json, without the reason."""
        other = self.other
        if other not in self.answers:
            return {"ship": "sft", "valid": None}
        kept = {row["id"]: row for row in read(self.data / "3-kept.jsonl")}
        valid = [row["id"] for row in read(self.data / "4-valid.jsonl")]
        rows = [kept[id] | {"expected": kept[id]["output"]} for id in valid if id in kept]
        two = []
        for model in ("sft", other):
            answers = read(self.data / f"5-predictions/{model}/valid.jsonl")
            assert [answer["id"] for answer in answers] == valid
            two.append([answer for answer in answers if answer["id"] in kept])
        found = self.comparison(rows, *two)
        worse = any(count[other] > count["sft"] for count in found["checks"].values())
        wins = found[other] > found["sft"] and found["p"] < ALPHA and not worse
        said = found["phrase"]
        wins = wins and not (said and said[other] - max(said["sft"], said["kept"]) > 0.25)
        return {"ship": other if wins else "sft", "valid": found}

    # ---- both sides

    def gold(self) -> Iterator[str]:
        """Where the test rows are not those of gold.jsonl, if it has any."""
        gold = [{"slice": "gold", **row} for row in read(self.data / "gold.jsonl")]
        names = ["slice", *self.task.input]
        said = [[row.get("gold"), *(row[name] for name in names)] for row in gold]
        found = [[row.get("expected"), *(row[name] for name in names)] for row in self.tests]
        if gold and found != said:
            yield "data/4-test.jsonl has other rows than data/gold.jsonl"

    @cached_property
    def computed(self) -> Row:
        """What each file should hold; of a table the rows by the columns that name them."""
        tables: dict[str, Iterable[Row]] = {
            "slices": self.slice_table(),
            "pairs": self.pair_table(),
            "marks": self.mark_table(),
            "hops": self.hop_table(),
            **({"cascade": self.cascade_table()} if "teacher" in self.answers else {}),
            **({"seeds": self.seed_table()} if self.students else {}),
            **({"confusion": self.confusion_table()} if self.labels else {}),
            "train_loss": self.losses("loss"),
            "eval_loss": self.losses("eval_loss"),
        }
        return {
            "reports/metrics.json": self.metrics(),
            "reports/cost.json": self.cost(),
            "data/3-funnel.json": self.funnel(),
            "data/6-choice.json": self.choice(),
            **{f"reports/tables/{name}.csv": named(name, rows) for name, rows in tables.items()},
        }

    def differences(self) -> list[str]:
        """Where the files say another thing, a line each."""
        found = [*self.gold(), *self.filtered()]
        for path, ours in self.computed.items():
            text = (self.folder / path).read_text("utf-8")
            if path.endswith(".csv"):
                theirs = named(Path(path).stem, csv.DictReader(io.StringIO(text)))
            else:
                theirs = json.loads(text)
                theirs.pop("stage", None)
                theirs.pop("why", None)
                theirs.get("ship") in MODELS or theirs.get("ship", {}).pop("why", None)
            found += apart(path, ours, theirs)
        return found


def named(table: str, rows: Iterable[Row]) -> dict[str, Row]:
    """The rows of a table by the columns that name them, numbers as such."""
    columns = {"slices": 3, "pairs": 2, "cascade": 2, "confusion": 4}.get(table, 1)
    found: dict[str, Row] = {}
    for row in rows:
        name = " ".join(str(value) for value in list(row.values())[:columns])
        assert name not in found, f"{table}.csv has {name} twice"
        found[name] = {key: number(str(value)) for key, value in row.items()}
    return found


def strings(answer: str) -> Iterator[str]:
    """The texts of an answer, without white space: those in its JSON, or all of it."""
    try:
        todo = [json.loads(answer)]
    except ValueError:
        todo = [answer]
    for value in todo:
        if isinstance(value, str):
            yield "".join(value.split())
        elif isinstance(value, dict):
            todo.extend(value.values())
        elif isinstance(value, list):
            todo.extend(value)


def label(value: Any) -> Any:
    """What makes values one label; None where a value is none."""
    if isinstance(value, str):
        text = value.strip()
        short = len(text) <= 60 and len(text.splitlines()) < 2
        return ("text", checks.squeeze(text)) if short else None
    if value is None or isinstance(value, bool | int | float):
        return type(value) is bool, value is None, value
    return None


def name(value: Any) -> str:
    """A label as the tables name it."""
    text = value.strip() if isinstance(value, str) else ""
    return text or json.dumps("" if isinstance(value, str) else value)


def share_row(kind: str, name: str, model: str, right: list[bool]) -> Row:
    low, high = wilson(sum(right), len(right))
    counts = {"rows": len(right), "right": sum(right), "share": round(sum(right) / len(right), 4)}
    return {"kind": kind, "name": name, "model": model, **counts, "low": low, "high": high}


def hop_row(hop: str, rows: int, differ: int, flips: int, p: float, passed: int) -> Row:
    return {"hop": hop, "rows": rows, "differ": differ, "flips": flips, "p": p, "passed": passed}


def overlap(answers: list[str], expected: list[str]) -> dict[str, float]:
    """ROUGE-L as a mean over rows, BLEU and chrF of all rows at once; 0 to 1."""
    return {
        "rouge_l": mean(rouge_l(one, other) for one, other in zip(answers, expected, strict=True)),
        "bleu": round(BLEU(tokenize="char").corpus_score(answers, [expected]).score / 100, 4),
        "chrf": round(CHRF().corpus_score(answers, [expected]).score / 100, 4),
    }


def apart(where: str, ours: Any, theirs: Any) -> list[str]:
    """Where two values differ, a line each."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        lines = []
        for key in [*ours, *(key for key in theirs if key not in ours)]:
            if key in ours and key in theirs:
                lines += apart(f"{where}: {key}", ours[key], theirs[key])
            else:
                lines.append(f"{where}: {key} is {'not there' if key in ours else 'too much'}")
        return lines
    both = isinstance(ours, int | float) and isinstance(theirs, int | float)
    same = math.isclose(ours, theirs, rel_tol=1e-9, abs_tol=1e-12) if both else ours == theirs
    return [] if same else [f"{where} is {theirs}, {ours} here"]
