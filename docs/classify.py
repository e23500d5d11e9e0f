"""Classify a photo with nothing but ONNX Runtime and Pillow: python docs/classify.py models/model.onnx photo.jpg"""

import contextlib
import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

# Named, because Pillow opens more, and hands PostScript, whatever its name, to a program that runs it.
FORMATS = ["JPEG", "PNG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "AVIF", "JPEG2000", "PPM"]
with contextlib.suppress(ImportError):  # HEIC, what phones write: pip install pi-heif
    from pi_heif import register_heif_opener

    register_heif_opener()
    FORMATS.append("HEIF")


def read(path: str) -> np.ndarray:
    """Return a photo as those were that the network was trained on: uint8 RGB, upright, on white."""
    with Image.open(path, formats=FORMATS) as file:
        photo = ImageOps.exif_transpose(file)
    if photo.mode == "F":
        raise ValueError("pixels are floating-point numbers with no agreed range; save it with 8 or 16 bits")
    if photo.mode.startswith("I"):  # 16 bits a pixel, which Pillow would clip at 255
        photo = Image.fromarray((np.asarray(photo).astype(int).clip(0, 65535) // 257).astype(np.uint8))
    if photo.has_transparency_data:
        photo = Image.alpha_composite(Image.new("RGBA", photo.size, "white"), photo.convert("RGBA"))
    return np.asarray(photo.convert("RGB"))


if __name__ == "__main__":
    session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    class_names = json.loads(facts["class_names"])
    (probabilities,) = session.run(["probabilities"], {"image": read(sys.argv[2])[None]})
    if probabilities.max() < float(facts.get("abstain_below", 0)):  # above it, target_precision of answers are right
        print("unsure")
    for index in np.argsort(-probabilities[0])[:5]:
        print(f"{probabilities[0][index]:.4f}  {class_names[index]}")
