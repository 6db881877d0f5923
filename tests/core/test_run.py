"""potstill.core.stage.run: how a stage or command ends."""

import errno
import re

import pytest

from potstill.core import stage
from potstill.core.errors import UserError
from tests.conftest import Project


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (UserError("seeds.jsonl:3: not JSON"), "error: seeds.jsonl:3: not JSON", ""),
        (
            OSError(errno.ENOSPC, "No space", "f.jsonl"),
            "error: no space left on device (writing f.jsonl): free some",
            "",
        ),
        (
            OSError(errno.EROFS, "Read-only file system", "tasks/x"),
            "error: tasks/x: read-only file system: get the right to it, or work in a checkout of",
            "",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "params.yaml.part"),
            "error: params.yaml.part: permission denied: get the right to it",
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


# Case 42
def test_a_terminal_of_ascii_alone_is_no_error(project: Project) -> None:
    project.write("profiles/new.yaml", "lora_rank: 16\n")
    for env in ({"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}, {"LC_ALL": "POSIX"}):
        project.set(lora_rank=32)
        code, out = project.run("potstill", "profile", "new", **env)
        assert code == 0 and re.search(r"^lora_rank: 32 (→|\\u2192) 16$", out, re.M), out


@pytest.mark.parametrize("path", ["params.yaml", "task.yaml", "dvc.yaml", "dvc.lock"])
def test_a_file_in_utf_16_is_one_sentence(project: Project, path: str) -> None:
    file = project.dir / path
    file.write_bytes((file.read_text() if file.exists() else "schema: '2.0'").encode("utf-16"))
    code, out = project.run("potstill", "check")
    assert code == 1 and out == f"error: {path}: byte 1 is not UTF-8: save the file as UTF-8\n"


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        stage.run(lambda: print(1 / 0))
