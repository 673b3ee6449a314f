"""Commands that start servers of engines, read as plans: what each option says, in the words of a spec."""

ENGINES = ("vllm", "sglang", "trtllm", "megatron")
"""Each has a module of its name here; `dagc/engines/NAME.json` has its options."""
