"""How good each model is, and whether a difference is more than chance.

In come the test rows, each model's predictions (potstill/inference), the teacher's answers, the
judge's verdicts and the training's log. Out go metrics.json, cost.json and reports/tables/ of the
stage `score`, the student that the stage `choose` ships (6-choice.json), and the questions and
verdicts of the stage `judge`. potstill/report shows the result; `make gate` holds it against git's.
"""
