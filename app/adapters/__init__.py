"""The outside world, one room or file per outside system. Each translates its errors to ours at the border."""
