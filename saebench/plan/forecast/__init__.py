"""What a plan will cost: tokens, FLOPs, seconds, disk and memory."""
