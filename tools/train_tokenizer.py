"""Trains the tokenizer of the tiny text encoder on the synthetic data set's captions.

    python tools/train_tokenizer.py --output config/tiny_text_encoder

It is a byte-level BPE with RoBERTa's special tokens: every word of the captions is one token, and
any other text is spelled from pieces of words and, at worst, from bytes.  Beside it goes the
`config.json` of the small RoBERTa that reads it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import _repository  # noqa: F401  # makes the project's modules importable
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer

from datasets.synthetic import SceneGenerator
from util.command_line import output_folder, require_range, run_program

SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
"""In RoBERTa's order: their ids are 0 to 4."""

_WORDS = r" ?[\p{L}\p{N}]+(?:-[\p{L}\p{N}]+)*| ?[^\s\p{L}\p{N}]+|\s+"
"""What BPE merges within: a word with its hyphens ("t-shirt"), punctuation, or white space."""


def collect_captions(num_scenes: int, seed: int) -> list[str]:
    """Captions of hard scenes, held-out combinations included: the words are the same."""
    generator = SceneGenerator(seed, "val", image_size=(96, 96))
    captions = []
    for index in range(num_scenes):
        scene = generator.scene(index)
        for person in scene.referable:
            captions += [caption.text for caption in scene.captions(person, 3)]
    return captions


def train(captions: list[str], vocabulary_size: int) -> Tokenizer:
    """Byte-level BPE in which every word of the captions is a token.

    Args:
        captions: the texts.
        vocabulary_size: the most entries; training ends earlier where every word is whole.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Lowercase(), normalizers.Strip(), normalizers.Prepend(" ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocabulary_size,
        min_frequency=1,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )

    def lines() -> Iterator[str]:
        yield from captions
        # The parts of hyphenated words on their own, and every word often enough to be merged.
        counts = Counter(part for text in captions for part in text.replace("-", " ").split())
        yield from sorted(counts)

    tokenizer.train_from_iterator(lines(), trainer)
    tokenizer.post_processor = processors.RobertaProcessing(
        # by position: the second one's name differs between versions of `tokenizers`
        ("</s>", tokenizer.token_to_id("</s>")),
        ("<s>", tokenizer.token_to_id("<s>")),
        trim_offsets=True,
        add_prefix_space=False,
    )
    return tokenizer


def text_encoder_config(vocabulary_size: int) -> dict:
    """`config.json` of the small RoBERTa."""
    return {
        "architectures": ["RobertaModel"],
        "model_type": "roberta",
        "vocab_size": vocabulary_size,
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 256,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "max_position_embeddings": 66,
        "type_vocab_size": 1,
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-05,
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
    }


def tokenizer_config() -> dict:
    """`tokenizer_config.json`: how `transformers` wraps `tokenizer.json`."""
    begin, pad, end, unknown, mask = SPECIAL_TOKENS
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": begin,
        "cls_token": begin,
        "eos_token": end,
        "sep_token": end,
        "pad_token": pad,
        "unk_token": unknown,
        "mask_token": mask,
        "model_max_length": 64,  # positions of the encoder, less the two that RoBERTa leaves out
        "clean_up_tokenization_spaces": False,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--output", type=Path, required=True, help="folder, made if needed")
    parser.add_argument("--scenes", type=int, default=4000, help="images whose captions to read")
    parser.add_argument("--vocabulary", type=int, default=1500, help="the most entries")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    require_range(1, 10**7, scenes=arguments.scenes)
    # Every byte and the special tokens have an entry.
    require_range(256 + len(SPECIAL_TOKENS), 10**6, vocabulary=arguments.vocabulary)
    output_folder(arguments.output, "--output")

    captions = collect_captions(arguments.scenes, arguments.seed)
    tokenizer = train(captions, arguments.vocabulary)
    size = tokenizer.get_vocab_size()
    tokenizer_file = arguments.output / "tokenizer.json"
    tokenizer_file.write_text(tokenizer.to_str(pretty=True) + "\n", encoding="utf-8")
    for name, content in (
        ("tokenizer_config.json", tokenizer_config()),
        ("config.json", text_encoder_config(size)),
    ):
        text = json.dumps(content, indent=2) + "\n"
        (arguments.output / name).write_text(text, encoding="utf-8")

    words = Counter(word for caption in captions for word in caption.split())
    pieces = {word: len(tokenizer.encode(word).ids) - 2 for word in words}
    broken = sorted(word for word, count in pieces.items() if count > 1)
    print(
        f"{len(captions)} captions with {len(words)} different words: {size} entries, "
        f"{len(words) - len(broken)} words are whole tokens"
        + (f"; in pieces: {', '.join(broken)}" if broken else "")
    )


if __name__ == "__main__":
    sys.exit(run_program(main))
