"""Answers of small models: the untrained one and the students.

In come chats and a model's folder; out come answers in the order of the chats. `answering` is the
stage predict, `engine` is vLLM, `few_shot` puts training rows into a prompt, `quoting` makes
grammars by which answers only quote, `parity` compares training with serving, and `predictions` is
the format of data/5-predictions. `sharded` stands before `engine` and `parity`: it splits the rows
where predict.shards says so. The stages predict, sample and parity use it; the stages that read
predictions (ask_teacher, choose, judge, score, report) use `predictions` alone.
"""
