"""Some of the generated data files; `python -m tests.dataset.data_files 5000` takes all of them."""

from pathlib import Path

import pytest

from tests.dataset import data_files


def test_every_row_of_a_generated_file_is_accounted_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [])
    counts = data_files.check(range(60))
    assert counts.total() == 60
    assert min(counts["taken"], counts["refused"], counts["refused as a whole"]) > 0
