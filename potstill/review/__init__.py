"""The page on which a person judges the teacher's answers.

In: data/1-inputs.jsonl (before `expand`, data/seeds.jsonl) and data/2-answers.jsonl. Out:
data/own/reviews.jsonl, which the stages filter, split, pairs, judge and score read through
potstill/dataset/reviews.py. No stage uses this package.
"""
