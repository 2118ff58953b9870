"""Objectives: what the model reads, and which positions have a target. One file each.

A module of this package is an objective when it has two names:

Settings   a frozen dataclass of its own settings, each of which becomes a flag
Objective  built from ``(tokenizer, settings)``, with

    architecture   the model it needs: "encoder", "decoder" or "encoder-decoder"
    whole_text     whether its targets are all of the text, so that its loss has a meaning in bits
                   per byte
    length         the most positions that the model reads at once
    plan(corpus, seed, epoch) -> Plan: the epoch's passages in their order, like lengths together
    places(passage) -> (N,) int64, only with ``whole_text``: for each target of a passage, in the
                   order of the positions, the number of the corpus' token that it stands for; -1
                   for end-of-text, which stands for no text
    batch(passages, generators) -> Batch, with one random generator for each passage
    visibility(batch) -> head -> input stream -> (B, T, length of the stream) bool: what each
                   target may see; the per-token loss, ``explain`` and the proofs all read it
    generate(model, text, sampling, generator) -> str, what a trained model does with a text
    probe(model, passage, sampling, generator) -> str, the same on held-out text while training

and, for what ``explain`` says, where it is not the default:

    unit           what a passage of its plan is ("passage")
    classes        head -> the names of its classes, for a head whose classes are no tokens
    fates(batch)   head -> for each row {position: "hidden", "replaced" or "kept"}, what became of
                   the tokens that the head predicts, for a head that predicts what is read

What every objective keeps to; the contract tests and ``minicpt verify`` hold it to this:

settings    made by ``settings.setting`` in a ``Checked`` dataclass: each has a help text and a
            default, and a number has a lower bound. A setting called ``window`` is the length:
            tests and proofs make it short
plan        a pure function of (corpus, seed, epoch), and another one for each of these. Each
            passage has a ``place``, a text that names its document
batch       a pure function of passages and generators: a row does not depend on its neighbours.
            Padding stands on the right, has no target, and fills no column alone. Targets are
            int64, along the stream of ``loss.target_stream``, at most ``length`` of them in a row;
            their heads are among the model's. A batch shares no memory with the corpus
visibility  has the heads of the targets and the model's input streams. Nobody sees padding, and a
            target sees its own position
generate, probe   the same text for the same generator
everywhere  torch's own random generator is left alone; nothing that is given is changed

``verify`` looks targets up in the text by a rule that is written apart from the objective
(``verify/rules.py``). An objective without a rule is used like any other, and ``verify`` says that
its targets were not checked. The same holds for proofs that need what an objective does not have.

Nothing else knows the names of the objectives: a new file is found, and gets its command line, for
which the first line of its docstring is the help.
"""
