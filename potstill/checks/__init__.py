"""The checks that task.yaml lists: small rules that judge one answer.

In: a task, an input row and the text of an answer. Out: for each check a verdict, passed, failed
with a reason, or unscored (registry.py). The rules stand in schema.py (JSON), text.py (any text),
grounded.py (names and numbers of the input) and facts.py (rules of prompts/knowledge.jsonl);
paths.py finds what they look at in a JSON answer.

The stages expand, generate, filter, pairs, choose, judge, score and report use them.
"""
