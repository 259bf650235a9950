"""What a command shows while it works: phases with bars on a terminal, whole lines off one. Nothing here changes a result.

One command has one narrator, as one process has one standard error: whatever works asks for `phase(...)` and `say(...)` here, and
nothing needs to hand a narrator down. Without a narrator a phase is silent, and `say` prints.
"""

from saebench.narration.narrator import Narrator, Phase, current, narrated, phase, say

__all__ = ["Narrator", "Phase", "current", "narrated", "phase", "say"]
