"""Writes a model as large as OPUS-MT's (6 + 6 layers, width 512, 58,101 words) with random weights, twice: as Hugging Face
publishes it and as CTranslate2 wants it, in float32 and int8. Speed does not depend on what weights are.

    build/benchmark/translate/bin/python benchmarks/make_opus_size.py build/benchmark/opus_mt_size
"""

import io
import json
import math
import shutil
import sys
from pathlib import Path

import ctranslate2
import numpy
import sentencepiece
from ctranslate2.specs import common_spec, transformer_spec

LAYERS, HEADS, WIDTH, HIDDEN, WORDS = 6, 8, 512, 2048, 58101
PAD = WORDS - 1  # what decoding starts with: a row of zeros


def parameters(random):
    """The checkpoint's tensors by Hugging Face's names: scaled so that rows stay of one size, and logits differ."""
    tensors = {}

    def linear(name, out, inner):
        tensors[name + ".weight"] = random.normal(0, inner ** -0.5, (out, inner)).astype(numpy.float32)
        tensors[name + ".bias"] = random.normal(0, 0.02, out).astype(numpy.float32)

    def norm(name):
        tensors[name + ".weight"] = random.normal(1, 0.1, WIDTH).astype(numpy.float32)
        tensors[name + ".bias"] = random.normal(0, 0.02, WIDTH).astype(numpy.float32)

    shared = random.normal(0, WIDTH ** -0.5, (WORDS, WIDTH)).astype(numpy.float32)
    shared[PAD] = 0
    tensors["model.shared.weight"] = shared
    for side in ("encoder", "decoder"):
        for i in range(LAYERS):
            prefix = f"model.{side}.layers.{i}."
            for attention in ("self_attn", "encoder_attn") if side == "decoder" else ("self_attn",):
                for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
                    linear(f"{prefix}{attention}.{part}", WIDTH, WIDTH)
                norm(f"{prefix}{attention}_layer_norm")
            linear(prefix + "fc1", HIDDEN, WIDTH)
            linear(prefix + "fc2", WIDTH, HIDDEN)
            norm(prefix + "final_layer_norm")
    bias = numpy.zeros((1, WORDS), numpy.float32)
    bias[0, PAD] = -1e9
    tensors["final_logits_bias"] = bias
    return tensors


def save_safetensors(path, tensors):
    header, at = {}, 0
    for name, values in tensors.items():
        header[name] = {"dtype": "F32", "shape": values.shape, "data_offsets": [at, at + values.nbytes]}
        at += values.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for values in tensors.values():
            file.write(values.tobytes())


def train_pieces(lines):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, vocab_size=4000, hard_vocab_limit=False, minloglevel=2,
        eos_id=0, unk_id=1, bos_id=-1, pad_id=-1, normalization_rule_name="identity")
    return model.getvalue()


def save_hugging_face(folder, tensors, pieces):
    folder.mkdir(parents=True)
    save_safetensors(folder / "model.safetensors", tensors)
    processor = sentencepiece.SentencePieceProcessor(model_proto=pieces)
    words = [processor.id_to_piece(i) for i in range(processor.vocab_size())]
    words += [f"word{i}" for i in range(len(words), PAD)] + ["<pad>"]
    for name in ("source.spm", "target.spm"):
        (folder / name).write_bytes(pieces)

    def save_json(name, content):
        (folder / name).write_text(json.dumps(content, ensure_ascii=False))

    save_json("vocab.json", {word: i for i, word in enumerate(words)})
    save_json("tokenizer_config.json", {"source_lang": "en", "target_lang": "xx"})
    save_json("config.json", {
        "model_type": "marian", "vocab_size": WORDS, "d_model": WIDTH, "activation_function": "swish",
        "encoder_layers": LAYERS, "decoder_layers": LAYERS, "encoder_attention_heads": HEADS,
        "decoder_attention_heads": HEADS, "encoder_ffn_dim": HIDDEN, "decoder_ffn_dim": HIDDEN, "scale_embedding": True,
        "max_position_embeddings": 512, "pad_token_id": PAD, "eos_token_id": 0, "decoder_start_token_id": PAD})
    save_json("generation_config.json", {
        "num_beams": 4, "max_length": 512, "pad_token_id": PAD, "eos_token_id": 0, "decoder_start_token_id": PAD,
        "bad_words_ids": [[PAD]]})
    return words


def positions():
    """Sines in the first half, cosines in the second."""
    half = WIDTH // 2
    angle = numpy.arange(512)[:, None] / 10000 ** (numpy.arange(half) / half)
    return numpy.concatenate([numpy.sin(angle), numpy.cos(angle)], 1).astype(numpy.float32)


def save_ctranslate2(folder, tensors, words, quantization):
    spec = transformer_spec.TransformerSpec.from_config((LAYERS, LAYERS), HEADS, pre_norm=False,
                                                        activation=common_spec.Activation.SWISH)

    def set_linear(part, *names):
        part.weight = numpy.concatenate([tensors[name + ".weight"] for name in names])
        part.bias = numpy.concatenate([tensors[name + ".bias"] for name in names])

    def set_norm(part, name):
        part.gamma, part.beta = tensors[name + ".weight"], tensors[name + ".bias"]

    def set_attention(part, name, own):
        query, key, value = (f"{name}.{letter}_proj" for letter in "qkv")
        if own:
            set_linear(part.linear[0], query, key, value)
        else:
            set_linear(part.linear[0], query)
            set_linear(part.linear[1], key, value)
        set_linear(part.linear[-1], name + ".out_proj")
        set_norm(part.layer_norm, name + "_layer_norm")

    shared = tensors["model.shared.weight"]
    for side, stack in (("encoder", spec.encoder), ("decoder", spec.decoder)):
        stack.scale_embeddings = math.sqrt(WIDTH)
        stack.position_encodings.encodings = positions()
        embeddings = stack.embeddings[0] if side == "encoder" else stack.embeddings
        embeddings.weight = shared
        for i, layer in enumerate(stack.layer):
            prefix = f"model.{side}.layers.{i}."
            set_attention(layer.self_attention, prefix + "self_attn", True)
            if side == "decoder":
                set_attention(layer.attention, prefix + "encoder_attn", False)
            set_linear(layer.ffn.linear_0, prefix + "fc1")
            set_linear(layer.ffn.linear_1, prefix + "fc2")
            set_norm(layer.ffn.layer_norm, prefix + "final_layer_norm")
    spec.decoder.projection.weight = shared
    spec.decoder.projection.bias = tensors["final_logits_bias"][0]
    spec.register_source_vocabulary(words)
    spec.register_target_vocabulary(words)
    spec.config.decoder_start_token = "<pad>"
    spec.validate()
    spec.optimize(quantization=quantization)
    folder.mkdir(parents=True)
    spec.save(str(folder))


def main():
    folder = Path(sys.argv[1])
    temporary = folder.with_name(folder.name + ".part")
    shutil.rmtree(temporary, ignore_errors=True)
    tensors = parameters(numpy.random.default_rng(1))
    pieces = train_pieces((Path(__file__).parent / "translate/sentences.en.txt").read_text().splitlines())
    words = save_hugging_face(temporary / "hugging_face", tensors, pieces)
    for quantization in (None, "int8"):
        save_ctranslate2(temporary / f"ctranslate2_{quantization or 'float32'}", tensors, words, quantization)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


if __name__ == "__main__":
    main()
