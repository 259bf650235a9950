"""What a command shows while it works: phases with bars on a terminal, whole lines off one.

Nothing here changes a result.

One command has one console, as one process has one standard error: whatever works asks for `phase(...)` and `say(...)`
here, and nothing needs to hand a console down. Without a console a phase is silent, and `say` prints.
"""

from saebench.console.phases import Console, Phase, current, phase, say, showing

__all__ = ["Console", "Phase", "current", "phase", "say", "showing"]
