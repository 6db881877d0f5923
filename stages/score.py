"""5-predictions-*.jsonl and the training's log → reports/<task>: metrics.json, cost.json, tables that compare the models, loss
curves, and a verdict on the fit.

metrics.json: {"rows": 400, "base": {"accuracy": 0.0, "low": 0.0, "high": 0.0095, "right": 0, "wrong": 400, …}, "sft": {…}, "teacher": {…}}; where models has dpo
              also "dpo": {…} and "ship": {"ship": "dpo", "why": "…", "valid": {…}, "test": {"sft": 280, "dpo": 310, "p": 0.001, …}}
slices.csv:   kind,name,model,rows,right,share,low,high: every key, label, length of the input and slice
pairs.csv:    model,against,rows,fixed,broken,both,neither,p,smallest_difference: every two models
hops.csv:     hop,rows,differ,flips,p,passed: what changed where a model should stay the same
judge.json:   {"pairs": [{"model": "sft", "against": "teacher", "rows": 400, "wins": 80, "losses": 90, "ties": 228, "unscored": 2}]}
marks.csv:    id,slice,base,sft,teacher: 1 right, 0 wrong, empty unscored: what `make gate` compares with the last commit
cost.json:    {"answers": 4494, "kept_rows": 3802, "prompt_tokens": …, "spent": null, "per_kept_row": null, "break_even_requests": null, …}
"""

from potstill import compare, curves, errors, judge, params, predictions, rows, score, ship, task


def main() -> None:
    p = params.load("task", "models", "teacher_price_in", "teacher_price_out")
    t = task.load(p.task)
    tests, answers = predictions.tests(t), score.predictions(t)
    marks = score.marked(t, tests, answers)
    again = score.predictions(t, ("again", "adapter", "adapter-dpo"))
    parity = rows.read_json(t.data / "5-parity.json")
    tables = {
        "slices": compare.slices(t, tests, marks),
        "pairs": compare.pairs(t, tests, marks),
        "marks": compare.states(tests, marks),
        "hops": compare.hops(t, tests, marks, answers | again, parity),
    }
    found = score.metrics(t, tests, marks)
    if "dpo" in p.models:
        found["ship"] = ship.on_tests(t, tests, answers)
    bought, kept = score.bought(t), len(rows.read_jsonl(t.data / "3-kept.jsonl"))
    cost = score.cost(bought, answers["teacher"], kept, p.teacher_price_in, p.teacher_price_out)
    t.reports.mkdir(parents=True, exist_ok=True)
    fit = curves.write(t.reports, t.name, rows.read_jsonl(t.models / "sft" / "adapter" / "logging.jsonl", ("step",)))
    for name, table in tables.items():
        compare.write_csv(t.reports / f"{name}.csv", table)
    judge.write(t)
    rows.write_json(t.reports / "metrics.json", found)
    rows.write_json(t.reports / "cost.json", cost)
    print(f"score: {len(bought):,} answers of the teacher, {kept:,} kept rows, {len(tests):,} test rows")
    print(score.table(found), compare.lines(tables["pairs"]), compare.hop_lines(tables["hops"]), sep="\n")
    if "ship" in found:
        print(ship.lines(found["ship"]))
    print(score.cost_line(cost))
    print(f"fit: {fit['verdict']}; {fit['advice']} (advice only: the score decides)")


if __name__ == "__main__":
    errors.run(main)
