"""The plumbing under every other package: which folder this is, what its files say, how they end.

project: the repository's root and the caches. params, lockfile: params.yaml and dvc.lock, checked.
jsonl: rows in and out, sealed. models: the registry of compared models. errors, stage: the frame
that a stage or command runs in. Every stage uses it, and no stage runs again for an edit here.
"""
