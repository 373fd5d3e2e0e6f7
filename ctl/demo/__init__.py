"""``ctl demo``: the main job end to end, told step by step, each step checked.

Reading order: steps (the story), stage (runs and shows commands), terminal (a person at a terminal, for exec -it),
traffic (a client that never stops asking), traces (what a cluster leaves on a machine, before and after).
"""

from ctl.demo.command import demo

__all__ = ["demo"]
