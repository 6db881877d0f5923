"""The check `facts`: what an answer must know and cannot find in its input stands in
prompts/knowledge.jsonl, such as a company's products, prices and terms.

A row is one fact: {"label": "return", "when": "耳机|音箱", "text": "Earphones can be sent back …",
"states": ["7天", ["未拆封", "没有拆封"]], "never": ["15天"]}. Only label and text are needed.
Prompts get all rows as `knowledge`.
"""

import re
from typing import Any

from potstill.checks import paths
from potstill.checks.grounded import missing_number
from potstill.checks.rule import PASS, Finding, Rule, are_texts, failed, on_text, plain
from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.task.settings import KNOWLEDGE, Task


def facts(task: Task, *, label: str, field: str | None = None) -> Rule:
    """States what the facts of prompts/knowledge.jsonl require and nothing against them. Those
    apply whose label is the answer's field `label` and whose `when` is found in the input; an
    answer that none applies to fails. All their `states` stand in the answer, nothing of their
    `never`, and each number stands in one of them or in the input."""
    where = paths.find(task, label).steps
    about = paths.find(task, field) if field is not None else None
    known = [_fact(f"{KNOWLEDGE}:{number}", row) for number, row in enumerate(task.knowledge, 1)]
    if not known:
        raise ValueError(f"{KNOWLEDGE} has no rows, expected the rules to judge by")

    def judged(text: str, source: str, applying: list[Row]) -> Finding:
        answer = plain(text)
        for fact in applying:
            for any_of in fact["states"]:
                if not any(plain(part) in answer for part in any_of):
                    return failed(f"{any_of[0]} is left out")
            if wrong := next((part for part in fact["never"] if plain(part) in answer), None):
                return failed(wrong)
        number = missing_number(text, "\n".join([source, *(fact["text"] for fact in applying)]))
        return failed(number) if number else PASS

    def rule(row: Row, answer: Any, text: str) -> Finding:
        said = paths.pick(answer, where)
        said = None if said is paths.ABSENT else said
        source = "\n".join(row[name] for name in task.config["input"])
        applying = [fact for fact in known if fact["label"] == said and fact["when"].search(source)]
        if not applying:
            return failed(f"no rule for {label} {said!r}")
        return on_text(about, lambda _, text: judged(text, source, applying))(row, answer, text)

    return rule


def _fact(where: str, row: Row) -> Row:
    """A row of the file, ready to judge by: `when` is compiled, of each list of `states` one text
    stands in the answer, and `text` has the states, too, since an answer's numbers may come from
    there. Raises UserError, which begins with `where`, for a key with a wrong value."""
    row = {"when": "", "states": [], "never": [], **row}
    wrong = [(key, "a text") for key in ("label", "when", "text") if not isinstance(row[key], str)]
    states = row["states"] if isinstance(row["states"], list) else [[]]
    states = [[state] if isinstance(state, str) else state for state in states]
    if [] in states or not all(map(are_texts, [*states, row["never"]])):
        key = "states" if are_texts(row["never"]) else "never"
        wrong.append((key, "a list of texts that are not empty"))
    for key, expected in wrong:
        raise UserError(f"{where}: {key} is {row[key]!r}, expected {expected}")
    try:
        when = re.compile(row["when"])
    except re.error as error:
        problem = f"{row['when']!r} is no regular expression ({error})"
        raise UserError(f"{where}: when: {problem}") from None
    text = "\n".join([row["text"], *(part for texts in states for part in texts)])
    return row | {"when": when, "states": states, "text": text}
