"""``minicpt verify``: proofs that the losses are computed rightly, and faults that they catch."""

import argparse
import shutil
import textwrap

from tqdm import tqdm

from minicpt import discovery, models
from minicpt.cli import pieces
from minicpt.cli.running import print_json, summary_of
from minicpt.errors import InputError
from minicpt.verify import suite
from minicpt.verify.faults import FAULTS
from minicpt.verify.foreign import verify_model
from minicpt.verify.loading import load_model
from minicpt.verify.result import Proof, report

EXAMPLES = """examples:
  minicpt verify causal-lm
  minicpt verify --break all
"""
MARKS = {True: "proved", False: "FAILED", None: "not run"}


def add(verbs) -> None:
    parser = verbs.add_parser(
        "verify",
        help="prove that the losses are right, for our models or for yours",
        description=summary_of(__doc__),
        epilog=f"faults: {textwrap.fill(', '.join(FAULTS), 92)}\n\n{EXAMPLES}",
    )
    parser.add_argument("objectives", metavar="OBJECTIVE", nargs="*", help="all by default")
    parser.add_argument("--model", metavar="MODULE:NAME", help="a causal model of your own")
    parser.add_argument("--break", dest="fault", metavar="FAULT", help="make a mistake, or all")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(arguments: argparse.Namespace) -> int:
    names = [name for name in arguments.objectives if name != "all"]
    for name in names:
        pieces.objective_module(name)
    if arguments.model and (arguments.fault or names):
        raise InputError("--model is verified alone; leave out the objectives and --break")
    if arguments.model:
        return show(verify_model(load_model(arguments.model)), arguments.json)
    subjects = suite.subjects(pieces.objective_modules(), discovery.modules(models))
    if arguments.fault:
        return broken(arguments, {subject.name: subject for subject in subjects})
    wanted = [subject for subject in subjects if not names or subject.kind in names]
    found = {
        subject.name: list(suite.prove(subject))
        for subject in tqdm(wanted, desc="verify", disable=None, leave=False)
    }
    if len(wanted) <= 2 and not arguments.json:
        for name, proofs in found.items():
            print(f"{name}\n{'=' * len(name)}\n")
            print(report(proofs, width()) + "\n")
        return status(found)
    if arguments.json:
        print_json({name: [proof.as_data() for proof in each] for name, each in found.items()})
        return status(found)
    for name, proofs in found.items():
        print(name)
        for proof in proofs:
            print(line(proof))
    total = sum(len(proofs) for proofs in found.values())
    failed = sum(proof.passed is False for proofs in found.values() for proof in proofs)
    print(f"\n{total - failed} of {total} proofs hold. `minicpt verify OBJECTIVE` tells more.")
    return status(found)


def width() -> int:
    return max(60, min(100, shutil.get_terminal_size().columns))


def status(found: dict[str, list[Proof]]) -> int:
    return int(any(proof.passed is False for proofs in found.values() for proof in proofs))


def line(proof: Proof) -> str:
    text = f"  {MARKS[proof.passed]}  {proof.name}"
    return text if proof.passed else f"{text}: {proof.message}"


def show(proofs: list[Proof], as_json: bool) -> int:
    if as_json:
        print_json({"model": [proof.as_data() for proof in proofs]})
    else:
        print(report(proofs, width()))
    return status({"model": proofs})


def broken(arguments: argparse.Namespace, subjects: dict) -> int:
    """Makes one fault, or all, and shows which proof catches each; status 1 if one is missed."""
    if arguments.fault != "all" and arguments.fault not in FAULTS:
        raise InputError(
            f"no fault is called {arguments.fault!r}; use all or one of {', '.join(FAULTS)}"
        )
    faults = list(FAULTS.values()) if arguments.fault == "all" else [FAULTS[arguments.fault]]
    names = [name for name in arguments.objectives if name != "all"]
    faults = [each for each in faults if not names or subjects[each.subject].kind in names]
    unbroken = {fault.subject: subjects[fault.subject] for fault in faults}
    rows, alarms, sound = [], 0, 0
    bar = tqdm(total=len(faults) + len(unbroken), desc="verify", disable=None, leave=False)
    with bar:
        for fault in faults:
            proof = suite.catch(fault, subjects[fault.subject])
            rows.append(
                {
                    "number": fault.number,
                    "fault": fault.name,
                    "subject": fault.subject,
                    "mistake": fault.what,
                    "caught_by": proof.name if proof else None,
                    "message": proof.message if proof else None,
                }
            )
            bar.update()
        for subject in unbroken.values():
            for proof in suite.prove(subject):
                sound += 1
                alarms += proof.passed is False
            bar.update()
    missed = sum(row["caught_by"] is None for row in rows)
    if arguments.json:
        counts = {"missed": missed, "sound_proofs": sound, "false_alarms": alarms}
        print_json({"faults": rows} | counts)
        return int(bool(missed or alarms))
    for row in rows:
        print(f"{row['number']:>2} {row['fault']} ({row['subject']}): {row['mistake']}")
        caught = f"caught by {row['caught_by']}: {row['message']}" if row["caught_by"] else "MISSED"
        print(textwrap.fill(caught, width(), initial_indent="   ", subsequent_indent="   "))
    print(
        f"\n{len(rows) - missed} of {len(rows)} faults caught; "
        f"{alarms} false alarms in {sound} proofs on the sound pieces."
    )
    return int(bool(missed or alarms))
