"""Every library model under eight strategies in both phases: each plan that compiles is proved by its small twin."""
