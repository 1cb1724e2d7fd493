"""vLLM behind one door: prompts as token ids in, sampled token ids with log-probabilities out.

The only import of vllm.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from serl.config.engine import Engine, Sampling
from serl.records import Completion
from serl.run.staging import node_local
from serl.text.prompts import Tokenizer

_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine lives in this process: no orphan when it is killed
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
_CPU_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "TORCH_COMPILE_DISABLE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "CUDA_VISIBLE_DEVICES": "",
}


class Generator:
    """One policy, loaded once. Every request carries its own seed.

    In float32 on CPUs its samples then depend on nothing else in the batch.
    """

    def __init__(self, policy: Path, engine: Engine, *, device: str):
        copies = os.environ.get("SERL_WEIGHTS")  # set by slurm/env.sh on nodes with a disk of their own
        folder = node_local(policy, Path(copies) if copies else None)
        self._open(folder, engine, device, {})

    def _open(self, folder: Path, engine: Engine, device: str, own: Mapping[str, object]) -> None:
        """Start vLLM on the model at `folder`; `own` are a subclass's arguments."""
        where = _CPU_ENVIRONMENT if device == "cpu" else {}
        asked = {"VLLM_BATCH_INVARIANT": "1"} if engine.batch_invariant and device != "cpu" else {}
        for key, value in (_ENVIRONMENT | where | asked).items():
            os.environ.setdefault(key, value)
        from vllm import LLM

        ours = _arguments(engine, device)
        self.dtype = str(ours["dtype"])
        self.max_model_len = engine.max_model_len
        self.sampled = 0  # tokens so far
        self._llm = LLM(model=str(folder), **{**_defaults(engine, device), **engine.extra, **ours, **own})
        self.tokenizer: Tokenizer = self._llm.get_tokenizer()

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        num_samples: int,
        seeds: Sequence[int],
        limits: Sequence[int] | None = None,
    ) -> list[tuple[Completion, ...]]:
        """`num_samples` completions of each prompt, with log-probabilities of what they were sampled from.

        At temperature 1, top_p 1 and no penalties that is the policy itself. Prompts must leave room for
        `sampling.max_tokens`, or for as many tokens as `limits` say of each.
        """
        from vllm import SamplingParams

        parameters = [
            SamplingParams(
                n=num_samples,
                seed=seed,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                presence_penalty=sampling.presence_penalty,
                max_tokens=limit,
                stop=list(sampling.stop),
                logprobs=0,
                flat_logprobs=True,  # lists of numbers: no object for each token
            )
            for seed, limit in zip(seeds, limits or [sampling.max_tokens] * len(seeds), strict=True)
        ]
        requests = [{"prompt_token_ids": list(p)} for p in prompts]
        outputs = self._llm.generate(requests, parameters, use_tqdm=False) if requests else []
        completions = [tuple(_completion(o) for o in output.outputs) for output in outputs]
        self.sampled += sum(len(c.token_ids) for several in completions for c in several)
        return completions

    def logprobs(self, sequences: Sequence[Sequence[int]], starts: Sequence[int]) -> list[list[float]]:
        """Of each sequence's tokens from its start (at least 1) on, their log-probabilities at temperature 1.

        One pass over each, nothing sampled; sequences must be shorter than `max_model_len`.
        """
        from vllm import SamplingParams

        reading = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0)
        requests = [{"prompt_token_ids": list(ids)} for ids in sequences]
        outputs = self._llm.generate(requests, reading, use_tqdm=False) if requests else []
        return [
            [float(step[token].logprob) for step, token in zip(out.prompt_logprobs[start:], ids[start:])]
            for out, ids, start in zip(outputs, sequences, starts)
        ]


def _arguments(engine: Engine, device: str) -> dict[str, object]:
    """The suite's settings as vLLM's arguments."""
    # policies are published in float32, which says nothing of how to run them
    usual = "float32" if device == "cpu" else "bfloat16"
    arguments: dict[str, object] = {
        "dtype": usual if engine.dtype == "auto" else engine.dtype,
        "max_model_len": engine.max_model_len,
        "seed": 0,
        "enforce_eager": engine.eager or device == "cpu",
        "tensor_parallel_size": engine.tensor_parallel,
        "gpu_memory_utilization": engine.gpu_memory_utilization,
        "disable_log_stats": True,
        "logprobs_mode": "processed_logprobs",
    }
    if engine.kv_cache_gib is not None:
        arguments["kv_cache_memory_bytes"] = int(engine.kv_cache_gib * 2**30)
    return arguments


def _defaults(engine: Engine, device: str) -> dict[str, object]:
    """What the suite prefers and `extra` may change."""
    if device != "cpu":
        return {"enable_prefix_caching": True}
    # Chunked prefill rewinds a request's random generator; CPU generators cannot (RuntimeError in vLLM 0.32).
    whole = max(8192, engine.max_model_len)
    return {"enable_prefix_caching": True, "enable_chunked_prefill": False, "max_num_batched_tokens": whole}


def _completion(output) -> Completion:  # a vllm CompletionOutput
    ids = tuple(output.token_ids)
    flat = output.logprobs  # of the sampled tokens alone, one after the other
    assert list(flat.token_ids) == list(ids), "logprobs=0: one log-probability a token, its own"
    return Completion(
        token_ids=ids,
        logprobs=tuple(flat.logprobs),
        text=output.text,
        finish_reason=str(output.finish_reason),
    )
