"""5-predictions-*.jsonl and the training's log → reports/<task>: metrics.json, loss curves, and a verdict on the fit.

metrics.json: {"rows": 400, "base": {"accuracy": 0.0, "right": 0, "wrong": 400, …}, "sft": {…}, "teacher": {…}}
"""

from potstill import curves, errors, params, rows, score, task


def main() -> None:
    t = task.load(params.load("task").task)
    tests = rows.read_jsonl(t.data / "4-test.jsonl", ("id", "slice", "expected"))
    needed = ("id", "answer", "prompt_tokens", "completion_tokens")
    predictions = {model: rows.read_jsonl(t.data / f"5-predictions-{model}.jsonl", needed) for model in score.MODELS}
    found = score.metrics(t, tests, predictions)
    train, valid = curves.split(rows.read_jsonl(t.models / "sft" / "adapter" / "logging.jsonl", ("step",)))
    fit = curves.fit(train, valid)
    t.reports.mkdir(parents=True, exist_ok=True)
    for name, curve, title in (("train_loss", train, "Training loss"), ("eval_loss", valid, "Validation loss")):
        curves.write_csv(t.reports / f"{name}.csv", curve)
        curves.draw(t.reports / f"{name}.png", curve, f"{title}, {t.name}")
    rows.write_json(t.reports / "fit.json", fit)
    rows.write_json(t.reports / "metrics.json", found)
    print(score.table(found))
    print(f"fit: {fit['verdict']}; {fit['advice']} (advice only: the score decides)")


if __name__ == "__main__":
    errors.run(main)
