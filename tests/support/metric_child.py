"""One of two gloo processes: every metric over its share of the images, in every way of sharing them."""

from __future__ import annotations

import sys
import warnings

import torch
import torch.distributed as dist
from metric_cases import COUNT, MAKERS, inputs, taken_by

SHARDS: dict[str, tuple[list[list[int]], list[list[int]]]] = {  # batches of the first process, of the second
    "unequal": ([[0, 1, 2, 3, 4]], [[5, 6, 7, 8, 9, 10, 11]]),
    "batches of one, interleaved": ([[i] for i in range(0, COUNT, 2)], [[i] for i in range(1, COUNT, 2)]),
    "many batches against one": ([[0, 1], [2], [3, 4, 5]], [[6, 7, 8, 9, 10, 11]]),
    "a last batch that is empty": ([list(range(9)), []], [[9, 10, 11]]),
    "an empty shard": ([list(range(COUNT))], []),
    "the other shard empty": ([], [[7, 8, 9, 10, 11], [0, 1, 2, 3, 4, 5, 6]]),
}


def ways(name: str) -> list[str]:
    """Each class is shared in every way, another setting of it in one: collectives are what takes time."""
    return list(SHARDS) if name.endswith("()") else ["unequal"]


def main(rank: int, path: str) -> None:
    """Compute everything, twice: what was computed once must go on accumulating on its own shard."""
    warnings.filterwarnings("ignore", message="The ``compute`` method")  # an empty shard computes without an update
    dist.init_process_group("gloo", init_method=f"file://{path}.init", rank=rank, world_size=2)
    everything, results = inputs(), {}
    for name, make in MAKERS.items():
        for shards in ways(name):
            batches, metric = SHARDS[shards], make()
            once, twice = [], []
            for out in (once, twice):
                for batch in batches[rank]:
                    metric.update(**taken_by(metric, everything, batch))
                out.append(metric.compute())
            results[name, shards] = (once[0], twice[0])
    torch.save(list(results.items()), f"{path}.{rank}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
