"""Writes tiny.gguf and mmproj.gguf, a vision model with random weights, into the folder that is named.

    python -m testbed.tiny_vision.make_model FOLDER

It needs the packages gguf and numpy. The output layer prefers letters and the marks of JSON, so answers under a grammar are short.
"""

from __future__ import annotations

import sys
from pathlib import Path

import gguf
import numpy as np

WIDTH, HEADS, HIDDEN, LAYERS = 32, 2, 64, 1
SEEN, PATCH = 56, 14  #: pixels along a side of the picture that the model sees, and of each patch of it
SPECIAL = [b"<unk>", b"<s>", b"</s>"]
END = 2  #: the place of </s>
MARKS = {b'"': 3.0, b"{": 2.5, b"}": 2.2, b"]": 2.0, b",": 1.5, b"1": 1.0, b"2": 0.5}  #: how much the model likes each

Random = np.random.Generator


def write_text_model(path: Path, random: Random) -> None:
    bytes_of = [f"<0x{byte:02X}>".encode() for byte in range(256)]
    characters = [bytes([code]) if code != 32 else "\u2581".encode() for code in range(32, 127)]
    tokens = [*SPECIAL, *bytes_of, *characters]
    out = gguf.GGUFWriter(str(path), "llama")
    out.add_name("tiny-random")
    out.add_context_length(32768)
    out.add_embedding_length(WIDTH)
    out.add_block_count(LAYERS)
    out.add_feed_forward_length(HIDDEN)
    out.add_head_count(HEADS)
    out.add_head_count_kv(HEADS)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_rope_dimension_count(WIDTH // HEADS)
    out.add_vocab_size(len(tokens))
    out.add_file_type(0)
    out.add_tokenizer_model("llama")
    out.add_token_list(tokens)
    out.add_token_scores([0.0] * (len(SPECIAL) + 256) + [-1.0] * len(characters))
    out.add_token_types([2, 3, 3] + [6] * 256 + [1] * len(characters))
    out.add_bos_token_id(1)
    out.add_eos_token_id(END)
    out.add_unk_token_id(0)
    out.add_add_bos_token(value=True)
    out.add_add_space_prefix(value=False)
    out.add_chat_template("{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant: ")
    embedding = random.normal(0, 0.3, (len(tokens), WIDTH)).astype(np.float32)
    embedding[:, 0] = 3.0  # dimension 0 is a constant, so that column 0 of the output layer is a bias
    head = random.normal(0, 0.15, (len(tokens), WIDTH)).astype(np.float32)
    head[:, 0] = _likes(tokens)
    out.add_tensor("token_embd.weight", embedding)
    out.add_tensor("output.weight", head)
    out.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        out.add_tensor(f"{block}attn_norm.weight", np.ones(WIDTH, np.float32))
        out.add_tensor(f"{block}ffn_norm.weight", np.ones(WIDTH, np.float32))
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            out.add_tensor(f"{block}{name}.weight", _weights(random, WIDTH, WIDTH))
        for name, shape in (("ffn_gate", (HIDDEN, WIDTH)), ("ffn_up", (HIDDEN, WIDTH)), ("ffn_down", (WIDTH, HIDDEN))):
            out.add_tensor(f"{block}{name}.weight", _weights(random, *shape))
    _close(out)


def write_eyes(path: Path, random: Random) -> None:
    out = gguf.GGUFWriter(str(path), "clip")
    out.add_name("tiny-clip")
    out.add_file_type(0)
    out.add_bool("clip.has_vision_encoder", val=True)
    out.add_bool("clip.has_text_encoder", val=False)
    out.add_bool("clip.has_llava_projector", val=True)
    out.add_string("clip.projector_type", "mlp")
    out.add_bool("clip.use_gelu", val=True)
    out.add_uint32("clip.vision.image_size", SEEN)
    out.add_uint32("clip.vision.patch_size", PATCH)
    out.add_uint32("clip.vision.embedding_length", WIDTH)
    out.add_uint32("clip.vision.feed_forward_length", HIDDEN)
    out.add_uint32("clip.vision.projection_dim", WIDTH)
    out.add_uint32("clip.vision.block_count", 2)
    out.add_uint32("clip.vision.attention.head_count", HEADS)
    out.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
    out.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    out.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
    out.add_tensor("v.patch_embd.weight", _weights(random, WIDTH, 3, PATCH, PATCH))
    out.add_tensor("v.class_embd", _weights(random, WIDTH))
    out.add_tensor("v.position_embd.weight", _weights(random, (SEEN // PATCH) ** 2 + 1, WIDTH))
    out.add_tensor("v.pre_ln.weight", np.ones(WIDTH, np.float32))
    out.add_tensor("v.pre_ln.bias", _weights(random, WIDTH))
    for layer in range(2):
        block = f"v.blk.{layer}."
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            out.add_tensor(f"{block}{name}.weight", _weights(random, WIDTH, WIDTH))
            out.add_tensor(f"{block}{name}.bias", _weights(random, WIDTH))
        for name in ("ln1", "ln2"):
            out.add_tensor(f"{block}{name}.weight", np.ones(WIDTH, np.float32))
            out.add_tensor(f"{block}{name}.bias", _weights(random, WIDTH))
        for name, rows, columns in (("ffn_up", HIDDEN, WIDTH), ("ffn_down", WIDTH, HIDDEN)):
            out.add_tensor(f"{block}{name}.weight", _weights(random, rows, columns))
            out.add_tensor(f"{block}{name}.bias", _weights(random, rows))
    for name in ("mm.0", "mm.2"):
        out.add_tensor(f"{name}.weight", _weights(random, WIDTH, WIDTH))
        out.add_tensor(f"{name}.bias", _weights(random, WIDTH))
    _close(out)


def _likes(tokens: list[bytes]) -> np.ndarray:
    """How much the model likes each token, before the random part."""
    likes = np.full(len(tokens), -4.0, np.float32)
    likes[END] = 2.8
    for place, token in enumerate(tokens):
        if place in range(len(SPECIAL), len(SPECIAL) + 256):
            likes[place] = -8.0
        elif token.isalpha() and token.islower() and len(token) == 1:
            likes[place] = 0.0
        elif token in MARKS:
            likes[place] = MARKS[token]
    return likes


def _weights(random: Random, *shape: int) -> np.ndarray:
    return random.normal(0, 0.05, shape).astype(np.float32)


def _close(out: gguf.GGUFWriter) -> None:
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    numbers = np.random.default_rng(7)
    write_text_model(folder / "tiny.gguf", numbers)
    write_eyes(folder / "mmproj.gguf", numbers)
