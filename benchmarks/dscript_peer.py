"""Times D-SCRIPT's interaction model, for dscript_comparison.py, in the interpreter where the package dscript is.

Reads one line of JSON, {"lengths": [[N, M], ...], "seconds": S, "threads": T}, from standard input and answers with
one: residues of the pairs that were timed, the seconds on the wall and of the processors that each took as the commands
of dscript compute it ("whole"), and without the projection of the two proteins, which could be done once per protein
("projected").
"""

import json
import sys
import time

import torch
from dscript.models.interaction import DSCRIPTModel

EMBEDDED, PROJECTED, HIDDEN, WIDTH = 6165, 100, 50, 7  # as published, and as `dscript train` has them


def seconds_of(model: DSCRIPTModel, first: torch.Tensor, second: torch.Tensor) -> tuple[float, float]:
    """Wall time and processor time of one pair."""
    started, processor_started = time.perf_counter(), time.process_time()
    model.map_predict(first, second)
    return time.perf_counter() - started, time.process_time() - processor_started


@torch.no_grad()
def main() -> None:
    """Time pairs in their order until the time is over; the first one warms up."""
    asked = json.loads(sys.stdin.readline())
    torch.set_num_threads(asked["threads"])
    torch.manual_seed(0)
    model = DSCRIPTModel(EMBEDDED, PROJECTED, 0.5, PROJECTED, HIDDEN, WIDTH, use_cuda=False).eval()
    projection = model.embedding
    lengths, whole, projected = [], [], []
    started = time.perf_counter()
    for number, pair in enumerate(asked["lengths"]):
        raw = [torch.randn(1, length, EMBEDDED) for length in pair]
        model.embedding = projection
        seconds = seconds_of(model, *raw)
        short = [projection(vectors) for vectors in raw]
        model.embedding = None  # what is given is projected
        seconds_projected = seconds_of(model, *short)
        if number:
            lengths.append(pair)
            whole.append(seconds)
            projected.append(seconds_projected)
        if lengths and time.perf_counter() - started > asked["seconds"]:
            break
    print(json.dumps({"torch": torch.__version__, "lengths": lengths, "whole": whole, "projected": projected}))


if __name__ == "__main__":
    main()
