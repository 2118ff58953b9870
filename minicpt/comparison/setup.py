"""From the flags of ``compare`` to its texts, models and parts; finds all that can be wrong."""

import copy
import dataclasses
from functools import partial
from pathlib import Path

import torch

from minicpt import checkpoint
from minicpt.common.errors import InputError
from minicpt.comparison import texts
from minicpt.comparison.plan import CONTROL, OBJECTIVES, Comparison, arms_of, parts
from minicpt.comparison.store import Store
from minicpt.comparison.through import Job
from minicpt.comparison.work import SIDES, Work
from minicpt.data.documents import Document, Documents
from minicpt.data.tokenizer import Tokenizer
from minicpt.remedies.adapters import Partial, restrict
from minicpt.runs import build, continuing
from minicpt.runs.loop import say, versions
from minicpt.training.device import Machine
from minicpt.training.evaluation import HIDDEN, too_much_hidden


def prepare(what, comparison: Comparison, machine: Machine, quick: bool, tell) -> Job:
    """Everything that can be wrong is found here, before the first step."""
    now = versions() | {"device": machine.device, "threads": torch.get_num_threads()}
    folder = Path(what.out or ("runs/compare-quick" if quick else "runs/compare"))
    store = Store(folder, now, say)
    store.check()
    base = checkpoint.load(what.init) if what.init else None
    for note in base.notes if base else []:
        say(note)
    names = objectives_of(what, base)
    for name in names if base else []:
        build.check_kind(base.model, name, base.folder)
    kinds = {name: build.objective_module(name).Objective.role for name in names}
    sizes = {"width": comparison.width, "layers": comparison.layers, "dropout": 0.0}
    for kind in set(kinds.values()):
        build.check_sizes(build.model_module(kind).Config, sizes)
    arms = arms_of(names, what.remedies, kinds, quick)
    of_text = build.Text(
        corpus=what.corpus, blocks=what.blocks, errors=what.errors, held_out=what.held_out
    )
    sides = {"old": old_texts(what, base, of_text), "new": [build.texts(of_text)]}
    if any(CONTROL in each for each in arms.values()) and what.control:
        sides["wrong"] = [build.texts(dataclasses.replace(of_text, corpus=what.control))]
    check_apart(sides)
    everything = [each for found in sides.values() for each in found]
    divided = {
        side: bounded(found, cleared(side, found, everything), what.characters)
        for side, found in sides.items()
    }
    if base:
        tokenizer = base.tokenizer
    else:
        old = (document.text for document in divided["old"][0])
        tokenizer = Tokenizer.train(old, comparison.vocab_size)
    domains = {
        side: texts.domain(
            *each,
            tokenizer,
            [source for found in sides[side] for source in found.settings.corpus],
            comparison.window - 2,
            comparison.probe_passages,
        )
        for side, each in divided.items()
    }
    domains.setdefault("wrong", domains["old"])
    make = partial(objective, tokenizer, comparison.window)
    objectives = {name: make(name) for name in names}
    for name, each in objectives.items():
        if base:
            build.check_fit(base.model, each, base.folder)
        corpora = {f"{side}, {part}": getattr(domain, part) for side, domain in domains.items()
                   for part in ("training", "held_out")}  # fmt: skip
        build.check_plans(each, corpora)
        if "lora" in arms[name]:
            model = copy.deepcopy(base.model) if base else build.untrained(each, **sizes)
            restrict(model, Partial(lora=comparison.lora), 0)
    chosen = dataclasses.asdict(comparison)
    del chosen["seeds"]  # more seeds leave what is done as it is
    settings = (
        chosen
        | {
            "objectives": names,
            "texts": {side: [each.record["sha256"] for each in sides.get(side, sides["old"])]
                      for side in ("old", "new", "wrong")},
            "blocks": what.blocks,
            "errors": what.errors,
            "held_out": what.held_out,
            "characters": what.characters,
            "base": files(base.folder) if base else None,
            "tokenizer": tokenizer.sha256,
            "dtype": machine.dtype,
        }
    )  # fmt: skip
    work = Work(
        comparison=comparison,
        tokenizer=tokenizer,
        domains=domains,
        objectives=objectives,
        objective=make,
        untrained=partial(build.untrained, **sizes),
        store=store,
        machine=machine,
        given=base.folder if base else None,
        old_record=sides["old"][0].record,
    )
    describe(tell, sides, domains, work)
    fit = continuing.vocabulary(tokenizer, sides["new"][0], sides["old"])
    for line in continuing.vocabulary_lines(fit, tokenizer):
        tell(line)
    return Job(work, parts(comparison, kinds, arms), settings, fit)


def objectives_of(what, base) -> list[str]:
    """The objectives that were asked for, else all that the article names and the base fits."""
    if what.objectives:
        return list(what.objectives)
    able = build.role(base.model) if base else None
    found = build.objective_modules()
    return [
        name for name in OBJECTIVES if able in (None, found[name].Objective.role)
    ]


def objective(tokenizer: Tokenizer, window: int, name: str, **settings):
    module = build.objective_module(name)
    return module.Objective(tokenizer, module.Settings(window=window, **settings))


def old_texts(what, base, settings: build.Text) -> list[build.Texts]:
    if base:
        if found := continuing.known_texts(base, what.old_corpus, settings):
            return found
        raise InputError(f"{what.init} does not say what text it knows; name it with --old-corpus")
    sources = what.old_corpus or ("builtin:docs",)
    return [build.texts(dataclasses.replace(settings, corpus=sources))]


def files(folder: Path) -> dict[str, str]:
    """The SHA-256 of each of a folder's files: what a given base is known by."""
    paths = sorted(path for path in folder.iterdir() if path.is_file())
    return {path.name: checkpoint.sha256(path) for path in paths}


def check_apart(sides: dict[str, list[build.Texts]]) -> None:
    if sides["new"][0].record["sha256"] in [each.record["sha256"] for each in sides["old"]]:
        raise InputError("the new text is the old one; give another --corpus or --old-corpus")


def cleared(
    side: str, found: list[build.Texts], everything: list[build.Texts]
) -> Documents:
    """What is held out of some texts, and stands in no text that is trained on."""
    left = [build.clear(each, everything) for each in found]
    if not any(left):
        raise InputError(f"the {side} text: {build.nothing_left(found[0])}; give another text")
    return Documents.joined(left)


def bounded(
    found: list[build.Texts], held_out: Documents, characters: int
) -> list[list[Document]]:
    """Training and held-out documents of so many characters in all; each side keeps its share."""
    sides = [Documents.joined(each.training for each in found), held_out]
    whole = sum(side.characters for side in sides)
    part = min(1, characters / whole) if characters else 1
    return [texts.bounded(side, max(1, round(part * side.characters))) for side in sides]


def describe(tell, sides, domains, work: Work) -> None:
    for side, found in sides.items():
        domain = domains[side]
        sources = " ".join(source for each in found for source in each.settings.corpus)
        tell(
            f"{side + ' text':<9} {sources}: {len(domain.training.tokens):,} tokens for training,"
            f" {len(domain.held_out.tokens):,} held out in {len(domain.held_out.documents):,}"
            " documents"
        )
        if domain.probe:
            tell(f"          the probe tells apart: {', '.join(domain.probe[0].parts)}")
    hidden = max(domains[side].held_out.hidden for side in SIDES)
    if hidden > HIDDEN and any(each.whole_text for each in work.objectives.values()):
        tell(f"losses    in nats a target alone, not in bits a byte: {too_much_hidden(hidden)}")
    tell(f"results   in {work.store.folder}")
