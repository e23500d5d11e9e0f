"""List the backbones that params.yaml can name: python -m regraft.backbones"""

from regraft.backbones import CATALOGUE

for name, recipe in CATALOGUE.items():
    print(f"{name}: {recipe.title}, {recipe.image_size} pixels, cut after {recipe.cut}")
    print(f"    ImageNet weights: {recipe.weights_source}, {recipe.weights_licence}")
