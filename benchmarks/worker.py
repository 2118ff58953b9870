"""One side of ``throughput.py`` in a process of its own, with the settings its users get.

    python worker.py ours|theirs THREADS kept|returned                   waits for its turns
    python worker.py ours|theirs THREADS kept|returned CASE CANDIDATE    prints the peak memory of
                                                                         one turn

A candidate is one way to train: ``material.Case`` says on what. Its turn (``turns.py``) is a step
on each batch of the case, after one that is not timed, which brings its data back into the caches.
A step is what comes with every update of the weights once the batch is there: forward, loss,
backward, clipping by the gradient's norm, optimizer, gradients set to none. Freed memory is kept,
or returned to the system, on both sides alike. Each side imports only its own library.
"""

import functools
import json
import sys
import tempfile
from collections.abc import Callable, Sequence

import torch
from material import Case
from timing import Seconds, differences, print_peak, run, use_freed_memory

Turn = Callable[[], list[Seconds]]  # of each of its parts
LEARNING_RATE, CLIP = 1e-3, 1.0
PRODUCTS = "products"
PLAIN, TRAINER = "plain loop", "Trainer"


def turn_over(step: Callable[[object], object], batches: Sequence) -> Turn:
    """The seconds of a step on each of ``batches``."""

    def turn() -> list[Seconds]:
        step(batches[-1])
        times = [Seconds.now()]
        for batch in batches:
            step(batch)
            times.append(Seconds.now())
        return differences(times)

    return turn


# --- minicpt ---------------------------------------------------------------------------------


def ours(case: Case) -> dict[str, Callable[[], Turn]]:
    """A candidate for each order of the case's batches, and the matrix products of the first."""
    import products

    from minicpt.batch import Batch
    from minicpt.training.optimizer import make_optimizer
    from minicpt.training.trainer import Learner, Training, train_step

    settings = Training(learning_rate=LEARNING_RATE, max_grad_norm=CLIP)
    objective = case.made_for()

    def training(order: str) -> Turn:
        learner = Learner(adapted(case, case.model()), objective).train()
        optimizer = make_optimizer(learner, settings)

        def step(batch: Batch) -> None:
            clip, weights = settings.max_grad_norm, objective.head_weights
            train_step(learner, optimizer, [batch], clip, seed=0, head_weights=weights)

        return turn_over(step, case.batches[order])

    def multiplying() -> Turn:
        model = adapted(case, case.model()).train()
        found = products.of_steps(model, next(iter(case.batches.values())))
        return lambda: products.seconds(found)

    return {order: functools.partial(training, order) for order in case.batches} | {
        PRODUCTS: multiplying
    }


def adapted(case: Case, model: torch.nn.Module) -> torch.nn.Module:
    """The model with the adapters that the case asks for."""
    if case.lora:
        from minicpt.remedies import base, lora

        remedy = lora.LoRA(lora.Settings(lora=case.lora))
        remedy.begin(base.Situation(model, case.made_for()))
    return model


# --- transformers ----------------------------------------------------------------------------


def theirs(case: Case) -> dict[str, Callable[[], Turn]]:
    """A candidate for each kernel of attention and kind of loop, on the last order of batches."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.Trainer, transformers.TrainingArguments  # noqa: B018 (imported when first named)
    getattr(transformers, case.their_class)
    batches = case.their_batches()

    def looping(attention: str) -> Turn:
        model = their_model(case, attention)
        learning = [each for each in model.parameters() if each.requires_grad]
        optimizer = torch.optim.AdamW(learning, lr=LEARNING_RATE, fused=True)

        def step(batch: dict) -> None:
            model(**batch).loss.backward()
            torch.nn.utils.clip_grad_norm_(learning, CLIP)
            optimizer.step()
            optimizer.zero_grad()

        return turn_over(step, batches)

    return {
        f"{attention}, {loop}": functools.partial(made, attention)
        for attention in ("sdpa", "eager")
        for loop, made in (
            (PLAIN, looping),
            (TRAINER, lambda kind: trainer_turn(their_model(case, kind), batches)),
        )
    }


def their_model(case: Case, attention: str) -> torch.nn.Module:
    """The model of ``transformers`` with the sizes, and the dropout, of ours; in training."""
    import transformers

    values = {name: value for name, value in case.foreign.items() if name != "model_type"}
    config = transformers.AutoConfig.for_model(case.foreign["model_type"], **values)
    config._attn_implementation = attention
    config.use_cache = False  # else a plain loop copies all keys and values; Trainer says so itself
    model = getattr(transformers, case.their_class)(config)
    if not values.get("tie_word_embeddings", True):
        # transformers 5 ties the head of every T5 that is made from a config; ours has its own. It
        # begins as ours does: the deviation of 1 of the tied one gives probabilities so small that
        # products with them take several times as long (denormal numbers).
        model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.lm_head.weight))
        torch.nn.init.normal_(model.lm_head.weight, std=model.config.d_model**-0.5)
    if case.lora:
        import peft

        projections = [f"{name}_proj" for name in "qkvo"]
        adapters = peft.LoraConfig(r=case.lora, lora_alpha=16, target_modules=projections)
        model = peft.get_peft_model(model, adapters)
    return model.train()


def trainer_turn(model: torch.nn.Module, batches: Sequence[dict]) -> Turn:
    """``Trainer``'s own loop over the same batches, from the end of one step to that of the next.

    Its first step is the one that is not timed, and with it all that starts the loop.
    """
    import transformers

    ends: list[Seconds] = []

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, *arguments, **options):
            ends.append(Seconds.now())

    rows = [batches[-1], *batches]
    trainer = transformers.Trainer(
        model=model,
        args=transformers.TrainingArguments(
            output_dir=tempfile.mkdtemp(prefix="minicpt-"),
            per_device_train_batch_size=1,  # a row is a whole batch
            train_sampling_strategy="sequential",
            max_steps=len(rows),
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant",
            optim="adamw_torch_fused",
            max_grad_norm=CLIP,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
        ),
        train_dataset=rows,
        data_collator=lambda chosen: chosen[0],
        callbacks=[Clock()],
    )
    trainer.remove_callback(transformers.trainer_callback.PrinterCallback)

    def turn() -> list[Seconds]:
        ends.clear()
        trainer.train()
        return differences(ends)

    return turn


# ---------------------------------------------------------------------------------------------


def warm_up() -> None:
    """Libraries load code and start threads at their first use: that is no memory of a step."""
    model = torch.nn.Linear(64, 64)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    model(torch.ones(256, 64)).sum().backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
    optimizer.step()


def main(words: list[str]) -> int:
    side, threads, freed, *alone = words
    candidates_of = {"ours": ours, "theirs": theirs}[side]
    use_freed_memory(freed)
    torch.set_num_threads(int(threads))
    torch.manual_seed(0)
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    if alone:
        path, candidate = alone
        candidates = candidates_of(Case.load(path))
        warm_up()
        sys.stdout = answers
        print_peak(lambda: candidates[candidate]()())
        return 0
    for line in sys.stdin:
        kind, _, value = line.strip().partition(" ")
        if kind == "case":
            candidates = candidates_of(Case.load(value))
            made = functools.cache(lambda name, found=candidates: found[name]())
            answer = list(candidates)
        else:
            answer = made(value)()
        print(json.dumps(answer), file=answers, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
