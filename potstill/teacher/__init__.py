"""The teacher: a large language model that answers the task's questions once, whatever happens.

In come rows and a kind of prompt; out come raw answers in the order of the rows. `asking` knows
what is asked and keys it, `journal` keeps every answer on disk, `client` sends what the journal
lacks within the limits of `limits`, or `batch` in files by the `batch_api`, whose answers
`batch_lines` reads. `sharded` has several processes ask, each a `shard`, while the stage has the
journal's `lease`. `endpoint` speaks to one OpenAI-compatible server, `reply` reads what that says
and `thinking` what it thought. `scripted` is a server of this kind for the task's own rules,
`local` one for a model that is here. The stages expand, generate, pairs, ask_teacher and judge use
it.
"""
