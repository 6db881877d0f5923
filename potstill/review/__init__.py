"""The pages on which a person judges the teacher's answers (`make review`) and asks the models
(`make try`).

In: data/1-inputs.jsonl (before `expand`, data/seeds.jsonl) and data/2-answers.jsonl;
data/4-test.jsonl and models/student. Out: data/own/reviews.jsonl, which the stages filter, split,
pairs, judge and score read through potstill/dataset/reviews.py; lines of data/seeds.jsonl. No stage
uses this package.
"""
