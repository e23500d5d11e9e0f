"""Classify a photo with nothing but ONNX Runtime and Pillow: python docs/classify.py models/model.onnx photo.jpg"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
class_names = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])
photo = np.asarray(ImageOps.exif_transpose(Image.open(sys.argv[2])).convert("RGB"))
(probabilities,) = session.run(["probabilities"], {"image": photo[None]})
for index in np.argsort(-probabilities[0])[:5]:
    print(f"{probabilities[0][index]:.4f}  {class_names[index]}")
