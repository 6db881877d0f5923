"""5-predictions/, 5-parity/, 5-judge/, the training's log → reports/: metrics.json, cost.json and
tables/, which compare the models, draw the loss curves and judge the fit.

metrics.json:      {"rows": 400, "base": {"accuracy": 0.0, "low": 0.0, "high": 0.0095, "right": 0,
                   "wrong": 400, …}, "sft": {…}, "teacher": {…}}; where models has dpo also
                   "dpo": {…} and "ship": {"ship": "dpo", "why": "…", "valid": {…}, "test": {…}},
                   and likewise for grpo and gkd
cost.json:         {"answers": 4494, "kept_rows": 3802, "prompt_tokens": …, "spent": null, …}
tables/slices.csv: kind,name,model,rows,right,share,low,high: keys, labels, lengths and slices
tables/pairs.csv:  model,against,rows,fixed,broken,both,neither,p,smallest_difference
tables/confusion.csv: key,model,expected,answer,rows: where answers are labels, how often each is
                   taken for each
tables/hops.csv:   hop,rows,differ,flips,p,passed: what changed where a model should stay the same
tables/marks.csv:  id,slice,base,sft,teacher: 1 right, 0 wrong, empty unscored; for `make gate`
tables/cascade.csv: slice,who,rows,right,share,…: the student with the teacher behind it, where a
                   teacher answered (potstill/evaluation/cascade.py)
tables/judge.json: {"pairs": [{"model": "sft", "against": "teacher", "rows": 400, "wins": 80, …}]}
tables/fit.json:   {"verdict": "well fitted", "advice": "…"}

Where `seeds` names several, metrics.json also has "seeds": {"count": 3, "mean": 0.96, "low": …,
"high": …}, marks.csv a column for each further student, such as sft@43, and there is
tables/seeds.csv: seed,rows,right,share,low,high: each student, and their mean
"""

from potstill.core import jsonl, params, stage
from potstill.core.models import aligned
from potstill.evaluation import cascade, choose, compare, judge, loss_curves, said, score, seeds
from potstill.evaluation.statistics import count
from potstill.inference import predictions
from potstill.task import settings


def main() -> None:
    named = ("teacher.price_in", "teacher.price_out", "teacher.price_cached")
    p = params.load("models", *named)
    t = settings.load()
    tests, answers = predictions.tests(t), score.predictions(t)
    marks = score.marked(t, tests, answers)
    again, parity = score.repeated(t), jsonl.read_json(t.data / "5-parity/report.json")
    found, students = score.metrics(t, tests, marks), seeds.students(t, tests, marks["sft"])
    if aligned(p.models) and aligned(answers):
        found["ship"] = choose.on_tests(t, tests, answers)
    bought, kept = score.bought(t), len(jsonl.read_some(t.data / "3-kept.jsonl"))
    prices = p.teacher.price_in, p.teacher.price_out, p.teacher.price_cached
    cost = score.cost(bought, answers.get("teacher", []), kept, *prices)
    tables = {
        "slices": compare.slices(t, tests, marks),
        "pairs": compare.pairs(t, tests, marks),
        "marks": compare.states(tests, marks | seeds.columns(students)),
        "hops": compare.hops(t, tests, marks, answers | again, parity),
    }
    if "teacher" in answers:
        student = score.student(found)
        tables["cascade"] = cascade.table(t, tests, answers, marks, student, p.teacher)
    if students:
        tables["seeds"] = seeds.table(t, tests, students)
        found["seeds"] = seeds.metrics(tables["seeds"])
    if confusion := compare.confusion(t, tests, marks):
        tables["confusion"] = confusion
    folder = jsonl.fresh_folder(t.reports / "tables")
    log = jsonl.read_jsonl(t.models / "sft/adapter/logging.jsonl", ("step",))
    fit = loss_curves.write(folder, t.name, log)
    for name, table in tables.items():
        compare.write_csv(folder / f"{name}.csv", table)
    jsonl.write_json(folder / "judge.json", {"pairs": judge.table(t)})
    jsonl.write_json(t.reports / "metrics.json", found)
    jsonl.write_json(t.reports / "cost.json", cost)
    bought_of = f"{count(len(bought), 'answer')} of the teacher"
    print(f"score: {bought_of}, {kept:,} kept, {count(len(tests), 'test row')}")
    print(*said.lines(found, tables, cost, fit), sep="\n")


if __name__ == "__main__":
    stage.run(main)
