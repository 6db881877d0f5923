"""The student's training, by ms-swift.

In come the messages of the stage `split` or the preferences of `pairs`, and a base model; out come
a LoRA adapter with its log, and base and adapter merged. `run` is one training and one merge,
`dpo`, `grpo` and `gkd` are what an alignment has of its own, `scored` says which checkpoint ships,
`plugins` are what ms-swift loads, `swift` runs it as a child process, and `model_folder` knows a
model's folder and this machine. The stages sft, merge and align use it.
"""
