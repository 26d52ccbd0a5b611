"""What changes weights: update rules, full gradients, their states. Numbers, no decisions."""
