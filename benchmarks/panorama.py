"""Measure the memory to predict a panorama of 20 000 × 5 000 pixels with all outputs.

    python benchmarks/panorama.py                       # the light model
    python benchmarks/panorama.py --passes 1000         # every window through the network

Memory is the largest resident set of a separate process. It does not depend on the number of
windows that the network computes, so by default the network computes the first few windows and
repeats its last output for the others; reading, blending, masking, overlay and writing are those of
a full run. The panorama has black borders, and the weights are random.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from machine import machine
from predict import picture
from s5mars.classes import IGNORE, S5MARS
from s5mars.models.deeplab import DeepLabV3Plus
from s5mars.predict.archive import predict_images
from s5mars.predict.predictor import Predictor

AIM_BYTES = 3e9


class Repeating(nn.Module):
    """A network that computes a few windows and then repeats its last output."""

    def __init__(self, network: nn.Module, passes: int) -> None:
        super().__init__()
        self.network = network
        self.left = passes
        self.answer: Tensor | None = None

    def forward(self, image: Tensor) -> Tensor:
        if self.left > 0 or self.answer is None or self.answer.shape[0] != len(image):
            self.left -= 1
            self.answer = self.network(image)
        return self.answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, nargs=2, default=[20_000, 5_000], metavar=("W", "H"))
    parser.add_argument("--encoder", default="tf_efficientnet_lite0")
    parser.add_argument("--window", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument(
        "--passes",
        type=int,
        default=2,
        help="Number of windows that the network computes (default: 2)",
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/panorama.json"))
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.child:
        child(settings)
        return
    width, height = settings.size
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "panorama.jpg"
        panorama(width, height).save(path, quality=90)
        done = subprocess.run(
            [sys.executable, __file__, *sys.argv[1:], "--child", str(path)],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
    result = {
        "machine": machine(),
        "settings": {k: str(v) for k, v in vars(settings).items() if k != "child"},
        **json.loads(done.stdout.splitlines()[-1]),
        "aim_bytes": AIM_BYTES,
    }
    print(f"{settings.encoder}, {width}×{height}, window {settings.window}")
    print(f"peak memory     {result['peak_bytes'] / 1e9:.2f} GB (aim: below {AIM_BYTES / 1e9:g})")
    print(f"  before        {result['before_bytes'] / 1e9:.2f} GB")
    print(f"no data         {100 * result['no_data']:.1f} % of the pixels")
    print(f"seconds         {result['seconds']:.0f}, {settings.passes} network pass(es) computed")
    settings.out.write_text(json.dumps(result, indent=1) + "\n")


def panorama(width: int, height: int) -> Image.Image:
    """A panorama of frames at different heights, with black borders above and below."""
    step = 1200
    canvas = Image.new("RGB", (width, height))
    for index, left in enumerate(range(0, width, step)):
        top, bottom = (97 * index) % (height // 8), (61 * index) % (height // 8)
        frame = picture(height - top - bottom, min(step, width - left), seed=index)
        canvas.paste(frame, (left, top))
    return canvas


def child(settings: argparse.Namespace) -> None:
    torch.manual_seed(0)
    model = DeepLabV3Plus(settings.encoder, len(S5MARS), weights="none")
    predictor = Predictor(
        Repeating(model, settings.passes), S5MARS, window=settings.window, batch=settings.batch
    )
    before = peak_bytes()
    start = time.perf_counter()
    out = settings.child.parent / "maps"
    predict_images(predictor, [settings.child], out=out)
    found = {
        "peak_bytes": peak_bytes(),
        "before_bytes": before,
        "seconds": time.perf_counter() - start,
    }
    labels = np.asarray(Image.open(out / "panorama.png"))
    print(json.dumps({**found, "no_data": float((labels == IGNORE).mean())}))


def peak_bytes() -> int:
    """Largest resident set so far (``ru_maxrss`` would include that of the parent process)."""
    status = Path("/proc/self/status")
    if status.is_file():
        return 1024 * int(re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())[0])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
