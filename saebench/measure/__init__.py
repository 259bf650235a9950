"""How fast this machine does what a plan asks for, and which machine it is."""
