from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from regraft.photos.dataset import Dataset
from regraft.photos.groups import first_of_each, groups_of, independent_images, slices_of_images

MANIFEST = pd.DataFrame(
    {
        "path": ["a.png", "b.png", "c.png", "copy of c.png", "c.png"],  # the last one's name has a control character
        "verdict": ["use", "use", "use", "use", "quarantine"],
        "digest": ["1", "2", "3", "3", "2"],
        "group": ["1", "1", "3", "3", None],
        "slice.camera": ["left", None, "right", "left", "left"],
    }
)
DATASET = Dataset(pd.DataFrame({"path": ["c.png", "a.png", "b.png"], "digest": ["3", "1", "2"]}), [], Path())


def test_each_image_has_the_group_of_the_manifest():
    assert groups_of(DATASET, MANIFEST).tolist() == ["3", "1", "1"]


def test_the_first_of_each_group_counts():
    assert first_of_each(np.array(["3", "1", "1"])).tolist() == [True, True, False]


def test_slices_follow_the_path_and_not_the_content():
    slices = slices_of_images(DATASET, MANIFEST)
    assert slices.camera.fillna("").tolist() == ["right", "left", ""]
    assert slices_of_images(DATASET, MANIFEST.drop(columns="slice.camera")).shape == (3, 0)


@pytest.mark.parametrize(
    ("groups", "images"), [(["a", "b", "c"], 3), (["a", "a", "b", "b"], 2), (["a"] * 50 + list("bcdefgh"), 1), ([], 0)]
)
def test_a_large_group_counts_for_what_it_weighs(groups, images):
    assert independent_images(np.array(groups)) == images
