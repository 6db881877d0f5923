"""llama.cpp itself, in .venv-quantize, whose package xllamacpp holds it: python -m
potstill.serving.llama_cpp …

q4_k_m SOURCE OUT         a GGUF in 16 bits → one in 4, by the mix of types that llama.cpp calls so
serve MODEL ROOM --port N  an OpenAI-compatible server on loopback for PARALLEL chats at once, each
                          with ROOM tokens

The package leaves llama.cpp's own program for the first out (llama-quantize), but has the function
that rounds. So the mix stands here, for models without experts; Falcon's differs.
"""

import ctypes
import os
import sys
import time
from typing import Any

PARALLEL = 4
Q4_K_M = 15  # general.file_type of llama.h
# Where a row is no multiple of the type's block
SHORT = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}


def kind(name: str, layers: int, tied: bool) -> str | None:
    """The type of a tensor in the mix Q4_K_M of a model with so many layers; None for one that
    stays as it is. After llama_tensor_get_type of llama.cpp's llama-quant.cpp."""
    part = name.removesuffix(".weight")
    if part == name or part.endswith("_norm"):
        return None
    if part == ("token_embd" if tied else "output"):
        return "Q6_K"
    if part.endswith("attn_qkv"):
        return "Q5_K"
    if part.endswith(("attn_v", "ffn_down")):
        layer, eighth = int(part.split(".")[1]), layers // 8
        more = layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2
        return "Q6_K" if more else "Q4_K"
    return "Q4_K"


def q4_k_m(source: str, out: str) -> None:
    """Writes the file `out`."""
    import gguf
    import xllamacpp

    ggml = ctypes.CDLL(xllamacpp.xllamacpp.__file__)
    ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    reader = gguf.GGUFReader(source)
    metadata = {field.name: field for field in reader.fields.values()}
    architecture = metadata.pop("general.architecture").contents()
    layers = metadata[f"{architecture}.block_count"].contents()
    tied = all(tensor.name != "output.weight" for tensor in reader.tensors)
    writer = gguf.GGUFWriter(out, architecture)
    for name, field in metadata.items():
        if name != "general.file_type" and not name.startswith("GGUF."):
            inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), field.types[0], sub_type=inner)
    writer.add_file_type(Q4_K_M)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for tensor in reader.tensors:
        taken = kind(tensor.name, layers, tied)
        if taken is None or len(tensor.data.shape) < 2:
            writer.add_tensor(tensor.name, tensor.data)
            continue
        values, into = rounded(ggml, gguf, tensor.data, taken)
        writer.add_tensor(tensor.name, values, raw_dtype=into)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def rounded(ggml: Any, gguf: Any, matrix: Any, taken: str) -> tuple[Any, Any]:
    """A matrix in the type `taken`, or the one that stands in for it: its bytes by rows, and the
    type."""
    import numpy

    rows, columns = matrix.shape
    into = gguf.GGMLQuantizationType[taken]
    if columns % gguf.GGML_QUANT_SIZES[into][0]:
        into = gguf.GGMLQuantizationType[SHORT[taken]]
    block, size = gguf.GGML_QUANT_SIZES[into]
    if columns % block:
        return matrix, gguf.GGMLQuantizationType.F16
    floats = numpy.ascontiguousarray(matrix, numpy.float32)
    made = numpy.empty((rows, columns // block * size), numpy.uint8)
    pointers = ctypes.c_void_p(floats.ctypes.data), ctypes.c_void_p(made.ctypes.data)
    counts = ctypes.c_int64(0), ctypes.c_int64(rows), ctypes.c_int64(columns)
    written = ggml.ggml_quantize_chunk(ctypes.c_int(into), *pointers, *counts, None)
    assert written == made.nbytes, (taken, written, made.nbytes)
    return made, into


def serve(model: str, room: str, port: str) -> None:
    """Answers until it is ended."""
    import xllamacpp

    given = xllamacpp.CommonParams()
    given.model.path, given.port, given.use_jinja = model, int(port), True
    given.n_parallel, given.n_ctx = PARALLEL, PARALLEL * int(room)
    # llama.cpp counts the machine's cores, not those that this process may use
    threads = int(os.environ.get("OMP_NUM_THREADS", 0)) or len(os.sched_getaffinity(0))
    given.cpuparams.n_threads = given.cpuparams_batch.n_threads = threads
    server = xllamacpp.Server(given)
    while server:
        time.sleep(3600)


def main() -> None:
    what, model, more, *rest = sys.argv[1:]
    if what == "serve":
        serve(model, more, rest[-1])
    else:
        q4_k_m(model, more)


if __name__ == "__main__":
    main()
