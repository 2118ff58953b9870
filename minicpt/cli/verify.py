"""``minicpt verify``: proofs that the losses are computed rightly, and faults that they catch."""

import argparse
import shutil
import textwrap

from tqdm import tqdm

from minicpt import discovery, models
from minicpt.cli import pieces
from minicpt.cli.running import print_json, say, summary_of
from minicpt.errors import InputError
from minicpt.verify import suite
from minicpt.verify.faults import FAULTS, Fault
from minicpt.verify.foreign import verify_model
from minicpt.verify.loading import load_model
from minicpt.verify.result import Proof, report

EXAMPLES = """examples:
  minicpt verify causal-lm
  minicpt verify --break all
"""


def add(verbs) -> None:
    faults = textwrap.fill("faults: " + ", ".join(FAULTS), 78, break_on_hyphens=False)
    parser = verbs.add_parser(
        "verify",
        help="prove that the losses are right, for our models or for yours",
        description=summary_of(__doc__),
        epilog=f"{faults}\n\n{EXAMPLES}",
    )
    parser.add_argument("objectives", metavar="OBJECTIVE", nargs="*", help="all by default")
    parser.add_argument("--model", metavar="MODULE:NAME", help="a causal model of your own")
    parser.add_argument("--break", dest="fault", metavar="FAULT", help="make a mistake, or all")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(arguments: argparse.Namespace) -> int:
    names = [name for name in arguments.objectives if name != "all"]
    for name in names:
        pieces.objective_module(name)
    if arguments.model is not None:
        if arguments.fault is not None or arguments.objectives:
            raise InputError("--model is verified alone; leave out the objectives and --break")
        return own(verify_model(load_model(arguments.model)), arguments.json)
    subjects = suite.subjects(pieces.objective_modules(), discovery.modules(models))
    if arguments.fault is not None:
        faults = wanted_faults(arguments.fault, names, {each.name: each for each in subjects})
        return broken(faults, {subject.name: subject for subject in subjects}, arguments.json)
    wanted = [subject for subject in subjects if not names or subject.kind in names]
    found = {
        subject.name: list(suite.prove(subject))
        for subject in tqdm(wanted, desc="verify", disable=None, leave=False)
    }
    total = sum(len(proofs) for proofs in found.values())
    held = sum(bool(proof.passed) for proofs in found.values() for proof in proofs)
    if arguments.json:
        print_json({name: [proof.as_data() for proof in each] for name, each in found.items()})
    elif len(names) == 1:
        for name, proofs in found.items():
            print(f"{name}\n{'=' * len(name)}\n")
            print(report(proofs, width()) + "\n")
    else:
        for name, proofs in found.items():
            print(name)
            for proof in proofs:
                mark = "proved" if proof.passed else f"FAILED: {proof.message}"
                print(filled(f"{proof.name}: {mark}"))
        print(f"\n{held} of {total} proofs hold. `minicpt verify OBJECTIVE` tells more.")
    return int(held < total)


def width() -> int:
    return max(30, min(100, shutil.get_terminal_size().columns))


def filled(text: str, indent: str = "  ") -> str:
    """A text in lines of the terminal's width, indented."""
    indents = {"initial_indent": indent, "subsequent_indent": indent + "  "}
    return textwrap.fill(text, width(), break_on_hyphens=False, **indents)


def own(proofs: list[Proof], as_json: bool) -> int:
    """Shows what was proved of somebody's model; status 1 unless enough of it was.

    Nothing may fail, and in each mode at least one form of the causality proof must have run.
    """
    if as_json:
        print_json({"model": [proof.as_data() for proof in proofs]})
    else:
        print(report(proofs, width()))
    causality = [proof for proof in proofs if proof.name.startswith("causality")]
    modes = {proof.name.rsplit(",", 1)[-1] for proof in causality}
    proved = {proof.name.rsplit(",", 1)[-1] for proof in causality if proof.passed}
    if modes - proved and not any(proof.passed is False for proof in proofs):
        say("causality could not be proved: neither of its forms could be run")
    return int(bool(modes - proved) or any(proof.passed is False for proof in proofs))


def wanted_faults(name: str, names: list[str], subjects: dict) -> list[Fault]:
    """The faults that were asked for. InputError where there is none."""
    if name != "all" and name not in FAULTS:
        raise InputError(f"no fault is called {name!r}; use all or one of {', '.join(FAULTS)}")
    faults = list(FAULTS.values()) if name == "all" else [FAULTS[name]]
    found = [each for each in faults if not names or subjects[each.subject].kind in names]
    if not found:
        raise InputError(f"the fault {name} belongs to {faults[0].subject}, not to {names[0]}")
    return found


def broken(faults: list[Fault], subjects: dict, as_json: bool) -> int:
    """Makes the faults and shows which proofs catch each; status 1 if one is missed.

    False alarms are counted beside them: proofs that fail on the sound pieces.
    """
    unbroken = {fault.subject: subjects[fault.subject] for fault in faults}
    rows, alarms, sound = [], 0, 0
    with tqdm(total=len(faults) + len(unbroken), desc="verify", disable=None, leave=False) as bar:
        for fault in faults:
            caught = suite.catch(fault, subjects[fault.subject])
            rows.append(
                {
                    "number": fault.number,
                    "fault": fault.name,
                    "subject": fault.subject,
                    "mistake": fault.what,
                    "caught_by": {proof.name: proof.message for proof in caught},
                }
            )
            bar.update()
        for subject in unbroken.values():
            for proof in suite.prove(subject):
                sound += 1
                alarms += proof.passed is False
            bar.update()
    missed = sum(not row["caught_by"] for row in rows)
    if as_json:
        counts = {"missed": missed, "sound_proofs": sound, "false_alarms": alarms}
        print_json({"faults": rows} | counts)
        return int(bool(missed or alarms))
    for row in rows:
        print(filled(f"{row['number']:>2} {row['fault']}: {row['mistake']} ({row['subject']})", ""))
        for name, message in row["caught_by"].items() or [("MISSED by every proof", "")]:
            print(filled(f"{name}: {message}" if message else name, "   "))
    print(
        f"\n{len(rows) - missed} of {len(rows)} faults caught; "
        f"{alarms} false alarms in {sound} proofs on the sound pieces."
    )
    return int(bool(missed or alarms))
