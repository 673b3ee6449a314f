"""What a real run showed: profiler traces, metrics and memory logs, beside the plan."""
