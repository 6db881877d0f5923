"""One shard of a stage, for a launcher (potstill/core/launch.py): shard FOLDER NUMBER."""

import sys
from pathlib import Path

from potstill.core import shards
from potstill.core.errors import UserError
from potstill.inference import sharded
from potstill.teacher import shard


def main() -> None:
    """Writes the part of one shard. Raises UserError when there is no such job."""
    if len(sys.argv) != 3 or not sys.argv[2].isdecimal():
        raise UserError("usage: python -m potstill shard FOLDER NUMBER")
    shards.work(Path(sys.argv[1]), int(sys.argv[2]), sharded.WORK | shard.WORK)
