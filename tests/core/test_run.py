"""potstill.core.stage.run: how a stage or command ends."""

import errno

import pytest

from potstill.core import stage
from potstill.core.errors import UserError


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (UserError("seeds.jsonl:3: not JSON"), "error: seeds.jsonl:3: not JSON", ""),
        (
            OSError(errno.ENOSPC, "No space", "f.jsonl"),
            "error: no space left on device (writing f.jsonl): free some",
            "",
        ),
        (KeyboardInterrupt(), 130, "stopped: what was finished is kept"),
        (KeyboardInterrupt("3 answers kept"), 130, "stopped: 3 answers kept"),
    ],
)
def test_how_a_stage_ends(
    raised: BaseException, code: object, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> None:
        raise raised

    with pytest.raises(SystemExit) as stop:
        stage.run(main)
    assert str(stop.value.code).startswith(str(code))
    assert capsys.readouterr().err.startswith(said)


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        stage.run(lambda: print(1 / 0))
