"""How long chats are in the student's own tokens, by its own chat template, without loading the
model or a heavy library."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from potstill.core import params, project
from potstill.core.errors import UserError

Chat = list[dict[str, str]]
MOST = 8  # tokens that a chat template may add to a turn, rather too many
FEW = 100  # system prompts that are counted alone
NAMED = 3  # rows that an error names; the others are counted


def folder(model: str) -> Path | None:
    """The folder of a model, or None for a name on the hub. Raises UserError when there is no such
    folder, or no tokenizer in it."""
    path = Path(model) if Path(model).exists() else project.root() / model
    if not path.exists() and params.HUB.fullmatch(model):
        return None
    if not (path / "tokenizer_config.json").is_file():
        found = "has no tokenizer_config.json" if path.is_dir() else "is missing"
        raise UserError(f"{path} {found}, expected a model: `git checkout` it, or `make base`")
    return path


class Counter:
    """Counts tokens as a training or a prediction does. Raises UserError, when it is made, for a
    model without a chat template, or one that cannot be fetched from the hub."""

    def __init__(self, model: str, revision: str) -> None:
        path = folder(model)
        if path and (path / "tokenizer.json").is_file():
            self._render, self._count = _fast(path)
        else:
            self._render, self._count = _by_transformers(model, path, revision)
        self([[{"role": "user", "content": "?"}]], answering=True)

    def __call__(self, chats: Sequence[Chat], answering: bool = False) -> list[int]:
        """The tokens of each chat; `answering`: of the prompt that asks for the next turn."""
        texts = [self._render(chat, answering) for chat in chats]
        return self._count(texts)

    def longer(
        self, chats: Sequence[Chat], limit: int, answering: bool = False
    ) -> Iterator[tuple[int, int]]:
        """The index and the tokens of each chat of more than `limit` tokens. A text has no more
        tokens than bytes, and many chats have one system prompt, so few have to be counted."""
        systems: dict[str, int] = {}  # tokens of a chat that has little beside this prompt

        def bound(chat: Chat) -> int:
            head = chat[0]["content"]
            if chat[0]["role"] != "system" or (head not in systems and len(systems) > FEW):
                return at_most(chat)
            if head not in systems:
                [systems[head]] = self([[chat[0], {"role": "user", "content": "?"}]], answering)
            return systems[head] + MOST + at_most(chat[1:])

        places = [i for i, chat in enumerate(chats) if bound(chat) > limit]
        for i, tokens in zip(places, self([chats[i] for i in places], answering), strict=True):
            if tokens > limit:
                yield i, tokens


def at_most(chat: Chat) -> int:
    """Tokens that a chat cannot exceed: a tokenizer of bytes has one for each at most."""
    return sum(2 * MOST + len(turn["content"].encode()) for turn in chat) + 2 * MOST


def refuse_long(
    chats: Sequence[Chat], where: Sequence[str], limit: int, model: str, revision: str
) -> None:
    """Raises UserError when a training row has more than `limit` tokens; it names the first rows by
    `where` they stand, and says how many there are. A model that is on the hub and cannot be
    fetched now is asked at its training."""
    if all(at_most(chat) <= limit for chat in chats):
        return
    try:
        found = list(Counter(model, revision).longer(chats, limit))
    except Unreachable:
        return
    if found:
        named = ", ".join(f"{where[i]} has {tokens:,}" for i, tokens in found[:NAMED])
        more = f", and {len(found) - NAMED:,} rows more" if len(found) > NAMED else ""
        longest = max(tokens for _, tokens in found)
        raise UserError(
            f"{named}{more}: tokens of {model}, expected at most max_length {limit:,} of "
            f"params.yaml: shorten or leave out these rows, or set max_length to {longest}"
            + ("" if longest <= 4096 else " (4096 at most)")
        )


class Unreachable(UserError):
    """The model is on the hub, which cannot be reached, or has none of this name."""


def _fast(path: Path) -> tuple[Callable[[Chat, bool], str], Callable[[list[str]], list[int]]]:
    """What renders and counts by the files of a model's folder."""
    from tokenizers import Tokenizer

    config = json.loads(params.read_text(path / "tokenizer_config.json"))
    own = path / "chat_template.jinja"
    source = params.read_text(own) if own.is_file() else config.get("chat_template")
    if isinstance(source, list):  # several, by name
        source = {one["name"]: one["template"] for one in source}.get("default")
    if not isinstance(source, str):
        raise UserError(f"{path}: the model has no chat template, expected chat_template.jinja")
    marks = {
        name: value["content"] if isinstance(value, dict) else value
        for name, value in config.items()
        if name.endswith("_token") and isinstance(value, str | dict)
    }
    render = _template(path, source, marks)
    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

    def count(texts: list[str]) -> list[int]:
        encoded = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [len(one.ids) for one in encoded]

    return render, count


def _template(path: Path, source: str, marks: dict[str, Any]) -> Callable[[Chat, bool], str]:
    """What renders a chat, in the environment that transformers gives a template."""
    from jinja2 import TemplateError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    environment.filters["tojson"] = lambda value, **_: json.dumps(value, ensure_ascii=False)
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)

    def render(chat: Chat, answering: bool) -> str:
        try:
            # enable_thinking: what ms-swift trains Qwen3 on; others ignore it
            how = {"add_generation_prompt": answering, "enable_thinking": False}
            text = template.render(messages=chat, tools=None, documents=None, **how, **marks)
        except TemplateError as error:
            raise UserError(f"{path}: the chat template cannot be filled in: {error}") from None
        return text if answering else text.rstrip("\n")

    try:
        template = environment.from_string(source)
    except TemplateError as error:
        raise UserError(f"{path}: the chat template is no template: {error}") from None
    return render


def _by_transformers(
    model: str, path: Path | None, revision: str
) -> tuple[Callable[[Chat, bool], str], Callable[[list[str]], list[int]]]:
    """What renders and counts by transformers, which takes seconds to import."""
    from transformers import AutoTokenizer

    more = {} if path else {"revision": revision}
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(path or model), trust_remote_code=False, **more
        )
    except (OSError, ValueError) as error:
        said = str(error).splitlines()[0][:200]
        raise Unreachable(f"params.yaml: model {model} cannot be read: {said}") from None

    def render(chat: Chat, answering: bool) -> str:
        how = {"add_generation_prompt": answering, "enable_thinking": False, "tokenize": False}
        try:
            text = str(tokenizer.apply_chat_template(chat, **how))
        except Exception as error:  # whatever a template may do
            raise UserError(f"{model}: the chat template cannot be filled in: {error}") from None
        return text if answering else text.rstrip("\n")

    def count(texts: list[str]) -> list[int]:
        ids = tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
        return [len(one) for one in ids]

    return render, count
