"""Networks of timm with random weights, and folders as timm writes them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file


def random_network(timm, name: str, **arguments):
    """A network whose batch norms are set by one batch of random images, so that its vectors differ between images."""
    torch.manual_seed(len(name))
    module = timm.create_model(name, pretrained=False, **arguments)
    for parameter in module.parameters():  # scales of layers and tokens that begin at almost nothing
        if float(parameter.detach().abs().max()) < 0.01:
            torch.nn.init.uniform_(parameter, 0.05, 0.3)
    norms = [each for each in module.modules() if isinstance(each, torch.nn.modules.batchnorm._BatchNorm)]
    for each in norms:
        each.momentum = None
    if norms:
        module.train()
        side = module.pretrained_cfg["input_size"][-1] if "img_size" not in arguments else arguments["img_size"]
        with torch.no_grad():
            module(torch.randn(4, 3, side, side))
    return module.eval()


def write_folder(folder: Path, module, *, arguments: dict | None = None, **pretrained) -> Path:
    """A folder as timm writes it, with other values in its configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous().clone() for name, tensor in module.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    kept = {
        name: value
        for name, value in module.pretrained_cfg.items()
        if name not in ("url", "hf_hub_id", "architecture", "file", "source") and not callable(value)
    }
    config = {
        "architecture": module.pretrained_cfg["architecture"],
        "num_classes": module.num_classes,
        "pretrained_cfg": {**kept, **pretrained},
        **({"model_args": arguments} if arguments else {}),
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder
