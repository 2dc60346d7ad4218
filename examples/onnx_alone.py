"""Repair an image with a file of `restore export --format onnx`, using only onnxruntime, NumPy and Pillow.

python examples/onnx_alone.py photo.onnx scan.png repaired.png
python examples/onnx_alone.py inpaint.onnx scan.png repaired.png mask.png    # white = repair
"""

import sys

import numpy as np
import onnxruntime
from PIL import Image

model, source, target, *mask_file = sys.argv[1:]
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
facts = session.get_modelmeta().custom_metadata_map  # purpose, multiple, range, what the mask means
seen = [np.asarray(Image.open(source).convert("RGB"), np.float32).transpose(2, 0, 1) / 255]
if mask_file:
    seen.append((np.asarray(Image.open(mask_file[0]).convert("L"))[None] > 127).astype(np.float32))
height, width = seen[0].shape[1:]
below, right = (-side % int(facts["multiple"]) for side in (height, width))
padded = [np.pad(one, ((0, 0), (0, below), (0, right)), "symmetric")[None] for one in seen]
output = session.run(None, dict(zip(("image", "mask"), padded)))[0][0, :, :height, :width].clip(0, 1)
if mask_file:
    output = np.where(seen[1] > 0, output, seen[0])
Image.fromarray(np.rint(output.transpose(1, 2, 0) * 255).astype(np.uint8)).save(target)
