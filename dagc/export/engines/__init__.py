"""Launch commands and configs of serving engines; an engine that cannot express a plan refuses it and says why."""
