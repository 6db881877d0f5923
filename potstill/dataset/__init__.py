"""From seeds to training rows.

In: the seeds, the gold rows, the teacher's answers, and a user's own rows and reviews. Out: inputs
grown from the seeds (expand, expand_rules, growth), the best answer to each (filtering, reviews),
training, validation and test rows that share no near-duplicates (split, near_duplicates,
own_rows), preferences for an alignment (preferences), and the inputs of
the two others (sometimes, gap).

The stages expand, filter, split and pairs use it; judge reads reviews, too.
"""
