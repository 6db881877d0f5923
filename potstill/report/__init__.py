"""The pages that show what `score` found: reports/report.html of a task and reports/index.html.

In come reports/metrics.json, cost.json and tables/, the predictions and dvc.lock; out goes one page
that needs no network, by the stage `report`. pages.py fills in the templates (*.html), charts.js
draws the charts with vega.js, report.js shows the rows. The head and the styles that all pages
share are in base.html and base.css.
"""
