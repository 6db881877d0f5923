"""The student that ships, in production.

In: models/student (stage `choose`); for the quantised forms also data/4-train.jsonl,
data/4-test.jsonl, data/5-predictions/ and data/6-choice.json; for the cascade
reports/tables/cascade.csv. Out: a running server; answers in the teacher's journal;
models/quantized/<format> and reports/quantized.csv; data/captured/; models/served/. No stage uses
this package.

`serve` starts vLLM's OpenAI-compatible server with the middleware `gateway` inside it, or with
`cascade`: the gateway with the teacher (`standby`) behind the student. Both count (`metrics`) and
keep what is asked, where the task wants that (`capture`). A second student may answer a share of
the inputs (`canary`); `served` says which of the two is served next. `quantize` makes the student
smaller and compares it with itself; `compressor` and `llama_cpp` are the parts of that which run in
an environment of their own.
"""
