"""What things cost: kernels, roofline, network, load of experts, schedules."""
