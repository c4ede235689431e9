"""How much faster our Grad-CAM is than the package grad-cam: the ratio in one interleaved run, the same batch.

    python tests/support/gradcam_speed.py [--backbone resnet50] [--batch 16] [--rounds 15] [--threads 1] [--device cpu]
                                          [--methods gradcam,layercam] [--out results/profile/gradcam-NAME.csv]

Every round times both once, one after the other and in turns first; one more round warms up. A ratio is that of one round; printed are medians and
the 95 % interval of the median ratio (bootstrap over rounds). The package is used as its README says: one object, called
with the batch and one target per image. Weights are random: time does not depend on them. Both answer with maps of the
true class; the package's are resized to the input besides, which is timed (`resize [ms]`) and left out of `ratio without`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pytorch_grad_cam
import torch
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from pytorch_grad_cam.utils.reshape_transforms import vit_reshape_transform
from speed_table import write_rows

import wsolbench

PACKAGE = {
    "gradcam": pytorch_grad_cam.GradCAM,
    "gradcam++": pytorch_grad_cam.GradCAMPlusPlus,
    "xgradcam": pytorch_grad_cam.XGradCAM,
    "layercam": pytorch_grad_cam.LayerCAM,
    "hirescam": pytorch_grad_cam.HiResCAM,
}


def seconds(function, device):
    if device == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    function()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def interval(ratios, rng):
    """95 % interval of the median, rounds drawn with replacement."""
    medians = [np.median(rng.choice(ratios, len(ratios))) for _ in range(2000)]
    return np.percentile(medians, [2.5, 97.5])


def measure(name, arguments):
    """One row of the table."""
    torch.manual_seed(0)
    method = wsolbench.create_method(name, num_classes=1000, backbone=arguments.backbone).to(arguments.device).eval()
    images = torch.randn(arguments.batch, 3, 224, 224, device=arguments.device)
    labels = torch.arange(arguments.batch, device=arguments.device)
    model = method.classifier
    if method.layer is None:
        layer, reshape = model.layer4, None  # ResNet
    else:
        layer, reshape = model.get_submodule(method.layer), vit_reshape_transform
    targets = [ClassifierOutputTarget(label) for label in labels.tolist()]
    times = []
    rng = np.random.default_rng(0)
    with PACKAGE[name](model, [layer], reshape_transform=reshape) as package:
        # Its hooks would cost ours time and memory too: they are taken off while ours runs.
        hooks = dict(layer._forward_hooks)

        def ours():
            return method.localize(images, labels).maps_Bhw.cpu()

        def packages():
            return package(images, targets)

        for number in range(arguments.rounds + 1):
            took = {}
            for function in (ours, packages) if number % 2 else (packages, ours):
                layer._forward_hooks.clear()
                if function is packages:
                    layer._forward_hooks.update(hooks)
                took[function] = seconds(function, arguments.device)
            model.zero_grad()
            raw = ours().numpy()
            resize = seconds(lambda maps=raw: scale_cam_image(scale_cam_image(maps, (224, 224))), "cpu")
            if number:  # the first round warms up
                times.append((took[ours], took[packages], resize))
    ours_R, package_R, resize_R = np.array(times).T
    row = {
        "method": name,
        "backbone": arguments.backbone,
        "batch": arguments.batch,
        "rounds": arguments.rounds,
        "threads": arguments.threads,
        "device": arguments.device,
    }
    for title, values in (("ours", ours_R), ("package", package_R), ("resize", resize_R)):
        row[f"{title} [ms]"] = f"{1000 * np.median(values):.1f}"
    for title, ratios in (("ratio", package_R / ours_R), ("ratio without", (package_R - resize_R) / ours_R)):
        low, high = interval(ratios, rng)
        row[title] = f"{np.median(ratios):.2f}"
        row[f"{title} 95 % low"], row[f"{title} 95 % high"] = f"{low:.2f}", f"{high:.2f}"
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--methods", default="gradcam")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    for name in arguments.methods.split(","):
        rows.append(measure(name, arguments))
        print(*(f"{key} {value}" for key, value in rows[-1].items()), sep=" | ", flush=True)
    if arguments.out is not None:
        write_rows(arguments.out, rows)


if __name__ == "__main__":
    main()
