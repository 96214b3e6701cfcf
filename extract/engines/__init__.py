"""Engines: inference of a backbone on batches of images, and the choice of an engine.

    run(uint8 (B, 3, S, S)) -> float32 (B, D), as a numpy array, row i for image i

    protocol        Engine, and Source, the network that an engine is built from
    build           build_engine: the fastest engine for a device, or the requested one
    torch_engine    PyTorch, on CUDA, MPS and the CPU
    onnx_engine     ONNX Runtime, on the CPU
    choice          the choice between the two on a CPU
    devices         the device and its instruction sets, without torch where that is possible
    several_gpus    one network on several GPUs
    device_check    comparison of CUDA and MPS with the CPU
    torch_settings  torch's settings for the process, and their restoration
    folding         batch norms folded into convolutions
    export          export of a network as an ONNX graph
    graph_store     storage of exported graphs and of the choice
    graph_checks    checks of a stored graph
    int8            the engine in int8, and the measurement of its activation ranges
    exact_products  products of 8 bits that do not saturate, on every processor
    calibration     activation ranges of a graph, and its quantisation by ranges
    calibration_pictures  the synthetic pictures of the calibration
    fixed_batches   any number of images in batches of a fixed size
    few_images      fewer images than a batch, one by one on all cores

Engines differ in speed and agree in their vectors, to 1e-4 relative; so neither engine nor device is part of a cache's
key. On CUDA and MPS the engine is torch, which is compared with the CPU when an extraction begins. On a CPU the first
run of a network exports its graph for ONNX Runtime, compares it with torch in accuracy and speed, and saves the graph
and the choice.
"""
