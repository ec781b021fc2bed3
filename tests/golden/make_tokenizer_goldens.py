#!/usr/bin/env python3
"""Makes tests/golden/tokenizer/: tiny tokenizers of every kind, and what their own libraries say of them.

    pip install tokenizers==0.23.* sentencepiece gguf
    python tests/golden/make_tokenizer_goldens.py [--smollm2 IDS.json]

Each folder holds a tokenizer as a model directory would, and cases.json: text, its ids without and with
special tokens, and the decoded text, by `tokenizers` or `sentencepiece`. smollm2.json is the demo
vocabulary's: made with --smollm2 from a list of [text, ids] by llama.cpp's /tokenize (parse_special).
"""

import argparse
import io
import json
import pathlib
import shutil

import gguf
import sentencepiece
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

OUT = pathlib.Path(__file__).parent / "tokenizer"

CORPUS = """The pages of a book lie in any order on the table, and an index says where each one is.
A scheduler hands out blocks of memory; a sequence keeps a table of the blocks that hold its keys and values.
When two sequences begin with the same words they share the same blocks, until one of them writes.
def allocate(count):\n    return [free.pop() for _ in range(count)]\n
It's 12 o'clock, 3.14 is not 22/7, and they've said we'll see. Don't panic!
Grüße aus Köln, déjà vu, naïve façade, señor. Привет, мир. 日本語 中文 한국어.
""" * 4

TEXTS = [
    "", " ", "  two  spaces  ", "a", " a", "The pages of a book", "blocks of memory; keys and values.",
    "It's 12 o'clock, don't panic!", "def f(x):\n    return x + 1\n", "1234567890 3.14", "\n\n\t x \r\n",
    "Grüße aus Köln", "déjà vu", "Привет, мир", "日本語 中文 한국어", "emoji 👍🏽 👨‍👩‍👧 🇫🇷", "e\u0301 \u00a0 \u200b",
    "\x01\x7f", "trailing   ", "unseen: ☃ ∑ ﷽", "x" * 60, "<|start|>user\nhi<|end|>\n", "a<|end|>b", "<s>x</s>",
]
SPECIAL = ["<|text|>", "<|start|>", "<|end|>"]
TEMPLATES = [{"name": "tool_use", "template": "unused"},
             {"name": "default", "template": "{% for m in messages %}{{ m.content }}{% endfor %}"}]


def write_json(folder, name, value):
    (OUT / folder).mkdir(parents=True, exist_ok=True)
    (OUT / folder / name).write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def write_cases(folder, cases):
    lines = ",\n".join(json.dumps(case, ensure_ascii=True) for case in cases)
    (OUT / folder / "cases.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def cases_of(tokenizer):
    cases = []
    for text in TEXTS:
        plain = tokenizer.encode(text, add_special_tokens=False).ids
        special = tokenizer.encode(text).ids
        cases.append({"text": text, "ids": plain, "ids_special": special,
                      "decoded": tokenizer.decode(special, skip_special_tokens=False),
                      "decoded_skip": tokenizer.decode(special)})
    return cases


def save(folder, tokenizer, config):
    (OUT / folder).mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(OUT / folder / "tokenizer.json"), pretty=False)
    if config:
        write_json(folder, "tokenizer_config.json", config)
    write_cases(folder, cases_of(tokenizer))


def byte_level():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=SPECIAL, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator([CORPUS], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<|text|> $A", special_tokens=[("<|text|>", 0)])
    save("byte_level", tokenizer, {
        "bos_token": "<|text|>", "eos_token": {"content": "<|end|>", "lstrip": False}, "pad_token": None,
        "chat_template": TEMPLATES})
    write_json("byte_level", "generation_config.json", {"eos_token_id": [2, 0]})

    # The same model as GPT-2 published it, with one more token that only the config knows.
    tokenizer.model.save(str(OUT / "byte_level"))
    folder = OUT / "gpt2_files"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ["vocab.json", "merges.txt"]:
        shutil.move(OUT / "byte_level" / name, folder / name)
    size = tokenizer.get_vocab_size()
    flags = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
    decoder = {str(i): {"content": t, "special": True, **flags} for i, t in enumerate(SPECIAL)}
    decoder[str(size)] = {"content": "<tool>", "special": False, **flags}
    write_json("gpt2_files", "tokenizer_config.json",
               {"add_bos_token": True, "bos_token": "<|text|>", "eos_token": "<|end|>", "added_tokens_decoder": decoder})
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}", encoding="utf-8")
    tokenizer.add_tokens(["<tool>"])
    write_cases("gpt2_files", cases_of(tokenizer))


def train_sentencepiece(folder, model_type, vocab_size, prefix_space=True):
    stream = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS.split("\n")), model_writer=stream, model_type=model_type, vocab_size=vocab_size,
        byte_fallback=True, character_coverage=0.98, normalization_rule_name="identity",
        remove_extra_whitespaces=False, add_dummy_prefix=prefix_space, user_defined_symbols=["<tool>"],
        split_digits=True, minloglevel=2)
    (OUT / folder).mkdir(parents=True, exist_ok=True)
    (OUT / folder / "tokenizer.model").write_bytes(stream.getvalue())
    processor = sentencepiece.SentencePieceProcessor(model_proto=stream.getvalue())
    write_json(folder, "tokenizer_config.json", {
        "tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": False, "bos_token": "<s>",
        "eos_token": "</s>", "unk_token": "<unk>"})
    cases = []
    for text in TEXTS:
        if "<s>" in text:  # sentencepiece doesn't recognise control pieces in text
            continue
        ids = processor.encode(text)
        cases.append({"text": text, "ids": ids, "ids_special": [processor.bos_id()] + ids,
                      "decoded_skip": processor.decode(ids)})
    write_cases(folder, cases)
    return processor


def write_gguf(folder, processor):
    """The SentencePiece model as GGUF metadata."""
    (OUT / folder).mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(str(OUT / folder / "vocab.gguf"), "llama")
    count = processor.vocab_size()
    kinds = []
    for i in range(count):
        kind = gguf.TokenType.NORMAL
        if processor.is_unknown(i):
            kind = gguf.TokenType.UNKNOWN
        elif processor.is_control(i):
            kind = gguf.TokenType.CONTROL
        elif processor.is_byte(i):
            kind = gguf.TokenType.BYTE
        elif processor.id_to_piece(i) == "<tool>":
            kind = gguf.TokenType.USER_DEFINED
        kinds.append(kind)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([processor.id_to_piece(i) for i in range(count)])
    writer.add_token_scores([processor.get_score(i) for i in range(count)])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(processor.bos_id())
    writer.add_eos_token_id(processor.eos_id())
    writer.add_unk_token_id(processor.unk_id())
    # Shapes, so that other programs load it as well.
    for add, value in [(writer.add_context_length, 64), (writer.add_embedding_length, 8), (writer.add_block_count, 0),
                       (writer.add_feed_forward_length, 8), (writer.add_head_count, 1),
                       (writer.add_layer_norm_rms_eps, 1e-5), (writer.add_rope_dimension_count, 8)]:
        add(value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    cases = [case for case in json.loads((OUT / "spm_bpe" / "cases.json").read_text())]
    write_cases(folder, cases)


def metaspace():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=200, special_tokens=["<unk>"] + SPECIAL, unk_token="<unk>",
                                      show_progress=False)
    tokenizer.train_from_iterator([CORPUS], trainer)
    save("metaspace", tokenizer, None)


def wordpiece():
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=["<unk>"] + SPECIAL, show_progress=False)
    tokenizer.train_from_iterator([CORPUS], trainer)
    save("wordpiece", tokenizer, None)


def word_suffix():
    """BPE with end-of-word suffixes: a decoder that must see the last token."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.BPEDecoder(suffix="</w>")
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=["<unk>"] + SPECIAL, end_of_word_suffix="</w>",
                                  show_progress=False)
    tokenizer.train_from_iterator([CORPUS], trainer)
    save("word_suffix", tokenizer, None)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smollm2", help="[[text, ids], ...] by llama.cpp")
    arguments = parser.parse_args()
    byte_level()
    processor = train_sentencepiece("spm_bpe", "bpe", 460)
    train_sentencepiece("spm_unigram", "unigram", 360)
    train_sentencepiece("spm_no_prefix", "bpe", 400, prefix_space=False)
    write_gguf("spm_gguf", processor)
    metaspace()
    wordpiece()
    word_suffix()
    if arguments.smollm2:
        pairs = json.loads(pathlib.Path(arguments.smollm2).read_text())
        lines = ",\n".join(json.dumps({"text": text, "ids": ids}) for text, ids in pairs)
        (OUT / "smollm2.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
