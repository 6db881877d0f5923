"""What a task is: in comes its folder (task.yaml, schema.json, prompts/), out goes a `Task` that
renders messages, reads inputs and knows where its files are.

Every stage begins with `settings.load()`; an edit here makes them all run again.
"""
