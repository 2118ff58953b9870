"""What to type instead: the flags of minicpt for those of other tools."""

from collections.abc import Container

# Our flag -> what others call the same: transformers' Trainer and configs, nanoGPT, and more.
ELSEWHERE = {
    "--learning-rate": "lr max_lr peak_lr base_lr",
    "--schedule": "lr_scheduler_type lr_scheduler scheduler lr_schedule",
    "--warmup": "warmup_ratio warmup_steps num_warmup_steps warmup_iters warmup_proportion",
    "--min-lr-ratio": "min_lr final",
    "--weight-decay": "wd",
    "--beta1": "adam_beta1",
    "--beta2": "adam_beta2",
    "--epsilon": "adam_epsilon adam_eps eps",
    "--max-grad-norm": "clip grad_clip clip_grad_norm gradient_clip_val gradient_clipping",
    "--batch-size": "per_device_train_batch_size per_gpu_train_batch_size train_batch_size"
    " per_device_eval_batch_size eval_batch_size bs",
    "--micro-batch-size": "micro_batches gradient_accumulation_steps grad_accum"
    " accumulate_grad_batches device_batch_size",
    "--epochs": "num_train_epochs num_epochs n_epochs max_epochs",
    "--steps": "max_steps max_iters num_steps n_steps max_train_steps num_train_steps iters",
    "--minutes": "max_time max_hours",
    "--seed": "random_seed data_seed",
    "--out": "output_dir out_dir output save_dir o",
    "--to": "output_dir out_dir output out o",
    "--init": "model_name_or_path model model_name model_path base_model checkpoint init_from"
    " pretrained pretrained_model_name_or_path",
    "--corpus": "train_file train_data train_data_file dataset dataset_name data data_dir data_path"
    " input input_file",
    "--held-out": "validation_split_percentage validation_split val_split test_size",
    "--tokenizer": "tokenizer_name tokenizer_path tokenizer_name_or_path",
    "--vocab-size": "vocabulary_size n_vocab",
    "--window": "block_size max_seq_length max_seq_len seq_len seq_length context_length max_length"
    " model_max_length n_positions n_ctx max_position_embeddings",
    "--length": "max_new_tokens max_length max_tokens num_tokens",
    "--rate": "mlm_probability mlm_prob mask_prob masked_lm_prob fim_rate",
    "--spm": "fim_spm_rate spm_rate",
    "--add-tokens": "add_special_tokens resize_token_embeddings additional_special_tokens",
    "--whole-word": "whole_word_mask wwm",
    "--pack": "packing",
    "--width": "hidden_size n_embd d_model embed_dim",
    "--layers": "num_hidden_layers n_layer n_layers num_layers",
    "--num-heads": "num_attention_heads n_head n_heads heads",
    "--feed-forward": "intermediate_size d_ff n_inner",
    "--dropout": "hidden_dropout_prob attention_probs_dropout_prob dropout_rate resid_pdrop"
    " embd_pdrop attn_pdrop attention_dropout",
    "--dtype": "bf16 fp16 precision mixed_precision torch_dtype amp",
    "--device": "no_cuda use_cpu cuda gpu",
    "--compile": "torch_compile",
    "--threads": "num_threads n_threads",
    "--evaluate-every": "eval_steps eval_interval eval_every",
    "--evaluate-passages": "max_eval_samples eval_iters",
    "--passages": "max_eval_samples eval_iters",
    "--save-every": "save_steps save_interval",
    "--keep": "save_total_limit",
    "--lora": "lora_r lora_rank use_lora",
    "--ewc": "ewc_lambda",
    "--self-replay-tokens": "replay_tokens",
}


def counterpart(word: str, known: Container[str]) -> str | None:
    """The flag among the known ones that says what a word says elsewhere.

    >>> counterpart("--per_device_train_batch_size=8", {"--batch-size"})
    '--batch-size'
    >>> counterpart("--batch_size", {"--batch-size"})
    '--batch-size'
    """
    if not word.startswith("-"):
        return None
    name = word.partition("=")[0].lstrip("-").replace("-", "_").lower()
    same = [flag for flag, names in ELSEWHERE.items() if name in names.split()]
    return next((each for each in ["--" + name.replace("_", "-"), *same] if each in known), None)
