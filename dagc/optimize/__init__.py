"""Many plans of one spec: which settings to try, and what each costs."""
