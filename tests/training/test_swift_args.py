"""schemas/swift_args.json has the arguments of ms-swift's sft, as the locked version has them:
`python -m tests.training.test_swift_args` writes it anew."""

import dataclasses
import json
import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest

from potstill.core import params

KINDS = {int: "integer", float: "number", bool: "boolean", dict: "object", type(None): "null"}


def rule(hint: Any) -> dict[str, Any]:
    """What a value of this type may be, as a JSON schema."""
    if get_origin(hint) is Literal:
        return {"enum": list(get_args(hint))}
    parts = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else [hint]
    if any(get_origin(part) is Literal for part in parts):
        return {}
    kinds = {KINDS.get(get_origin(part) or part, "string") for part in parts}
    if any(get_origin(part) is list for part in parts):
        kinds |= {"array", "string"}
    return {"type": kinds.pop() if len(kinds) == 1 else sorted(kinds)}


def arguments() -> dict[str, dict[str, Any]]:
    """The rules of all arguments of `swift sft`."""
    from swift.arguments import SftArguments

    hints = get_type_hints(SftArguments)
    names = sorted(field.name for field in dataclasses.fields(SftArguments) if field.init)
    return {name: rule(hints[name]) for name in names}


@pytest.mark.slow
def test_the_arguments_are_those_of_ms_swift() -> None:
    assert json.loads(params.SWIFT.read_text(encoding="utf-8")) == arguments()


if __name__ == "__main__":
    lines = [f"  {json.dumps(name)}: {json.dumps(one)}" for name, one in arguments().items()]
    params.SWIFT.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
