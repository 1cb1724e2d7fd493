"""The other side of `trainers.py`: optimizer steps of TRL's GRPOTrainer on the same sequences.

Runs in TRL's environment. Its answers and rewards are given (`rollout_func`), and what it does to score and
pad them is not counted; a step is its forward and backward passes and the optimizer. What is set is what
makes its loss ours: no checkpointing, float32, the token mean of a whole batch, no KL, one step for a batch.
"""

import os
import time

os.environ.update(CUDA_VISIBLE_DEVICES="", HF_HUB_OFFLINE="1", TRL_EXPERIMENTAL_SILENCE="1")

import peft
import torch
import transformers
import trl
from datasets import Dataset
from material import ANSWERS, GRAD_CLIP, GROUPS, LR, WARM, arguments, sequences, tell

AT_ONCE = 8  # sequences in a pass; with 64 it is slower
COUNT = GROUPS * ANSWERS


class Clock(transformers.TrainerCallback):
    """Processor seconds of each step, without those that `beside` counted; the gradient's norm."""

    def __init__(self):
        self.seconds, self.norms, self.beside = [], [], 0.0

    def on_step_begin(self, *_, **__):
        self.begun, self.beside = time.process_time(), 0.0

    def on_step_end(self, *_, **__):
        self.seconds.append(time.process_time() - self.begun - self.beside)

    def on_log(self, args, state, control, logs=None, **_):
        if logs and "grad_norm" in logs:
            self.norms.append(float(logs["grad_norm"]))


class Timed(trl.GRPOTrainer):
    clock: Clock

    def _generate_and_score_completions(self, inputs):
        begun = time.process_time()
        scored = super()._generate_and_score_completions(inputs)
        self.clock.beside += time.process_time() - begun
        return scored


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)
    prompts, answers, rewards = sequences(args.lengths)

    def rollout(asked, trainer):
        assert len(asked) == COUNT, len(asked)
        return {
            "prompt_ids": [prompts[i // ANSWERS] for i in range(COUNT)],
            "completion_ids": [list(answer) for answer in answers],
            "logprobs": [[0.0] * len(answer) for answer in answers],
        }

    config = trl.GRPOConfig(
        output_dir=str(args.model / "trl"),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        per_device_train_batch_size=AT_ONCE,
        gradient_accumulation_steps=COUNT // AT_ONCE,
        steps_per_generation=COUNT // AT_ONCE,
        num_generations=ANSWERS,
        max_completion_length=400,
        beta=0.0,
        loss_type="dapo",
        learning_rate=LR,
        lr_scheduler_type="constant",
        max_grad_norm=GRAD_CLIP,
        optim="adamw_torch_fused",
        weight_decay=0.0,
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        max_steps=args.steps + WARM,
        disable_tqdm=True,
    )
    clock = Clock()
    adapters = peft.LoraConfig(r=args.lora or 1, lora_alpha=2 * (args.lora or 1), target_modules="all-linear")
    trainer = Timed(
        model=transformers.AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32),
        processing_class=transformers.AutoTokenizer.from_pretrained(args.model),
        reward_funcs=lambda prompts, completions, **_: rewards.flatten().tolist(),
        args=config,
        train_dataset=Dataset.from_dict({"prompt": [f"p{i}" for i in range(GROUPS * (args.steps + 8))]}),
        rollout_func=rollout,
        callbacks=[clock],
        peft_config=adapters if args.lora else None,
    )
    trainer.clock = clock
    trainer.train()
    tokens = sum(map(len, prompts)) * ANSWERS + sum(map(len, answers))
    tell(
        seconds=clock.seconds[WARM:],
        tokens=tokens,
        grad_norm=clock.norms[0],
        version=f"TRL {trl.__version__}, transformers {transformers.__version__}",
    )


if __name__ == "__main__":
    main()
