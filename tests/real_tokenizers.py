"""Small tokenizers of the kinds that real folders hold, each with the parts of the real one.

Trained by the library on a few lines; then normalizer, pre-tokenizer, decoder, post-processor and
special tokens are those that the published folders have.
"""

import json
from pathlib import Path

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    processors,
    trainers,
)
from tokenizers import pre_tokenizers as pre

TEXT = [
    "The cat's mat, isn't it? They'll say: \"no!\" We've 1234567 cats (or 89) in 2024.\n",
    "def f(x, y=1):\n    if x > y:\n        return [x, y]\n\treturn None  # done\n\n\n",
    "Naïve café — 你好，世界。 😀 Größe, l'été; привет, мир! ελληνικά.\r\n" * 2,
]
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTES = pre.ByteLevel(add_prefix_space=False, use_regex=False)
QWEN = LLAMA_3.replace(r"\p{N}{1,3}", r"\p{N}")
SPACES = ["  " * size for size in range(1, 5)]  # ModernBERT has tokens for runs of spaces


def of_bytes(cuts: list, size: int = 330) -> Tokenizer:
    """A byte-level BPE behind these pre-tokenizers."""
    engine = Tokenizer(models.BPE())
    engine.pre_tokenizer = pre.Sequence(cuts) if len(cuts) > 1 else cuts[0]
    engine.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=pre.ByteLevel.alphabet(), show_progress=False
    )
    engine.train_from_iterator(TEXT, trainer)
    return engine


def llama_3() -> tuple[Tokenizer, dict]:
    engine = of_bytes([pre.Split(Regex(LLAMA_3), "isolated"), BYTES])
    definition = json.loads(engine.to_str())
    definition["model"]["ignore_merges"] = True
    engine = Tokenizer.from_str(json.dumps(definition))
    names = "begin_of_text end_of_text reserved_special_token_0 start_header_id eot_id"
    engine.add_special_tokens([f"<|{name}|>" for name in names.split()])
    begin = "<|begin_of_text|>"
    engine.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=True),
        processors.TemplateProcessing(
            single=f"{begin} $A",
            pair=f"{begin} $A {begin} $B:1",
            special_tokens=[(begin, engine.token_to_id(begin))],
        ),
    ])  # fmt: skip
    return engine, {"bos_token": begin, "eos_token": "<|end_of_text|>"}


def qwen() -> tuple[Tokenizer, dict]:
    engine = of_bytes([pre.Split(Regex(QWEN), "isolated"), BYTES])
    engine.normalizer = normalizers.NFC()
    engine.post_processor = processors.ByteLevel(trim_offsets=False)
    engine.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    engine.add_tokens([AddedToken("<tool_call>", normalized=False)])
    end = "<|endoftext|>"
    config = {"add_bos_token": False, "bos_token": None, "eos_token": end, "pad_token": end}
    return engine, config | {"chat_template": "{{ messages }}"}


def smollm2() -> tuple[Tokenizer, dict]:
    """That of SmolLM2-Instruct: its eos_token ends a turn."""
    engine = of_bytes([pre.Digits(individual_digits=True), pre.ByteLevel(False)])
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>"]
    engine.add_special_tokens(names)
    config = {"bos_token": names[1], "eos_token": names[2], "pad_token": names[2]}
    return engine, config | {"unk_token": names[0]}


def modernbert() -> tuple[Tokenizer, dict]:
    engine = of_bytes([pre.ByteLevel(False)])
    engine.normalizer = normalizers.NFC()
    engine.add_tokens([AddedToken(run, normalized=True) for run in SPACES])
    engine.add_special_tokens([AddedToken("<|endoftext|>"), AddedToken("[UNK]")])
    engine.add_special_tokens(["[CLS]", "[SEP]", "[PAD]", AddedToken("[MASK]", lstrip=True)])
    engine.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, engine.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    names = ("unk", "cls", "sep", "pad", "mask")
    return engine, {f"{name}_token": f"[{name.upper()}]" for name in names}


def with_marks() -> Tokenizer:
    """SentencePiece's BPE: three special tokens, the bytes, and merges of words behind ▁."""
    engine = Tokenizer(models.BPE())
    engine.pre_tokenizer = pre.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=120, show_progress=False)
    engine.train_from_iterator([text.replace("\n", " ") for text in TEXT], trainer)
    trained = json.loads(engine.to_str())["model"]
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    # Some characters have no piece, and are told in bytes.
    pieces += [piece for piece in trained["vocab"] if not set(piece) & set("你好世界😀")]
    merges = [tuple(pair) for pair in trained["merges"] if "".join(pair) in pieces]
    pieces += ["▁▁", "▁▁▁▁"]
    merges += [("▁", "▁"), ("▁▁", "▁▁")]
    vocabulary = {piece: place for place, piece in enumerate(pieces)}
    model = models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    engine = Tokenizer(model)
    engine.decoder = decoders.Sequence([
        decoders.Replace("▁", " "),
        decoders.ByteFallback(),
        decoders.Fuse(),
        decoders.Strip(" ", 1, 0),
    ])  # fmt: skip
    engine.add_special_tokens(["<unk>", "<s>", "</s>"])
    return engine


def llama_2() -> tuple[Tokenizer, dict]:
    engine = with_marks()
    engine.normalizer = normalizers.Sequence([
        normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")
    ])  # fmt: skip
    engine.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)]
    )
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return engine, names | {"add_bos_token": True, "add_eos_token": False}


def mistral() -> tuple[Tokenizer, dict]:
    """With Metaspace, as newer folders have it; what begins a text is said by the flag alone."""
    engine = with_marks()
    engine.pre_tokenizer = pre.Metaspace(prepend_scheme="first", split=False)
    engine.add_special_tokens(["[INST]", "[/INST]"])
    return engine, {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True}


KINDS = {
    "llama-3": llama_3,
    "qwen": qwen,
    "smollm2": smollm2,
    "modernbert": modernbert,
    "llama-2": llama_2,
    "mistral": mistral,
}


def folder_of(kind: str, folder: Path) -> Path:
    """A folder with the files of such a tokenizer."""
    engine, config = KINDS[kind]()
    folder.mkdir(parents=True, exist_ok=True)
    engine.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast"} | config
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder
