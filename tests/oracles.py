"""Tiny random models and tokenizers of transformers, and the folders it writes: the oracles."""

import importlib

import torch
import transformers
from tokenizers import Tokenizer as Engine
from tokenizers import models, pre_tokenizers, trainers
from transformers import modeling_rope_utils

V, P = 320, 24
LINES = [
    f"On day {day} the {animal} saw {day + 3} boats. It counted them. Then it rained."
    for day, animal in enumerate(["cat", "dog", "owl", "fox"] * 12)
]
TEXT = "\n".join(LINES)
SAMPLES = [
    "On day 7 the cat saw 10 boats.",
    "  Then   IT rained,\nand the Fox — naïve café 你好 😀 — slept.",
    "unseenwords <extra_id_0> [MASK] don't",
    "x",
]


# --- models


def bert(kind="BertForPreTraining", **changes):
    sizes = {
        "vocab_size": V, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3,
        "intermediate_size": 40, "max_position_embeddings": P,
    }  # fmt: skip
    return randomised(getattr(transformers, kind)(transformers.BertConfig(**sizes | changes)))


def gpt2(kind="GPT2LMHeadModel", **changes):
    sizes = {
        "vocab_size": V, "n_positions": P, "n_embd": 24, "n_layer": 2, "n_head": 3,
        "bos_token_id": 0, "eos_token_id": 0,
    }  # fmt: skip
    return randomised(getattr(transformers, kind)(transformers.GPT2Config(**sizes | changes)))


def modernbert(kind="ModernBertForMaskedLM", **changes):
    """Its local layers see 3 positions on each side: shorter than most texts of the tests."""
    sizes = {
        "vocab_size": V, "hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 3,
        "intermediate_size": 20, "max_position_embeddings": P, "local_attention": 6,
    }  # fmt: skip
    ids = dict.fromkeys(f"{role}_token_id" for role in ("pad", "bos", "eos", "cls", "sep"))
    config = transformers.ModernBertConfig(**sizes | ids | changes)
    return randomised(getattr(transformers, kind)(config))


def llama(kind="LlamaForCausalLM", **changes):
    """One of Llama's family, its head tied; the window of a Mistral is shorter than most texts."""
    family = kind.removesuffix("ForCausalLM").removesuffix("Model")
    sizes = {
        "vocab_size": V, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 40, "max_position_embeddings": P,
        "head_dim": 6, "tie_word_embeddings": True, "pad_token_id": None, "bos_token_id": None,
        "eos_token_id": None,
    }  # fmt: skip
    if family == "Mistral":
        sizes["sliding_window"] = 6
    config = getattr(transformers, f"{family}Config")(**sizes | changes)
    return randomised(getattr(transformers, kind)(config))


def llama_own_head(kind="LlamaForCausalLM", **changes):
    return llama(kind, tie_word_embeddings=False, **changes)


def t5(version, kind="T5ForConditionalGeneration", tied=None, scaled=None, **changes):
    """Version 5 of transformers ties the head of every T5: an untied one is made by hand here."""
    tied, scaled = (version == "1.0" if each is None else each for each in (tied, scaled))
    sizes = {
        "vocab_size": V, "d_model": 24, "d_kv": 7, "d_ff": 40, "num_layers": 2,
        "num_decoder_layers": 3, "num_heads": 3, "decoder_start_token_id": 0,
        "feed_forward_proj": "relu" if version == "1.0" else "gated-gelu",
        "tie_word_embeddings": scaled,  # so it is called in the constructor
    }  # fmt: skip
    oracle = getattr(transformers, kind)(transformers.T5Config(**sizes | changes))
    if not tied and hasattr(oracle, "lm_head"):
        oracle.lm_head.weight = torch.nn.Parameter(torch.randn_like(oracle.shared.weight))
    return randomised(oracle)


def t5_10(kind="T5ForConditionalGeneration", **changes):
    return t5("1.0", kind, **changes)


def t5_11(kind="T5ForConditionalGeneration", **changes):
    return t5("1.1", kind, **changes)


def t5_10_own_head(kind="T5ForConditionalGeneration", **changes):
    """Its head is scaled and not tied."""
    return t5("1.0", kind, tied=False, **changes)


def t5_11_tied(kind="T5ForConditionalGeneration", **changes):
    """As transformers 5 makes every new T5 1.1: its head is tied and not scaled."""
    return t5("1.1", kind, tied=True, **changes)


def randomised(oracle):
    """The same, its weights nowhere 0 or 1 exactly, in evaluation mode."""
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in oracle.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=noise))
    return oracle.eval()


KINDS = {
    "BertModel": bert,
    "BertForMaskedLM": bert,
    "BertForNextSentencePrediction": bert,
    "BertForPreTraining": bert,
    "GPT2Model": gpt2,
    "GPT2LMHeadModel": gpt2,
    "T5Model-1.0": t5_10,
    "T5ForConditionalGeneration-1.0": t5_10,
    "T5Model-1.1": t5_11,
    "T5ForConditionalGeneration-1.1": t5_11,
    "T5ForConditionalGeneration-1.0-own head": t5_10_own_head,
    "T5ForConditionalGeneration-1.1-tied": t5_11_tied,
    "ModernBertModel": modernbert,
    "ModernBertForMaskedLM": modernbert,
    "ModernBertForSequenceClassification": modernbert,
    "LlamaForCausalLM": llama,
    "LlamaForCausalLM-own head": llama_own_head,
    "MistralForCausalLM": llama,
    "Qwen3ForCausalLM": llama,
    "SmolLM3ForCausalLM": llama,
}
FULLEST = {
    bert: "BertForPreTraining",
    gpt2: "GPT2LMHeadModel",
    t5_10: "T5ForConditionalGeneration",
    t5_11: "T5ForConditionalGeneration",
    t5_10_own_head: "T5ForConditionalGeneration",
    t5_11_tied: "T5ForConditionalGeneration",
    modernbert: "ModernBertForMaskedLM",  # the classifier is left over: no class has both heads
    llama: "LlamaForCausalLM",
    llama_own_head: "LlamaForCausalLM",
}


def make(name, **changes):
    """The oracle of a name in ``KINDS``."""
    return KINDS[name](name.split("-")[0], **changes)


def exact(monkeypatch):
    """Makes transformers compute in float64 where it goes to float32 whatever the model's type:
    the variance in RMS norms, the angles of rotary positions, and the logits of the causal loss.
    Their frequencies are its own functions', which make them of type ``torch.float``."""

    def norm(self, x):
        variance = x.pow(2).mean(-1, keepdim=True)
        return self.weight * (x * torch.rsqrt(variance + self.variance_epsilon))

    def turns(self, x, position_ids, layer_type=None):
        of_layer = {} if layer_type is None else {"layer_type": layer_type}
        kind = self.rope_type if layer_type is None else self.rope_type[layer_type]
        own = self.compute_default_rope_parameters
        make = own if kind == "default" else modeling_rope_utils.ROPE_INIT_FUNCTIONS[kind]
        frequencies, _ = make(self.config, **of_layer)
        assert frequencies.dtype == torch.float64
        angles = (position_ids[..., None] * frequencies).repeat(1, 1, 2)
        return angles.cos(), angles.sin()

    for module in ("t5", "llama", "mistral", "qwen2", "qwen3", "smollm3", "modernbert"):
        of = importlib.import_module(f"transformers.models.{module}.modeling_{module}")
        for name, kind in vars(of).items():
            if name.endswith("RMSNorm") or name == "T5LayerNorm":
                monkeypatch.setattr(kind, "forward", norm)
            if name.endswith("RotaryEmbedding"):
                monkeypatch.setattr(kind, "forward", turns)
    monkeypatch.setattr(torch, "float", torch.float64)
    monkeypatch.setattr(torch.Tensor, "float", lambda self: self.double())


# --- tokenizers


def bert_pieces() -> list[str]:
    letters = sorted({character for character in TEXT.lower() if character.isalnum()})
    words = sorted({word.strip(".") for word in TEXT.lower().split() if len(word) > 2})
    special = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    return [*special, *".,-'", *letters, *("##" + letter for letter in letters), *words]


def bert_tokenizer(**changes):
    vocabulary = {piece: place for place, piece in enumerate(bert_pieces())}
    return transformers.BertTokenizer(vocab=vocabulary, **changes)


def gpt2_files(folder):
    """vocab.json and merges.txt, with the end of text as the last id, as published."""
    engine = Engine(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    engine.train_from_iterator(LINES, trainer)
    engine.model.save(str(folder))
    path = folder / "vocab.json"
    text = path.read_text(encoding="utf-8")
    size = engine.get_vocab_size()
    path.write_text(f'{text.rstrip()[:-1]},"<|endoftext|>":{size}}}', encoding="utf-8")
    return path, folder / "merges.txt"


def gpt2_tokenizer(folder):
    vocabulary, merges = gpt2_files(folder)
    return transformers.GPT2Tokenizer(vocab=str(vocabulary), merges=str(merges))


def t5_pieces() -> list[tuple[str, float]]:
    letters = sorted({character for character in TEXT if not character.isspace()})
    words = sorted({"▁" + word.strip(".") for word in TEXT.split() if len(word) > 2})
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    return [*special, ("▁", -3.0), *((c, -6.0) for c in letters), *((w, -4.0) for w in words)]


def t5_tokenizer():
    sentinels = [(f"<extra_id_{number}>", 0.0) for number in reversed(range(100))]
    return transformers.T5Tokenizer(vocab=t5_pieces() + sentinels)
