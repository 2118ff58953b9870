"""Whether a model that is not ours is causal, so that one pass gives the loss of a whole sequence.

    proofs = verify_model(model)
    print(report(proofs, width=100))

``model`` maps token ids (B, T) to logits (B, T, V), or to an object with ``.logits``; or it is a
class or a function without required arguments that returns such a model. Nothing of it is known,
nothing is changed. Both forms of ``causality`` run, in train mode and in eval mode, with dropout
off, at every position of several short rows; and ``endings`` tries longer ones, batches of other
sizes, special ids and repeated tokens, for some seconds.

Leaves out encoder-decoders and models that need more than token ids: wrap them in a function.

B batch, T positions, V vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from minicpt.batch import sees_the_past
from minicpt.common.errors import InputError
from minicpt.proofs.black_box.calling import BlackBox
from minicpt.proofs.black_box.endings import SECONDS, Tried, shortened, try_endings
from minicpt.proofs.black_box.loading import load_model, one_line, resolve
from minicpt.proofs.black_box.prefixes import prove_equivalence
from minicpt.proofs.black_box.probing import (
    MOST,
    PAIRED,
    ROWS,
    Trial,
    can_test,
    is_leak,
    least,
    noise,
    probe,
    tolerance,
)
from minicpt.proofs.influence import (
    NoDerivatives,
    by_changes,
    by_derivatives,
    changed,
    gradients,
    moved,
    replaced,
)
from minicpt.proofs.leaks import (
    BY_CHANGES,
    BY_DERIVATIVES,
    NOT_COVERED,
    WHY,
    Leak,
    strongest_hidden,
    without_source,
    worst_leak,
)
from minicpt.proofs.result import Proof, report

__all__ = ["load_model", "prove_model", "report", "verify_model"]

PREFIXES = 17  # the longest row of which every prefix is run


def verify_model(
    model: Any,
    lengths: Sequence[int] | int | None = None,
    rows: Sequence[int] | int = ROWS,
    seed: int = 0,
    seconds: float = SECONDS,
) -> list[Proof]:
    """The proofs for any model from token ids to logits. It is left as it was.

    lengths  of the rows. None: every pair of positions in rows of 3, 17 and 33 tokens, and rows to
             each side of the powers of two; without those that the model refuses
    rows     of the batches; with one alone, leaks between rows cannot be seen
    seconds  for trying kinds of rows, in all modes together; the pairs come before, and count not

    Raises InputError where the model cannot be called, or gives something else than logits.
    """
    return list(prove_model(model, lengths, rows, seed, seconds))


def prove_model(
    model: Any,
    lengths: Sequence[int] | int | None = None,
    rows: Sequence[int] | int = ROWS,
    seed: int = 0,
    seconds: float = SECONDS,
) -> Iterator[Proof]:
    """The proofs of ``verify_model``, each as soon as it ends."""
    rows = [rows] if isinstance(rows, int) else sorted(set(rows))
    lengths = [lengths] if isinstance(lengths, int) else lengths
    box = BlackBox(resolve(model))
    with box.borrowed():
        trial = probe(box, lengths, PAIRED if PAIRED in rows else max(rows), seed)
        if woken := box.wake():
            trial.notes.append(
                f"{woken} parameters that were zero throughout got small random values in a copy, "
                "lest they hide a leak"
            )
        modes = {"eval mode": False, "train mode": True} if box.modules else {"as it is": False}
        for name, training in modes.items():
            for form in (BY_DERIVATIVES, BY_CHANGES):
                box.set_mode(training)
                found = prove(box, trial, form, name, rows, seconds / len(modes))
                notes = [found.message, *trial.notes]
                trial.notes.clear()  # said once
                yield replace(found, message="; ".join(notes))
        box.set_mode(False)
        length = max([len(s[0]) for s in trial.samples if len(s[0]) <= PREFIXES], default=0)
        samples = trial.samples or [trial.draw(PREFIXES).to(box.device)]
        tokens = next((s for s in samples if len(s[0]) == length), samples[0])
        yield prove_equivalence(box, tokens[:2].contiguous(), trial.precision)


# --- the two forms ---------------------------------------------------------------------------


def prove(
    box: BlackBox, trial: Trial, form: str, mode: str, rows: Sequence[int], seconds: float
) -> Proof:
    """One form of the causality proof in one mode, over all lengths."""
    title = f"causality by {form}, {mode}"
    try:
        with torch.no_grad():
            for tokens in trial.samples:
                first, second = box.logits(tokens), box.logits(tokens)
                if not torch.equal(first.nan_to_num(), second.nan_to_num()):
                    return failed(title, form, trial, "the same tokens give other logits each time")
                if first.isnan().any():
                    row, position = first.isnan().any(-1).nonzero()[0].tolist()
                    return failed(title, form, trial, f"the logits at position {position} (row "
                                  f"{row}, length {tokens.shape[1]}) are not numbers")  # fmt: skip
        own_noise = noise(box, trial.samples)
        limit = tolerance(own_noise, trial.dtype)
        strongest, quiet, outputs, leak, tried = 0.0, 0, 0, None, None
        if not trial.samples and form == BY_DERIVATIVES:
            raise NoDerivatives(f"the rows are longer than {MOST} tokens, too long for every pair")
        for tokens in trial.samples:
            ids, visible, wanted = declared(tokens)
            influence = measure(box, form, ids, visible, wanted, trial.allowed, mode)
            judge = judge_of(box, form, ids, visible, trial, limit, mode)
            leak = worst_leak(influence, visible, judge)
            strongest = max(strongest, strongest_hidden(influence, visible))
            quiet += len(without_source(influence, visible, wanted))
            outputs += wanted.numel()
            length, where = tokens.shape[1], f"in rows of {tokens.shape[1]}"
            if leak is not None:
                break
        if leak is None and form == BY_CHANGES:
            tried = try_endings(
                box, trial.lengths, rows, trial.ordinary, trial.special, limit, seconds,
                first=trial.known, paired=max((len(s[0]) for s in trial.samples), default=0),
                key=mode,
            )  # fmt: skip
            leak, length, where = tried.leak, tried.length, tried.where
            strongest = max(strongest, tried.strongest)
    except InputError:
        raise
    except Exception as error:
        return not_run(title, form, trial, error)
    numbers = {
        "worst": strongest,
        "place": leak and {**leak.place(), "length": length},
        "tolerance": least(box) if can_test(box) else limit,
        "noise": own_noise,
        "lengths": [sample.shape[1] for sample in trial.samples],
        "rows": len(trial.samples[0]) if trial.samples else None,
        "outputs": outputs,
        "precision": trial.precision,
    }
    if tried is not None:
        numbers |= {
            "lengths of the rows tried": tried.lengths,
            "rows of a batch tried": sorted(tried.rows),
            "special ids tried": ", ".join(trial.special.values()),
            "pairs of batches tried": tried.batches,
            "seconds for trying": seconds,
        }
    if leak is not None:
        message = f"{leak.text()}, {where}"
    elif outputs and quiet == outputs and form == BY_DERIVATIVES:
        error = NoDerivatives("its outputs have no derivative by any token")
        return not_run(title, form, trial, error)
    elif outputs and quiet == outputs:
        return failed(title, form, trial, "vacuous: the logits do not depend on the tokens at all")
    else:
        message = "no position depends on a later one, or on another row"
        if strongest:
            message += f", but for {strongest:.1g}, which is rounding: " + (
                "below the tolerance, or gone when the weights are moved a little"
                if can_test(box)
                else "within the model's own noise"
            )
        if quiet:
            message += f"; {quiet} of {outputs} outputs depend on nothing"
    return Proof(
        title, leak is None, compared_by(form), numbers, WHY[form],
        f"{NOT_COVERED[form]}; longer rows, and other weights", message,
        worst=strongest, tolerance=numbers["tolerance"],
        untried=untried(trial, tried, rows, seconds) if tried and leak is None else "",
    )  # fmt: skip


def untried(trial: Trial, tried: Tried, rows: Sequence[int], seconds: float) -> str:
    """What the trials with kinds of rows left out; their time is a part of it."""
    most = max([*tried.lengths, *(len(sample[0]) for sample in trial.samples)])
    parts = [f"rows of more than {most} tokens"] if trial.lengths is None else ["other lengths"]
    parts += [*tried.untried, f"batches of other than {shortened(sorted(tried.rows))} rows"]
    parts += [f"other special ids than {', '.join(map(str, sorted(trial.special)))}"]
    return f"{'; '.join(parts)} ({seconds:g} s were allowed in each mode)"


def declared(tokens: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """The streams, the causal pattern (B, T, T), and that all outputs are wanted (B, T)."""
    wanted = torch.ones(tokens.shape, dtype=torch.bool)
    return {"tokens": tokens}, {"tokens": sees_the_past(wanted)}, wanted


def measure(box: BlackBox, form: str, ids, visible, wanted, allowed, key: str):
    """The influence, by one form; ``key`` draws the tokens that others are changed to."""

    def run(streams):
        return box.logits(streams["tokens"])

    if form == BY_DERIVATIVES:
        return by_derivatives(run, ids, visible, wanted)
    return by_changes(run, ids, visible, wanted, allowed, key)


def judge_of(
    box: BlackBox, form: str, ids, visible, trial: Trial, limit: float, key: str
) -> Callable[[Leak], bool]:
    """Tells a leak from rounding: see ``probing``."""
    tokens = ids["tokens"]
    places = torch.arange(tokens.shape[1])

    def run(streams):
        return box.logits(streams["tokens"])

    def derivatives(leak: Leak) -> Tensor:
        """At all inputs that the leak's output may not see."""
        found = next(gradients(run, ids, [(leak.to_row, leak.to)]))["tokens"].cpu()  # (B, T, D)
        may_not = torch.ones(tokens.shape, dtype=torch.bool)
        may_not[leak.to_row] = places > leak.to
        return found[may_not].flatten().double()

    @torch.no_grad()
    def changes(leak: Leak) -> Tensor:
        """At all outputs that may not see what was changed."""
        still = torch.ones(tokens.shape, dtype=torch.bool)
        if leak.position is None:
            other = replaced(ids, visible, leak.to_row, leak.to, trial.allowed, key)
            still[:] = False
            still[leak.to_row] = places <= leak.to
        else:
            other = changed(ids, leak.stream, leak.row, leak.position, trial.allowed, key)
            still[leak.row] = places < leak.position
        before, after = run(ids), run(other)
        signed = moved(before, after) * (after - before).sign().nan_to_num().cpu()
        return signed[still].flatten().double()

    measured = derivatives if form == BY_DERIVATIVES else changes
    return lambda leak: is_leak(box, leak.size, limit, lambda: measured(leak))


def compared_by(form: str) -> str:
    if form == BY_DERIVATIVES:
        return "the derivative of the logits at each position of each row, with the embedded tokens"
    return "the logits before and after changing each token, and all invisible ones together"


def failed(title: str, form: str, trial: Trial, message: str) -> Proof:
    lengths = [each.shape[1] for each in trial.samples]
    numbers = {"worst": None, "place": None, "tolerance": None, "lengths": lengths,
               "precision": trial.precision}  # fmt: skip
    return Proof(title, False, compared_by(form), numbers, message=message)


def not_run(title: str, form: str, trial: Trial, error: Exception) -> Proof:
    other = BY_CHANGES if form == BY_DERIVATIVES else BY_DERIVATIVES
    why = str(error) if isinstance(error, NoDerivatives) else one_line(error)
    return Proof(
        title, None, compared_by(form), {"worst": None, "place": None, "tolerance": None},
        message=f"could not be run: {why}; left to the form by {other}",
    )  # fmt: skip
