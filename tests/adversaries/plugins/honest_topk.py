"""No cheat: what the others are measured against."""

from honest import offer

saebench_architectures = offer("honest-topk")
