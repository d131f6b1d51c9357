"""The outside world, one room or file per outside system. Each translates at the border: its errors come out as ours."""
