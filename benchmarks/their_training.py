"""A training as a user of ``transformers`` writes it, for ``time_to_loss.py``: one run, one curve.

    python their_training.py MATERIAL.pt RATE STEPS THREADS      prints JSON: curve and seconds

causal LM       nanoGPT's recipe: the tokens as one long row, windows at random places, a plain loop
                around ``GPT2LMHeadModel`` with AdamW (fused), warm-up, cosine and clipping
masked LM       ``Trainer`` on blocks of the row, without padding, with
                ``DataCollatorForLanguageModeling``
reconstruction  ``Trainer`` on pairs whose noise is drawn beforehand, since ``transformers`` has no
                collator that draws it; batches of like lengths, padded by
                ``DataCollatorForSeq2Seq``

Nothing of minicpt runs here: text, tokens and held-out batches come from the file. Time counts from
before the import of torch and transformers, without the evaluations.
"""

import json
import math
import sys
import tempfile
import time

BEGUN = time.perf_counter()

import torch  # noqa: E402 (its import counts)
import transformers  # noqa: E402

BETAS, WARMUP, LEAST, CLIP, DECAY = (0.9, 0.99), 0.05, 0.1, 1.0, 0.1  # nanoGPT's, for small models


class Curve:
    """Held-out loss against seconds of training."""

    def __init__(self, model, batches: list[dict], every: int):
        self.model, self.batches, self.every = model, batches, every
        self.evaluations, self.points = 0.0, []

    def step(self, number: int) -> None:
        if number % self.every == 0:
            begun = time.perf_counter()
            loss = self.measured()
            self.evaluations += time.perf_counter() - begun
            seconds = time.perf_counter() - BEGUN - self.evaluations
            self.points.append({"step": number, "seconds": seconds, "loss": loss})

    @torch.no_grad()
    def measured(self) -> float:
        """Nats a target on all held-out batches: sums and counts, one division."""
        self.model.eval()
        sums, count = 0.0, 0
        for batch in self.batches:
            logits = self.model(**batch["inputs"]).logits  # (B, T, V)
            targets = batch["targets"]
            sums += float(torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="sum"
            ))  # fmt: skip
            count += int((targets != -100).sum())
        self.model.train()
        return sums / count


def made(material: dict):
    values = dict(material["config"])
    config = transformers.AutoConfig.for_model(values.pop("model_type"), **values)
    config._attn_implementation = material["attention"]
    config.use_cache = False
    model = getattr(transformers, material["class"])(config)
    if not values.get("tie_word_embeddings", True):  # see ``worker.their_model``
        model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.lm_head.weight))
        torch.nn.init.normal_(model.lm_head.weight, std=model.config.d_model**-0.5)
    return model.train()


def plain_loop(model, material: dict, rate: float, steps: int, curve: Curve) -> None:
    tokens, size, rows = material["tokens"], material["window"], material["batch_size"]
    groups = [
        {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": DECAY},
        {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=BETAS, fused=True)
    warmup = max(1, round(WARMUP * steps))
    for step in range(steps):
        done = max(0.0, (step - warmup) / max(1, steps - warmup))
        falling = LEAST + (1 - LEAST) * (1 + math.cos(math.pi * done)) / 2
        for group in optimizer.param_groups:
            group["lr"] = rate * min((step + 1) / warmup, falling)
        begins = torch.randint(len(tokens) - size - 1, (rows,))
        read = torch.stack([tokens[begin : begin + size] for begin in begins])
        targets = torch.stack([tokens[begin + 1 : begin + size + 1] for begin in begins])
        logits = model(read).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        curve.step(step + 1)


def trainer(model, material: dict, rate: float, steps: int, curve: Curve) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(material["tokenizer"])
    if "pairs" in material:
        rows = [{"input_ids": source, "labels": target} for source, target in material["pairs"]]
        collate = transformers.DataCollatorForSeq2Seq(tokenizer, model=model)
        order = {"train_sampling_strategy": "group_by_length"}
    else:
        size = material["window"] - 2
        whole = material["tokens"][: len(material["tokens"]) // size * size].view(-1, size)
        begin, end = tokenizer.cls_token_id, tokenizer.sep_token_id
        rows = [{"input_ids": [begin, *row, end]} for row in whole.tolist()]
        collate = transformers.DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)
        order = {}

    class Watching(transformers.TrainerCallback):
        def on_step_end(self, arguments, state, control, **others):
            curve.step(state.global_step)

    settings = transformers.TrainingArguments(
        output_dir=tempfile.mkdtemp(prefix="theirs-"),
        per_device_train_batch_size=material["batch_size"],
        max_steps=steps, learning_rate=rate, warmup_steps=round(WARMUP * steps),
        lr_scheduler_type="cosine", weight_decay=DECAY, adam_beta2=BETAS[1],
        optim="adamw_torch_fused", max_grad_norm=CLIP, logging_strategy="no", save_strategy="no",
        report_to="none", disable_tqdm=True, use_cpu=True, dataloader_pin_memory=False, **order,
    )  # fmt: skip
    found = transformers.Trainer(
        model=model, args=settings, train_dataset=rows, data_collator=collate,
        callbacks=[Watching()],
    )  # fmt: skip
    found.remove_callback(transformers.trainer_callback.PrinterCallback)
    found.train()


def main(words: list[str]) -> None:
    path, rate, steps, threads = words[0], float(words[1]), int(words[2]), int(words[3])
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    material = torch.load(path, weights_only=True)
    model = made(material)
    curve = Curve(model, material["held_out"], max(1, steps // material["evaluations"]))
    causal = material["class"] == "GPT2LMHeadModel"
    (plain_loop if causal else trainer)(model, material, rate, steps, curve)
    print(json.dumps(curve.points), file=answers)


if __name__ == "__main__":
    main(sys.argv[1:])
