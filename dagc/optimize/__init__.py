"""Many plans of one spec: settings to try, what each costs, which is best."""
