"""A fuzzer of the command line: mutated specs, graphs, configs, calibrations, histograms and archives, each in a process of
its own with limits of time and memory. `python -m tests.fuzz --cases 100000 --workers 2`."""
