"""Where the seconds of a call go, as text files: kernels of a step, Python functions of a generation."""

import cProfile
import io
import pstats
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile


def kernels(work: Callable[[], object], path: Path) -> None:
    """The call's kernels and operators, longest first, and what the device did not wait for."""
    cuda = torch.cuda.is_available()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities) as seen:
        work()
        if cuda:
            torch.cuda.synchronize()
    averages = seen.key_averages()
    by_device = averages.table(
        sort_by="self_cuda_time_total" if cuda else "self_cpu_time_total", row_limit=40
    )
    path.write_text(f"{by_device}\n{averages.table(sort_by='self_cpu_time_total', row_limit=25)}")


def functions(work: Callable[[], object], path: Path) -> None:
    """The call's Python functions by their own time, and by the time in and below them."""
    seen = cProfile.Profile()
    seen.runcall(work)
    text = io.StringIO()
    statistics = pstats.Stats(seen, stream=text)
    statistics.sort_stats("tottime").print_stats(40)
    statistics.sort_stats("cumulative").print_stats(40)
    path.write_text(text.getvalue())
