"""What ``throughput.py`` trains on: batches of real text, in minicpt's terms and in theirs.

The text is builtin:docs; the tokenizers are trained on it and on builtin:code, which together give
30522 tokens. minicpt's objectives make every batch, beforehand, and the other side gets the very
same tensors under its own names.
"""

import dataclasses
import functools
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from minicpt.batch import IGNORE, Batch, target_stream
from minicpt.checkpoint.huggingface import export_config
from minicpt.common.errors import InputError
from minicpt.common.randomness import generator
from minicpt.data.corpus import Corpus
from minicpt.data.order import Draw
from minicpt.data.sources import read
from minicpt.data.tokenizer import BYTES, TRAINED, Tokenizer
from minicpt.models import name_of
from minicpt.objectives.base import Objective
from minicpt.runs.assembly import model_kind, new_model, objective_kind

THEIR_CLASSES = {
    "causal-lm": "GPT2LMHeadModel",
    "masked-lm": "BertForMaskedLM",
    "next-sentence": "BertForNextSentencePrediction",
    "reconstruction": "T5ForConditionalGeneration",
}
LEAST = BYTES + len(set(TRAINED.values()))  # of a vocabulary
EQUAL, PLANNED, RANDOM = "equal lengths", "the plan's order", "random order"


@dataclass(frozen=True)
class Sizes:
    """Of the models and the batches; heads, feed-forward width and dropout are the defaults."""

    vocabulary: int
    width: int = 256
    layers: int = 4
    batch_size: int = 16
    window: int = 128
    batches: int = 4


@dataclass(frozen=True)
class Case:
    """What a worker needs, as it travels in a file.

    model_name   of our model, and ``config``, the fields of its Config
    foreign      the content of Hugging Face's config.json for the same sizes
    batches      name of an order -> its batches
    lora         rank of the adapters beside attention's projections; 0: all weights learn
    """

    objective: str
    model_name: str
    config: dict
    foreign: dict
    batches: dict[str, list[Batch]]
    lora: int = 0

    @property
    def their_class(self) -> str:
        if self.model_name == "llama":
            return "LlamaForCausalLM"
        return THEIR_CLASSES[self.objective]

    def model(self) -> nn.Module:
        kind = model_kind(self.model_name, objective_kind(self.objective))
        return kind(kind.Config(**self.config))

    def made_for(self) -> Objective:
        """The objective, as far as a step needs it: for this it does not matter which tokenizer."""
        return objective_kind(self.objective)(Tokenizer.train([], BYTES))

    def their_batches(self) -> list[dict[str, Tensor]]:
        """The batches of the last order as keyword arguments of their model's forward."""
        return [foreign_batch(self.objective, batch) for batch in list(self.batches.values())[-1]]

    def save(self, path: str) -> None:
        batches = {
            order: [tuple(vars(batch).values()) for batch in each]
            for order, each in self.batches.items()
        }
        torch.save({**vars(self), "batches": batches}, path)

    @staticmethod
    def load(path: str) -> "Case":
        found = torch.load(path, weights_only=True)
        batches = {
            order: [Batch(*each) for each in fields] for order, fields in found["batches"].items()
        }
        return Case(**{**found, "batches": batches})


def foreign_batch(objective: str, batch: Batch) -> dict[str, Tensor]:
    """The same tensors under Hugging Face's names.

    GPT2LMHeadModel shifts its labels itself, so they are shifted back; the target of a window's
    last position, one in 128, has no place in them.
    """
    names = {
        "tokens": "input_ids",
        "mask": "attention_mask",
        "segments": "token_type_ids",
        "decoder_tokens": "decoder_input_ids",
        "decoder_mask": "decoder_attention_mask",
    }
    result = {names[name]: value for name, value in batch.inputs.items()}
    result = {name: each.long() if each.dtype == torch.bool else each
              for name, each in result.items()}  # fmt: skip
    if objective == "next-sentence":
        labels = batch.targets["pair"][:, 0]
    elif objective == "causal-lm":
        labels = batch.targets["tokens"].roll(1, dims=1)
        labels[:, 0] = IGNORE
    else:
        labels = batch.targets["tokens"]
    return result | {"labels": labels.contiguous()}


def tokens(batch: Batch) -> int:
    """The real positions that the model reads, of both streams where there are two."""
    return sum(int(value.sum()) for name, value in batch.inputs.items() if name.endswith("mask"))


@functools.cache
def tokenizer_of(vocabulary: int) -> Tokenizer:
    """``vocabulary`` ids, special tokens included; fewer where the text has no more merges."""
    documents = read(["builtin:docs", "builtin:code"])
    special = LEAST - BYTES
    return Tokenizer.train((document.text for document in documents), vocabulary - special)


@functools.cache
def corpus_of(vocabulary: int, blocks: bool) -> Corpus:
    return Corpus.build(read(["builtin:docs"], blocks), tokenizer_of(vocabulary))


def case(name: str, sizes: Sizes, mixed: bool) -> tuple[Case, float]:
    """A case and the seconds in which its fastest batch was made.

    mixed  False: the longest passages of the objective's plan, which fill the window, or nearly so;
           True: the first passages of the plan over short documents (the blocks of the text),
           in batches as the plan has them, and the same ones in random order.
    """
    kind, tokenizer = objective_kind(name), tokenizer_of(sizes.vocabulary)
    objective = kind(tokenizer, kind.Settings(window=sizes.window))
    plan = objective.plan(corpus_of(sizes.vocabulary, mixed), 0, 0)
    wanted = sizes.batch_size * sizes.batches
    if len(plan) < wanted:
        raise InputError(f"{name}: {wanted} passages are more than the text's {len(plan)}: take "
                         "fewer --batches, or a smaller --batch-size")  # fmt: skip
    seconds = []

    def batch(places: list[int]) -> Batch:
        passages = [plan[place] for place in places]
        draws = [Draw(place, generator("noise", 0, 0, place)) for place in places]
        start = time.perf_counter()
        made = objective.batch(passages, draws)
        seconds.append(time.perf_counter() - start)
        return made

    def batches(places: list[int]) -> list[Batch]:
        size = sizes.batch_size
        return [batch(places[start : start + size]) for start in range(0, wanted, size)]

    if mixed:
        order = torch.randperm(wanted, generator=generator("order", 0)).tolist()
        orders = {PLANNED: batches(list(range(wanted))), RANDOM: batches(order)}
    else:

        def length(place: int) -> int:
            one = batch([place])
            return one.inputs[target_stream(one)].shape[1]

        longest = sorted(range(len(plan)), key=length, reverse=True)[:wanted]
        seconds.clear()
        orders = {EQUAL: batches(longest)}
    # A text that gives too few merges leaves the rest of the vocabulary to ids that never occur.
    chosen = {"vocabulary": sizes.vocabulary, "width": sizes.width, "layers": sizes.layers}
    chosen |= {"num_heads": 4, "dropout": 0.1}
    model = new_model(model_kind("", kind), objective, chosen, seed=0)
    config = dataclasses.asdict(model.config)
    return Case(name, name_of(model), config, export_config(model), orders), min(seconds)
