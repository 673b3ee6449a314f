"""What a real run showed: profiler traces, beside the plan."""
