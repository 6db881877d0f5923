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

from potstill import compare, curves, errors, judge, params, rows, score, ship, task


def main() -> None:
    p = params.load("task", "models", "teacher_price_in", "teacher_price_out")
    t = task.load(p.task)
    tests = t.inputs(t.data / "4-test.jsonl", "slice")
    rows.check_ids(t.data / "4-test.jsonl", tests, t.config["input"])
    predictions = score.predictions(t)
    marks = score.marked(t, tests, predictions)
    found = score.metrics(t, tests, marks)
    tables = {
        "slices": compare.slices(t, tests, marks),
        "pairs": compare.pairs(t, tests, marks),
        "marks": compare.states(tests, marks),
        "hops": compare.hops(
            t,
            tests,
            marks,
            predictions | score.predictions(t, ("again", "adapter")),
            rows.read_json(t.data / "5-parity.json"),
        ),
    }
    if "dpo" in p.models:
        chosen = rows.read_json(t.data / "6-ship.json")
        places = next(iter(score.by_slice(t, tests).values()))
        both = ([some[place] for place in places] for some in (tests, predictions["sft"], predictions["dpo"]))
        found["ship"] = chosen | {"test": ship.compare(t, *both)}
    answers = rows.read_jsonl(t.data / "2-answers.jsonl", ("key", "error", "prompt_tokens", "completion_tokens"))
    for name in (
        "1-calls",
        "4-rejected",
    ):  # of expand and pairs; none where the seeds were enough, or no pairs are wanted
        path = t.data / f"{name}.jsonl"
        if path.stat().st_size:
            answers += rows.read_jsonl(path, ("key", "error", "prompt_tokens", "completion_tokens"))
    kept = len(rows.read_jsonl(t.data / "3-kept.jsonl"))
    cost = score.cost(answers, predictions["teacher"], kept, p.teacher_price_in, p.teacher_price_out)
    train, valid = curves.split(rows.read_jsonl(t.models / "sft" / "adapter" / "logging.jsonl", ("step",)))
    fit = curves.fit(train, valid)
    t.reports.mkdir(parents=True, exist_ok=True)
    for name, curve, title in (("train_loss", train, "Training loss"), ("eval_loss", valid, "Validation loss")):
        curves.write_csv(t.reports / f"{name}.csv", curve)
        curves.draw(t.reports / f"{name}.png", curve, f"{title}, {t.name}")
    for name, table in tables.items():
        compare.write_csv(t.reports / f"{name}.csv", table)
    path = t.data / "5-judge.jsonl"
    judged = judge.table(t, rows.read_jsonl(path, ("row", "verdict")) if path.stat().st_size else [])
    rows.write_json(t.reports / "judge.json", {"pairs": judged})
    rows.write_json(t.reports / "fit.json", fit)
    rows.write_json(t.reports / "metrics.json", found)
    rows.write_json(t.reports / "cost.json", cost)
    print(f"score: {len(answers):,} answers of the teacher, {kept:,} kept rows, {len(tests):,} test rows")
    print(score.table(found))
    print(compare.lines(tables["pairs"]))
    print(compare.hop_lines(tables["hops"]))
    if "ship" in found:
        test = found["ship"]["test"]
        print(f"ship {found['ship']['ship']}: {found['ship']['why']}")
        print(
            f"      the test rows say: right {test['sft']:,} → {test['dpo']:,} of {test['rows']:,}, p = {test['p']:.2g}"
        )
    print(score.cost_line(cost))
    print(f"fit: {fit['verdict']}; {fit['advice']} (advice only: the score decides)")


if __name__ == "__main__":
    errors.run(main)
