"""5-predictions-*.jsonl and the training's log → reports/<task>: metrics.json, cost.json, loss curves, and a verdict on the fit.

metrics.json: {"rows": 400, "base": {"accuracy": 0.0, "right": 0, "wrong": 400, …}, "sft": {…}, "teacher": {…}}; where models has dpo
              also "dpo": {…} and "ship": {"ship": "dpo", "why": "…", "valid": {…}, "test": {"sft": 280, "dpo": 310, "p": 0.001, …}}
cost.json:    {"answers": 4494, "kept_rows": 3802, "prompt_tokens": …, "spent": null, "per_kept_row": null, "break_even_requests": null, …}
"""

import json

from potstill import curves, errors, params, rows, score, ship, task


def main() -> None:
    p = params.load("task", "models", "teacher_price_in", "teacher_price_out")
    t = task.load(p.task)
    tests = t.inputs(t.data / "4-test.jsonl", "slice")
    rows.check_ids(t.data / "4-test.jsonl", tests, t.config["input"])
    needed = ("id", "answer", "prompt_tokens", "completion_tokens")
    models = [*p.models, "teacher"]
    predictions = {model: rows.read_jsonl(t.data / f"5-predictions-{model}.jsonl", needed) for model in models}
    found = score.metrics(t, tests, predictions)
    if "dpo" in p.models:
        chosen = json.loads((t.data / "6-ship.json").read_text(encoding="utf-8"))
        wanted = t.config.get("headline_slice")
        places = [place for place, row in enumerate(tests) if wanted in (None, row["slice"])]
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
    rows.write_json(t.reports / "fit.json", fit)
    rows.write_json(t.reports / "metrics.json", found)
    rows.write_json(t.reports / "cost.json", cost)
    print(f"score: {len(answers):,} answers of the teacher, {kept:,} kept rows, {len(tests):,} test rows")
    print(score.table(found))
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
