"""What things cost: kernels, roofline, network, expert load, schedules."""
