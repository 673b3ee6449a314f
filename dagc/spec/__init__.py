"""The spec level: typed records of hardware, model, workload, strategy and requirements."""
