"""What a method costs: time, memory, FLOPs and energy of its kinds of work, on one device, under several number formats.

All methods on a backbone are timed in turns, so that a machine which slows down or is shared hits all alike. The figures are
for fixed random images; the time of an attention block or a convolution does not depend on what it sees. What is asked for
is in `request`, carried out in `profiling`; what is measured is in `work`, how in `bench`, a line and its files in `rows`;
the columns are described in docs/profile.md.

The process that measures memory on a CPU imports this package, and all that it holds is in its figures: nothing is imported
here before it is asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
