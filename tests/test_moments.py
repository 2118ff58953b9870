"""Moments: Adam goes on from the base's run as one optimizer that never stopped."""

import copy
import io
import re

import pytest
import torch
from making import close
from test_ends import made, same

from minicpt import checkpoint
from minicpt.cli.main import main
from minicpt.common.errors import InputError
from minicpt.remedies.base import check_together
from minicpt.remedies.lora import LoRA
from minicpt.remedies.moments import Moments
from minicpt.runs.assembly import make_remedies, make_trainer
from minicpt.training.resuming import carry, named_moments, optimized, state_of
from minicpt.training.trainer import Training

ASKED = {"moments": {"moments": True}}


def trainer_of(tokenizer, corpus, model=None, moments=None, state=None, seed=0, **more):
    own, objective = made("gpt2", tokenizer)
    model = own.double() if model is None else model
    chosen = make_remedies(ASKED if moments is not None or state else {}, "decoder", objective)
    settings = Training(batch_size=3, learning_rate=1e-2, max_grad_norm=0.0, seed=seed, **more)
    return make_trainer(
        model, objective, corpus, settings, 4, chosen=chosen, state=state, moments=moments
    )


def kept(trainer):
    """Its state as another process reads it."""
    file = io.BytesIO()
    torch.save(state_of(trainer), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def by_hand(model):
    """torch's AdamW in its plain form, over a copy of the weights: matrices decay, vectors not."""
    weights = {name: each.detach().clone() for name, each in model.named_parameters()}
    groups = [
        {"params": [each for each in weights.values() if (each.dim() > 1) == decays],
         "weight_decay": 0.1 * decays}
        for decays in (True, False)
    ]  # fmt: skip
    own = {"betas": (0.9, 0.99), "eps": 1e-8, "foreach": False, "fused": False}
    return weights, torch.optim.AdamW(groups, lr=0.0, **own)


def follow(trainer, weights, optimizer):
    """Runs to the end, and gives each step's gradients to the optimizer by hand."""
    for step in trainer.run():
        for name, each in trainer.model.named_parameters():
            weights[name].grad = each.grad.clone()
        for group in optimizer.param_groups:
            group["lr"] = step.learning_rate
        optimizer.step()


def test_two_runs_are_one_adam_that_went_on(tokenizer, corpus, capsys):
    """Four steps and four more; with new moments the second run ends elsewhere."""
    base = trainer_of(tokenizer, corpus)
    weights, optimizer = by_hand(base.model)
    follow(base, weights, optimizer)
    found = named_moments(kept(base))
    model = copy.deepcopy(base.model)
    capsys.readouterr()
    longer = trainer_of(tokenizer, corpus, copy.deepcopy(model), found, seed=1)
    count = len(weights)
    said = f"minicpt: Adam's moments of {count} of {count} parameters go on from the base\n"
    assert capsys.readouterr().err == said
    follow(longer, weights, optimizer)
    for name, each in longer.model.named_parameters():
        close(each, weights[name], 256)
        assert longer.optimizer.state[each]["step"] == 8  # no second correction of the bias
    anew = trainer_of(tokenizer, corpus, model, seed=1)
    list(anew.run())
    far = max((each - weights[name]).abs().max() for name, each in anew.model.named_parameters())
    assert far > 1e-3


def test_a_run_that_goes_on_ends_with_the_same_bits(tokenizer, corpus):
    base = trainer_of(tokenizer, corpus, made("gpt2", tokenizer)[0])
    list(base.run())
    ends = []
    for stop in (False, True):
        found = named_moments(kept(base))
        trainer = trainer_of(tokenizer, corpus, copy.deepcopy(base.model), found, seed=1)
        trainer.advance()
        if stop:
            model, state = copy.deepcopy(trainer.model), kept(trainer)
            trainer = trainer_of(tokenizer, corpus, model, state=state, seed=1)
        list(trainer.run())
        ends.append(trainer.model)
    assert same(*ends)


def test_only_the_same_name_and_shape_is_carried(tokenizer, corpus):
    base = trainer_of(tokenizer, corpus)
    base.advance()
    found = named_moments(kept(base))
    first, second, *rest = found
    fewer = {name: found[name] for name in (second, *rest)}
    fewer[second] = {name: each[None] for name, each in found[second].items()}  # another shape
    fewer["parts.head.weight"] = found[first]
    trainer = trainer_of(tokenizer, corpus)
    said = carry(trainer, fewer)
    part = f"{len(rest)} of {len(found)}"
    assert said == f"Adam's moments of {part} parameters go on from the base; 2 begin anew"
    for name, each in optimized(trainer).items():
        state = trainer.optimizer.state[each]
        assert bool(state) == (name in rest)
        if state:
            assert torch.equal(state["exp_avg_sq"], found[name]["exp_avg_sq"])


def test_names_stand_in_the_order_of_the_optimizer(tokenizer, corpus):
    trainer = trainer_of(tokenizer, corpus)
    own, state = dict(trainer.model.named_parameters()), state_of(trainer)
    order = [each for group in trainer.optimizer.param_groups for each in group["params"]]
    assert [id(own[name]) for name in state["names"]] == [id(each) for each in order]


def test_lora_is_refused_beside_it():
    with pytest.raises(InputError, match="--(moments|lora) and --(lora|moments) exclude"):
        check_together({"moments": Moments, "lora": LoRA}, "decoder")


def test_on_the_command_line(tmp_path, capsys):
    """A base with moments, one whose moments have no names, and one that has none."""
    text = "".join(f"On day {n} the owl saw {n + 3} boats. It rained.\n\n" for n in range(80))
    (tmp_path / "text.txt").write_text(text)
    small = "--width 16 --layers 1 --num-heads 2 --vocab-size 280 --window 24".split()
    words = ["--corpus", str(tmp_path / "text.txt"), "--blocks", "--batch-size", "4"]
    words += ["--steps", "2", "--evaluate-passages", "8"]
    base, theirs, out = (str(tmp_path / name) for name in ("base", "theirs", "out"))
    assert main(["train", "causal-lm", *words, *small, "--out", base]) == 0
    assert main(["export", base, "--to", theirs]) == 0
    capsys.readouterr()
    go_on = ["train", "causal-lm", "--moments", *words, "--out", out, "--init"]
    assert main([*go_on, base]) == 0
    found = capsys.readouterr()
    assert re.search(r"Adam's moments of (\d+) of \1 parameters go on from the base\n", found.err)
    assert re.search(r"remedies +Adam's moments go on\n", found.out)
    found = named_moments(checkpoint.load(out).state())
    assert {each["step"].item() for each in found.values()} == {4.0}
    path = checkpoint.load(base).folder
    state = torch.load(path / "state.pt", weights_only=True)
    del state["names"]
    torch.save(state, path / "state.pt")
    (path / checkpoint.MANIFEST).unlink()
    checkpoint.write_manifest(path)
    for given, why in ((theirs, "holds no moments of Adam; name"), (base, "does not say whose")):
        assert main([*go_on[:-2], str(tmp_path / "none"), "--init", given]) == 2
        error = capsys.readouterr().err
        assert re.search(f"error: --moments cannot be used here: .* {why} .*\n$", error)
        assert not (tmp_path / "none").exists()
