"""Launch commands and configs of serving engines. An engine that cannot express a plan refuses it, and says why."""
