"""``minicpt verify``: proofs that the losses are computed rightly, and faults that they catch."""

import argparse
import dataclasses
import math
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator

from minicpt import models
from minicpt.common.errors import InputError
from minicpt.common.terminal import needs_ascii
from minicpt.common.threads import one_thread
from minicpt.proofs import faults, processes, suite
from minicpt.proofs.black_box.endings import SECONDS
from minicpt.proofs.black_box.loading import load_model
from minicpt.proofs.black_box.probing import ROWS
from minicpt.proofs.black_box.verdict import prove_model
from minicpt.proofs.faults.base import Fault
from minicpt.proofs.result import Proof, unchecked
from minicpt.proofs.subject import Subject
from minicpt.runs.assembly import objective_kind
from minicpt.runs.console import print_json, say

MOST_PROCESSES = 16  # each imports torch: 0.3 GB and seconds of CPU time
EXAMPLES = """examples:
  minicpt verify causal-lm
  minicpt verify --break all
"""


def add(parser: argparse.ArgumentParser) -> None:
    known = textwrap.fill("faults: " + ", ".join(faults.known()), 78, break_on_hyphens=False)
    parser.epilog = f"{known}\n\n{EXAMPLES}"
    parser.add_argument("objectives", metavar="OBJECTIVE", nargs="*", help="all by default")
    parser.add_argument("--details", action="store_true", help="explain each proof")
    parser.add_argument(
        "--model", metavar="MODEL", help="a model of ours for the objectives, in place of the usual"
        f" ones: {', '.join(models.known())}; or MODULE:NAME, a causal model of your own",
    )  # fmt: skip
    of_model = {"nargs": "+", "type": whole, "metavar": "N"}
    parser.add_argument(
        "--lengths", **of_model, help="of --model's rows; default: about the powers of two, as far"
        " as the model goes",
    )  # fmt: skip
    parser.add_argument(
        "--rows", **of_model, help=f"of --model's batches; default: {' '.join(map(str, ROWS))}"
    )
    parser.add_argument(
        "--seconds", type=seconds, metavar="S",
        help=f"for trying kinds of rows on --model; default: {SECONDS:g}",
    )  # fmt: skip
    parser.add_argument(
        "--break", dest="faults", metavar="FAULT", action="append",
        help="make a mistake, or all; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--processes", type=few, metavar="N", help="also prove that N processes, which it starts"
        f" itself, make the gradient of one; at most {MOST_PROCESSES}",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def whole(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def few(text: str) -> int:
    if whole(text) > MOST_PROCESSES:
        raise argparse.ArgumentTypeError(f"{text} processes are too many for one machine")
    return int(text)


def seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def run(arguments: argparse.Namespace) -> int:
    names = [name for name in arguments.objectives if name != "all"]
    for name in names:
        objective_kind(name)
    own_model = arguments.model is not None and arguments.model not in models.known()
    if arguments.processes and (own_model or arguments.faults):
        raise InputError(
            "--processes belongs to the proofs of our own objectives; faults of several processes"
            " are made with two: leave it out"
        )
    if own_model:
        if arguments.faults or arguments.objectives:
            raise InputError(
                f"--model {arguments.model} is not one of {', '.join(models.known())}; a model of"
                " your own is verified alone: leave out the objectives and --break"
            )
        return own(arguments)
    for flag in ("lengths", "rows", "seconds"):
        if getattr(arguments, flag) is not None:
            raise InputError(f"--{flag} belongs to --model MODULE:NAME; ours are small and fixed")
    if arguments.model and arguments.faults:
        raise InputError("faults are made in our usual models; leave out --model or --break")
    with one_thread():
        return ours(arguments, names)


def ours(arguments: argparse.Namespace, names: list[str]) -> int:
    """The proofs of our own objectives, or the faults that they must catch."""
    if arguments.faults is not None:
        return broken(wanted_faults(arguments.faults, names), arguments.json)
    found = {
        subject.name: show(subject.name, proofs_of(subject, arguments), arguments)
        for subject in suite.subjects(names, arguments.model or "")
    }
    if arguments.json:
        print_json({name: [proof.as_data() for proof in each] for name, each in found.items()})
    else:
        several = len(found) > 1
        finish([
            dataclasses.replace(proof, name=f"{name}: {proof.name}") if several else proof
            for name, proofs in found.items()
            for proof in proofs
        ], arguments)  # fmt: skip
    return int(any(proof.passed is False for each in found.values() for proof in each))


def proofs_of(subject: Subject, arguments: argparse.Namespace) -> Iterator[Proof]:
    """Those of one process, and of several if they are asked for."""
    yield from suite.prove(subject)
    if arguments.processes:
        yield processes.prove(subject, arguments.processes, arguments.model or "")


# --- what is shown


def show(heading: str, proofs: Iterable[Proof], arguments: argparse.Namespace) -> list[Proof]:
    """The proofs, each shown when it ends, also into a pipe; beside JSON, on stderr."""
    out = sys.stderr if arguments.json else sys.stdout
    details = arguments.details and not arguments.json
    style = {"color": out.isatty(), "ascii": needs_ascii(out.encoding)}
    print(heading, end="\n\n" if details else "\n", file=out, flush=True)
    found = []
    for proof in proofs:
        found.append(proof)
        draw = proof.as_text if details else proof.as_line
        print(draw(width(), **style), end="\n\n" if details else "\n", file=out, flush=True)
    if not details:
        print(file=out, flush=True)
    return found


def finish(proofs: list[Proof], arguments: argparse.Namespace) -> None:
    """How many proofs hold, and what was not checked."""
    checked = [proof for proof in proofs if proof.passed is not None]
    held = sum(bool(proof.passed) for proof in checked)
    more = "" if arguments.details else " --details explains them."
    print("\n".join(filled(f"{held} of {len(checked)} proofs hold.{more}", "")))
    if text := unchecked(proofs, width()):
        print(text)


def width() -> int:
    return max(30, min(100, shutil.get_terminal_size((100, 24)).columns))


def filled(text: str, indent: str = "  ") -> list[str]:
    """A text in lines of the terminal's width, indented."""
    indents = {"initial_indent": indent, "subsequent_indent": indent + "  "}
    return textwrap.wrap(text, width(), break_on_hyphens=False, **indents)


# --- somebody's model, and faults


def own(arguments: argparse.Namespace) -> int:
    """Shows what was proved of somebody's model; status 1 unless enough of it was.

    Nothing may fail, and in each mode at least one form of the causality proof must have run.
    """
    given = {name: getattr(arguments, name) for name in ("lengths", "rows", "seconds")}
    given = {name: value for name, value in given.items() if value is not None}
    proofs = show(arguments.model, prove_model(load_model(arguments.model), **given), arguments)
    if arguments.json:
        print_json({"model": [proof.as_data() for proof in proofs]})
    else:
        finish(proofs, arguments)
    causality = [proof for proof in proofs if proof.name.startswith("causality")]
    modes = {proof.name.rsplit(",", 1)[-1] for proof in causality}
    proved = {proof.name.rsplit(",", 1)[-1] for proof in causality if proof.passed}
    failed = any(proof.passed is False for proof in proofs)
    if modes - proved and not failed:
        say("causality could not be proved: neither of its forms could be run")
    return int(failed or bool(modes - proved))


def wanted_faults(asked: list[str], names: list[str]) -> list[Fault]:
    """The faults that were asked for, each once. InputError where there is none."""
    known = faults.known()
    for name in asked:
        if name == "all":
            continue
        if name not in known:
            raise InputError(f"no fault is called {name!r}; use all or one of {', '.join(known)}")
        if names and known[name].objective not in names:
            raise InputError(
                f"the fault {name} belongs to {known[name].objective}, not to {', '.join(names)}"
            )
    found = [
        each
        for each in known.values()
        if each.name in asked or ("all" in asked and each.objective in (names or [each.objective]))
    ]
    if not found:
        raise InputError(f"no fault belongs to {', '.join(names)}")
    return found


def broken(made: list[Fault], as_json: bool) -> int:
    """Makes the faults and shows which proofs catch each; status 1 if one is missed.

    False alarms are counted beside them: proofs that fail on the sound pieces.
    """
    objectives = dict.fromkeys(fault.objective for fault in made)
    sound = {each.name: each for each in suite.subjects(objectives)}
    out = sys.stderr if as_json else sys.stdout
    rows = []
    for fault in made:
        caught = suite.catch(fault, sound[fault.subject])
        row = {
            "number": fault.number,
            "fault": fault.name,
            "known_mistake": fault.mistake,
            "subject": fault.subject,
            "mistake": fault.what,
            "caught_by": {proof.name: proof.message for proof in caught},
        }
        rows.append(row)
        lines = filled(f"{fault.number:>2} {fault.name}: {fault.what} ({fault.subject})", "")
        for name, message in row["caught_by"].items() or [("MISSED by every proof", "")]:
            lines += filled(f"{name}: {message}" if message else name, "   ")
        print("\n".join(lines), file=out, flush=True)
    used = dict.fromkeys(fault.subject for fault in made)
    proofs = [proof for name in used for proof in suite.prove(sound[name])]
    checked = sum(proof.passed is not None for proof in proofs)
    alarms = sum(proof.passed is False for proof in proofs)
    missed = sum(not row["caught_by"] for row in rows)
    if as_json:
        counts = {"missed": missed, "sound_proofs": checked, "false_alarms": alarms}
        print_json({"faults": rows} | counts)
    else:
        text = f"{len(rows) - missed} of {len(rows)} faults caught; "
        text += f"{alarms} false alarms in {checked} proofs on the sound pieces."
        print("\n".join(["", *filled(text, "")]))
    return int(bool(missed or alarms))
