"""How often an ordinary photo is called novel, by a threshold that is one of the novelties of some val photos.

A photo is called novel if it is more novel than the k-th most novel of n val photos. Of n + 1 photos of one kind each
is as likely to have any of the ranks, so a further one is among the k most novel with a chance of k / (n + 1), whatever
the distribution. With k = floor(0.01 (n + 1)) that is at most 1 in 100. Below 99 photos no k promises it: then k is 1,
and 1 / (n + 1) is what n photos can promise, such as 1 in 21 of 20.

Source: split (inductive) conformal prediction: Vovk, Gammerman and Shafer, "Algorithmic learning in a random world",
2005; Lei et al., "Distribution-free predictive inference for regression", JASA 113, 2018.
"""

ABOVE, SHARE, PHOTOS = "novelty_above", "novelty_share", "novelty_photos"  # in the metadata of a file
_ONE_IN = 100


def rank_of(photos: int) -> int:
    """Return k, from above, for so many independent val photos."""
    return max(1, (photos + 1) // _ONE_IN)


def share_of(photos: int) -> float:
    """Return the expected share of ordinary photos that are called novel: k / (n + 1)."""
    return rank_of(photos) / (photos + 1)


def one_in(share: float) -> str:
    """Return a share as `1 in 151`: never less than it is."""
    return f"1 in {int(1 / share + 1e-6)}"  # 1 / (1 / 99) is 98.99999999999999
