"""Launch commands and configs of serving engines; an engine that cannot express a plan refuses it and says why."""

ENGINES = ("vllm", "sglang", "trtllm", "megatron")
"""Each has a module of its name here with `write(draft)`, and `dagc/engines/NAME.json`: names of its flags, and the version
they are of."""

SERVING = ("vllm", "sglang", "trtllm")
"""Those that serve over HTTP: their modules have `command(draft)` too, the words of a server on any of its nodes."""

TRAINERS = {"megatron": "megatron_training"}
"""Those that train, and the data file of that."""
