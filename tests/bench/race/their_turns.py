"""The other side of `whole_turn.py`: TRL's GRPOTrainer asks, answers with its own generation, rewards the
majority, and takes the same optimizer steps. Runs in TRL's environment; prompts come as text, a JSON list.
"""

import argparse
import itertools
import json
import os
import re
import time
from collections import Counter
from pathlib import Path

os.environ.update(CUDA_VISIBLE_DEVICES="", HF_HUB_OFFLINE="1", TRL_EXPERIMENTAL_SILENCE="1")

import torch
import transformers
import trl
from datasets import Dataset
from material import WARM, tell

NUMBER = re.compile(r"-?\d+(?:/\d+)?")


class Clock(transformers.TrainerCallback):
    """When each optimizer step ended, in seconds of the day."""

    def __init__(self):
        self.ends = []

    def on_step_end(self, *_, **__):
        self.ends.append(time.time())


def majority(samples: int, completions: list[str]) -> list[float]:
    """1 for the answers that end in the number that most of their group end in."""
    last = [(NUMBER.findall(text) or [""])[-1] for text in completions]
    rewards = []
    for start in range(0, len(last), samples):
        group = last[start : start + samples]
        chosen = Counter(group).most_common(1)[0][0]
        rewards += [float(answer == chosen) for answer in group]
    return rewards


def main() -> None:
    p = argparse.ArgumentParser()
    p.add_argument("--model", type=Path, required=True)
    p.add_argument("--prompts", type=Path, required=True)
    p.add_argument("--turns", type=int, required=True)
    p.add_argument("--samples", type=int, required=True)
    p.add_argument("--asked", type=int, required=True, help="prompts of a turn")
    p.add_argument("--batch", type=int, required=True)
    p.add_argument("--max-tokens", type=int, required=True)
    p.add_argument("--lr", type=float, required=True)
    args = p.parse_args()
    torch.set_num_threads(1)
    steps = args.asked * args.samples // args.batch
    lengths = []

    def reward(prompts, completions, completion_ids, **_):
        lengths.append(sum(map(len, completion_ids)))
        return majority(args.samples, completions)

    config = trl.GRPOConfig(
        output_dir=str(args.prompts.parent / "trl"),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        per_device_train_batch_size=args.batch,
        gradient_accumulation_steps=1,
        steps_per_generation=steps,
        num_generations=args.samples,
        max_completion_length=args.max_tokens,
        temperature=1.0,
        beta=0.0,
        loss_type="dapo",
        learning_rate=args.lr,
        lr_scheduler_type="constant",
        optim="adamw_torch_fused",
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        max_steps=args.turns * steps,
        disable_tqdm=True,
    )
    clock = Clock()
    trainer = trl.GRPOTrainer(
        model=transformers.AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32),
        processing_class=transformers.AutoTokenizer.from_pretrained(args.model),
        reward_funcs=reward,
        args=config,
        train_dataset=Dataset.from_dict({"prompt": json.loads(args.prompts.read_text())}),
        callbacks=[clock],
    )
    trainer.train()
    ends = clock.ends[steps - 1 :: steps]
    seconds = [after - before for before, after in itertools.pairwise(ends)]
    tell(seconds=seconds[WARM - 1 :], tokens=lengths[WARM:], version=f"TRL {trl.__version__}")


if __name__ == "__main__":
    main()
