"""reports/ of score, the predictions and what made them → reports/report.html, one page that works
without a network."""

from potstill.core import jsonl, params, stage
from potstill.report import pages
from potstill.task import settings


def main() -> None:
    t = settings.load()
    page = pages.build(t, params.load("gate.min_accuracy").gate.min_accuracy)
    path = t.reports / "report.html"
    jsonl.write_text(path, page)
    print(f"report: {path}, {len(page.encode()) / 1e6:.2f} MB")


if __name__ == "__main__":
    stage.run(main)
