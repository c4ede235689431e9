"""One of several gloo processes: a step of SAT on its share of a batch inside DistributedDataParallel."""

from __future__ import annotations

import sys

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import wsolbench
from wsolbench.method import Method
from wsolbench.types import Batch

SHARES = ([0, 1], [2, 3])


def sat() -> Method:
    """SAT with weights far enough from their start for images to have masks of different areas.

    In float64: the area term is the small difference of two numbers, of which float32 has few digits left.
    """
    torch.manual_seed(0)
    method = wsolbench.create_method("sat", num_classes=3, backbone="badges_vit.s0", drop_path=0.0, area=0.52)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return method.double()


def batch(images: list[int]) -> Batch:
    """Some of four images, two dark and two bright, so that the halves differ in area."""
    generator = torch.Generator().manual_seed(1)
    everything = (
        torch.randn(4, 3, 64, 64, generator=generator) + torch.tensor([-2.0, -2.0, 2.0, 2.0])[:, None, None, None]
    )
    return Batch([str(i) for i in images], everything[images].double(), torch.tensor([0, 1, 2, 1])[images])


def main(rank: int, path: str) -> None:
    """Losses of this process, and gradients as DistributedDataParallel leaves them."""
    dist.init_process_group("gloo", init_method=f"file://{path}.init", rank=rank, world_size=len(SHARES))
    method = DistributedDataParallel(sat().train())
    losses = method(batch(SHARES[rank]))
    torch.stack(list(losses.values())).sum().backward()
    gradients = {name: parameter.grad for name, parameter in method.module.named_parameters()}
    torch.save({"losses": losses, "gradients": gradients}, f"{path}.{rank}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
