"""Repair an image with a file of `restore export --format onnx`, using only OpenCV 5 and NumPy.

python examples/opencv_alone.py photo.onnx scan.png repaired.png
python examples/opencv_alone.py inpaint.onnx scan.png repaired.png mask.png    # white = repair
"""

import sys

import cv2
import numpy as np

MULTIPLE = 8  # of the sides, for all shipped models; OpenCV does not show the metadata of a file

model, source, target, *mask_file = sys.argv[1:]
network = cv2.dnn.readNetFromONNX(model)
image = cv2.imread(source)
height, width = image.shape[:2]
border = (0, -height % MULTIPLE, 0, -width % MULTIPLE, cv2.BORDER_REFLECT)
seen = cv2.copyMakeBorder(image, *border)
network.setInput(cv2.dnn.blobFromImage(seen, 1 / 255, swapRB=True), "image")
mask = np.full((height, width), 255, np.uint8)
if mask_file:
    mask = cv2.imread(mask_file[0], cv2.IMREAD_GRAYSCALE)
    hole = cv2.copyMakeBorder((mask > 127).astype(np.float32), *border)
    network.setInput(hole[None, None], "mask")
output = network.forward()[0, ::-1, :height, :width].transpose(1, 2, 0).clip(0, 1)
cv2.imwrite(target, np.where(mask[..., None] > 127, np.rint(output * 255), image).astype(np.uint8))
