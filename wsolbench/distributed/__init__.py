"""Several processes that work on one command, as `torchrun` starts them: how they meet, speak, agree and part.

The first process (rank 0) leads: it decides what is run, writes every file and speaks to the user. The others wait for what
it announces and take part in that (`wsolbench.launch.helpers`), so no list, file or clock is asked twice. What goes wrong in one
process inside of a `turn` is raised in all of them, at the same place. A process by itself has no group and pays nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
