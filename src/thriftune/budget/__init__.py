"""What it will cost and when to stop: forecasts, the governor, allowances."""
