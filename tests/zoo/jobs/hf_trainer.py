"""Hugging Face Trainer: small language models from configurations, nothing downloaded."""

import os
import tempfile

import torch
from kit import case, main
from torch.utils.data import Dataset
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

os.environ.setdefault("HF_HUB_OFFLINE", "1")
VOCABULARY, LENGTH = 60, 12


class Texts(Dataset):
    def __init__(self, rows, labels):
        generator = torch.Generator().manual_seed(9)
        self.words = torch.randint(0, VOCABULARY, (rows, LENGTH), generator=generator)
        self.labels = labels

    def __len__(self):
        return len(self.words)

    def __getitem__(self, index):
        words = self.words[index]
        return {"input_ids": words, "labels": words if self.labels is None else int(words[0] % self.labels)}


class Tell(TrainerCallback):
    def __init__(self, record):
        self.record = record

    def on_log(self, args, state, control, logs=None, **kwargs):
        kept = {key: repr(value) for key, value in (logs or {}).items() if "_per_second" not in key}
        self.record.say("log", sorted((k, v) for k, v in kept.items() if "runtime" not in k))


def run(record, model, labels=None, **options):
    with tempfile.TemporaryDirectory() as folder:
        defaults = {
            "max_steps": 8,
            "per_device_train_batch_size": 2,
            "learning_rate": 1e-3,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": [],
            "disable_tqdm": True,
            "use_cpu": True,
            "log_on_each_node": True,
            "ddp_backend": "gloo",
            "seed": 3,
        }
        arguments = TrainingArguments(folder, **(defaults | options))
        trainer = Trainer(model, arguments, train_dataset=Texts(96, labels), callbacks=[Tell(record)])
        trainer.remove_callback(PrinterCallback)
        inner = trainer.compute_loss

        def compute_loss(*args, **kwargs):
            loss = inner(*args, **kwargs)
            record.loss(loss[0] if isinstance(loss, tuple) else loss)
            return loss

        trainer.compute_loss = compute_loss
        trainer.train()
        record.state(trainer.model, trainer.optimizer.optimizer)


def gpt():
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=VOCABULARY, n_positions=LENGTH, n_embd=32, n_layer=2, n_head=2)
    )


@case
def trainer_gpt2(record):
    """Tied embeddings, dropout, AdamW, a linear schedule, clipping."""
    run(record, gpt(), warmup_steps=2)


@case
def trainer_accumulation(record):
    run(record, gpt(), gradient_accumulation_steps=2, max_steps=4, optim="adafactor")


@case
def trainer_checkpointed(record):
    run(record, gpt(), gradient_checkpointing=True, bf16=True)


@case
def trainer_bert(record):
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=LENGTH,
        num_labels=3,
    )
    run(record, BertForSequenceClassification(config), labels=3, lr_scheduler_type="cosine")


if __name__ == "__main__":
    main(init=False)
