"""vLLM inside a training process, with weights from the trainer's memory: an engine a rank, or one over some
ranks of a node.

It joins the process group that the ranks have made, and starts with weights that mean nothing: the first
`take` has to bring every one of them, so that one that no transfer carries shows at once, at any learning
rate (see `transfer`).
"""

import logging
import socket
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from serl.config.engine import Engine, Sampling
from serl.engines.generator import Generator
from serl.engines.ranks import Ranks
from serl.records import Completion


class Resident(Generator):
    """A generator beside a trainer. All ranks make it, and all call `take` together."""

    def __init__(self, policy: Path, engine: Engine, *, ranks: Ranks):
        assert dist.is_initialized(), "join the ranks first: vLLM would make a process group of its own"
        self._cuda = ranks.device.type == "cuda"
        check_groups(ranks.gather(socket.gethostname()), engine.tensor_parallel, cuda=self._cuda)
        own = {
            "distributed_executor_backend": "external_launcher",
            "load_format": "dummy",
            "enable_sleep_mode": self._cuda,
        }
        self._asleep = 0
        self._ready = False
        self._open(policy, engine, ranks.device.type, own)
        # When an engine is collected, vLLM destroys the process group, which is the trainer's: in the middle
        # of an exception on one rank the others would wait for it in their collectives.
        if (last_rites := getattr(self._llm.llm_engine.engine_core, "_finalizer", None)) is not None:
            last_rites.detach()
        logging.getLogger("vllm.model_executor.model_loader.reload").setLevel(logging.ERROR)

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        num_samples: int,
        seeds: Sequence[int],
        limits: Sequence[int] | None = None,
    ) -> list[tuple[Completion, ...]]:
        """As `Generator.generate`; the ranks of one tensor-parallel group call it with the same arguments."""
        self._check_awake()
        return super().generate(prompts, sampling, num_samples=num_samples, seeds=seeds, limits=limits)

    def logprobs(self, sequences: Sequence[Sequence[int]], starts: Sequence[int]) -> list[list[float]]:
        self._check_awake()
        return super().logprobs(sequences, starts)

    def sleep(self, level: int = 2) -> None:
        """Give the GPU's memory to the trainer; on a CPU there is none to give.

        Level 1 keeps the weights in host memory, level 2 nowhere: the next `take` brings new ones.
        """
        assert self._asleep == 0, "the engine sleeps already"
        self._asleep = level
        self._ready = self._ready and level == 1
        if self._cuda:
            self._llm.sleep(level)

    def wake(self) -> None:
        """Go on with the weights from before; after level 2 there are none, and `take` wakes the engine."""
        assert self._asleep == 1, "only at level 1 are there weights to wake up with; take new ones"
        self._asleep = 0
        if self._cuda:
            torch.cuda.empty_cache()  # what the trainer has let go is vLLM's only when torch has, too
            self._llm.wake_up()

    @torch.no_grad()
    def take(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Load whole parameters by their Hugging Face names, in place, and forget what was cached of the old.

        `weights` is walked through once, to its end, and at most a layer of it is held at a time. An engine
        that sleeps wakes: room for the weights first, for keys and values when they are loaded.
        """
        if self._asleep and self._cuda:
            torch.cuda.empty_cache()  # as in `wake`
            self._llm.wake_up(tags=["weights"])
        self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(weights)})
        if self._asleep and self._cuda:
            torch.cuda.empty_cache()
            self._llm.wake_up(tags=["kv_cache"])
        self._asleep = 0
        assert self._llm.reset_prefix_cache(), "requests are in flight: no weights can be taken now"
        self._ready = True

    def close(self) -> None:
        """Give the memory back; the process group stays, it is the trainer's."""
        self._llm.llm_engine.model_executor.shutdown()
        del self._llm

    def _check_awake(self) -> None:
        assert not self._asleep, "the engine sleeps: wake it, or give it weights"
        assert self._ready, "the engine has no weights yet: take some first"


def check_groups(hosts: Sequence[str], tensor_parallel: int, *, cuda: bool) -> None:
    """Raise ValueError unless consecutive ranks, `tensor_parallel` at a time, share one of the `hosts`."""
    if tensor_parallel > 1 and not cuda:
        # vLLM 0.32 gives the memory that such ranks share one name a machine, and a killed job leaves it
        # there
        raise ValueError(f"engine.tensor_parallel {tensor_parallel}: a training that samples has 1 on CPUs")
    if len(hosts) % tensor_parallel:
        raise ValueError(
            f"engine.tensor_parallel {tensor_parallel}: the {len(hosts)} ranks that train do not divide into "
            "such groups"
        )
    for first in range(0, len(hosts), tensor_parallel):
        group = sorted(set(hosts[first : first + tensor_parallel]))
        if len(group) > 1:
            raise ValueError(
                f"engine.tensor_parallel {tensor_parallel}: ranks {first} to {first + tensor_parallel - 1} "
                f"are on {' and '.join(group)}; an engine stays inside a node: let it divide a node's tasks"
            )
