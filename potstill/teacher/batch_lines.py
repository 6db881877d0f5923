"""Reads what a batch brought, line by line, into the journal."""

import json
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

from potstill.core.errors import UserError
from potstill.core.jsonl import Row
from potstill.teacher.batch_api import State
from potstill.teacher.client import Client
from potstill.teacher.journal import LOST, MALFORMED
from potstill.teacher.limits import BATCH
from potstill.teacher.refusal import Refused, Retry


class Lines:
    """The lines of the batch `name`. The keys of `known` are journaled from it already; `retry`
    says whether a request may be tried again, at most so many times. `answers` counts the lines
    that are paid for."""

    def __init__(
        self,
        client: Client,
        name: str,
        record: Row,
        known: set[str],
        retry: Callable[[str, int | None], bool],
    ) -> None:
        self.client, self.known, self.retry, self.answers = client, known, retry, 0
        self.keys: dict[str, int] = record["keys"]  # those without a line yet
        self.more: Row = {"batch": name, "price_share": BATCH}
        if record["without"]:
            self.more["without"] = record["without"]
        asked = SimpleNamespace(**vars(client.params) | {"max_tokens": record["max_tokens"]})
        self.endpoint = replace(client.endpoint, params=asked, keep=self._keep)

    def take(self, line: bytes) -> None:
        """Journals what came of one request. A line of no request of this batch, or of one that
        had its line, is left out."""
        try:
            found = json.loads(line, parse_int=_int)
            key, guessed = found["custom_id"], self.keys.pop(found["custom_id"])
        except (ValueError, LookupError, TypeError, RecursionError):
            return
        client, response = self.client, found.get("response")
        status = response.get("status_code", 200) if isinstance(response, dict) else None
        self.answers += status is not None and status < 400
        if key in self.known:
            client.answered += client.journal.has(key, self.endpoint.params.max_tokens)
            return
        client.endpoint.asked += status is not None
        failed_before = client.journal.failed(key)
        try:
            row = self._row(key, guessed, found, status)
            client.learn(guessed, row | self.more)
            self._keep(row | {"estimated": guessed})
            client.answered += 1
        except Retry as failure:
            if failure.kept:
                client.learn(guessed, failure.kept | self.more)
            self._again(key, failure)
        except Refused as refusal:
            if refusal.form and self.retry(key, 1):  # perhaps in another form
                return
            client.failed[key] = str(refusal)
            client.refused += not failed_before
            self._keep(self.endpoint.row(key, str(refusal), MALFORMED, 0, 0))
        except UserError as error:  # no request can succeed, but what came is kept
            client.error = client.error or error

    def rest(self, state: State) -> None:
        """Sees to the requests that got no line. As many of them as the endpoint counted as
        answered beyond the lines are held against the budget."""
        lost = state.completed - self.answers
        for key, guessed in self.keys.items():
            if key not in self.known and lost > 0:
                lost -= 1
                self.client.endpoint.ambiguous += 1
                self._keep(self.endpoint.row(key, "", LOST, guessed, self.client.longest))
            self._again(key, Retry(f"the batch, {state.status}, brought no answer to it"))

    def _row(self, key: str, guessed: int, found: Row, status: int | None) -> Row:
        """The journal's row of an answer. Raises what there is instead of one."""
        if status is None:
            error = found.get("error")
            said = error.get("message") or error.get("code") if isinstance(error, dict) else error
            raise Retry(f"{self.endpoint} said: {self.endpoint.line(str(said))}")
        body = json.dumps(found["response"].get("body"))
        if status >= 400:
            raise self.endpoint.judge(status, body, {})
        return self.endpoint.read(key, guessed, body.encode())

    def _again(self, key: str, failure: Retry) -> None:
        """Notes why a request has no answer, where it is not tried again."""
        if self.retry(key, failure.most):
            return
        if failure.kept:
            self.client.failed[key] = failure.reason
        else:
            self.client.given_up.append(failure.reason)

    def _keep(self, row: Row) -> None:
        self.client.journal.add(row | self.more)


def _int(digits: str) -> float:
    return int(digits) if len(digits) < 20 else float(digits)
