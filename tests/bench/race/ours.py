"""One side of `trainers.py`: optimizer steps of our trainer on given sequences, in processor seconds."""

import os
import time

import torch
from material import ANSWERS, CLIP, GRAD_CLIP, LR, PROMPT, STD_EPS, WARM, arguments, sequences, tell

from serl.config.training import Lora, Optimizer, Training
from serl.engines.ranks import join_ranks
from serl.engines.trainer import Trainer
from serl.learning.advantage import spread
from serl.learning.batch import Sample, attach
from serl.learning.objective import PolicyLoss, mean_weights


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)
    prompts, answers, reward_GN = sequences(args.lengths)
    settings = Training(
        optimizer=Optimizer(lr=LR, betas=(0.9, 0.999), schedule="constant", warmup=0.0, grad_clip=GRAD_CLIP),
        microbatch_tokens=2048,
        dtype="float32",
        packing=args.packing,
        lora=Lora(rank=args.lora, alpha=2 * args.lora) if args.lora else None,
    )
    trainer = Trainer(args.model, settings, ranks=join_ranks("cpu"), horizon=1000, seed=0)
    bare = [
        Sample(token_L=torch.tensor(prompts[i // ANSWERS] + answer), num_prompt=PROMPT, column={})
        for i, answer in enumerate(answers)
    ]
    length_S = torch.tensor([s.num_response for s in bare])
    centred_GN = reward_GN - reward_GN.mean(1, keepdim=True)
    advantage_S = (centred_GN / (reward_GN.std(1, keepdim=True) + STD_EPS)).flatten()
    old_T = torch.cat(trainer.logprobs(bare))
    columns = {
        "weight": mean_weights(length_S, "token"),
        "advantage": spread(advantage_S, length_S),
        "old_logp": old_T,
        "ref_logp": old_T,
    }
    samples, loss, seconds, norms = attach(bare, columns), PolicyLoss(clip=CLIP), [], []
    for _ in range(args.steps + WARM):
        begun = time.process_time()
        norms.append(trainer.step(samples, loss).grad_norm)
        seconds.append(time.process_time() - begun)
    tell(seconds=seconds[WARM:], tokens=sum(len(s.token_L) for s in samples), grad_norm=norms[0])


if __name__ == "__main__":
    main()
    os._exit(0)  # nothing is left to be said
