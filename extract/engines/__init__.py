"""Engines: what runs a backbone on a batch, and how one is chosen.

    run(uint8 (B, 3, S, S)) -> float32 (B, D), as a numpy array, row i for image i

    protocol       Engine, and Source, a network on its way to one
    build          build_engine: the best for a device, or the one that is named
    torch_engine   PyTorch, on CUDA, MPS and the CPU
    onnx_engine    ONNX Runtime, on the CPU
    choice         which of the two a CPU gets
    export         a network as an ONNX graph
    graph_store    exported graphs and the verdicts on them, kept
    graph_checks   what such a graph may be
    fixed_batches  any number of images in batches of one size

Engines differ in speed and agree in numbers, to 1e-4 relative; so neither engine nor device is part of a cache's key.
On CUDA and MPS the engine is torch. On a CPU ONNX Runtime is tried the first time that a network runs on a machine: its
graph is exported, compared with torch in numbers and in speed, and kept with the verdict.
"""
