"""The numbers and tables of score, the predictions and what made them → reports/<task>/report.html, one page that works offline."""

from potstill import errors, params, report, rows, task


def main() -> None:
    t = task.load(params.load("task").task)
    page = report.build(t)
    path = t.reports / "report.html"
    rows.write_text(path, page)
    print(f"report: {path}, {len(page.encode()) / 1e6:.2f} MB")


if __name__ == "__main__":
    errors.run(main)
