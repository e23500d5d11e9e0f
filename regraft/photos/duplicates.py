"""Photos that may not be parted: copies, near-duplicates, groups that a person gave; and files under two labels.

A photo, its near-duplicates and the photos of its given group form a group, and whoever is linked to a member of a
group belongs to it. A group must be in one split, or the test split measures how well the model remembers.
"""

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from regraft.core.errors import some
from regraft.core.sealed import release_memory
from regraft.photos.dataset import texts_of

_WINDOW = 128  # photos with which one is compared, of those that look the same in one part of the hash
_CROWD = 16  # photos that share a part by chance; where there are more, two parts have to be shared
_KEY_BITS = 32  # of parts that are compared at once
_LINKS = 4  # the groups are joined once for so many photos there is a new link


def mark_duplicates(
    manifest: pd.DataFrame, *, max_hash_distance: int | None, on_label_conflict: Literal["drop", "keep", "error"]
) -> pd.DataFrame:
    """Return the manifest with its groups and `conflict` filled in, and with the verdict on files under two labels.

    Args:
        manifest: from `build_manifest`.
        max_hash_distance: bits in which the perceptual hashes of near-duplicates may differ; None groups copies only.
        on_label_conflict: "drop" quarantines every copy of a file that stands under two labels, since nobody knows
            which one is right. With "keep" and "error" they are used; stopping the run is up to the expectations.
    """
    manifest = manifest.copy()
    # Copies are few: only they are compared.
    several = manifest.loc[_may_be_copies(manifest.digest) & (manifest.verdict == "use"), ["digest", "label"]]
    labels = several.groupby("digest").label.transform("nunique")
    manifest["conflict"] = (labels > 1).reindex(manifest.index, fill_value=False)
    if on_label_conflict == "drop":
        reasons = dict(_reasons_of(manifest[manifest.conflict]))
        # All at once: each time the whole column is copied.
        for column, values in (("verdict", "quarantine"), ("reason", list(reasons.values())), ("group", None)):
            manifest.loc[list(reasons), column] = values
    is_used = manifest.verdict == "use"
    near = _near_groups(manifest.digest[is_used], manifest.phash[is_used], max_hash_distance)
    manifest["group"] = near.reindex(manifest.index)
    if "given_group" in manifest:
        manifest["near_group"] = manifest.group
        manifest["group"] = joined_groups(near, manifest.given_group[is_used]).reindex(manifest.index)
    release_memory()
    return manifest


def _reasons_of(conflicting: pd.DataFrame) -> Iterator[tuple[int, str]]:
    """Yield index and reason of every file of which a copy stands under another label."""
    for _, copies in conflicting.groupby("digest"):
        for index, label in copies.label.items():
            of_others = copies[copies.label != label]
            others = [f"{path} ({other})" for path, other in zip(of_others.path, of_others.label, strict=True)]
            yield index, f"the same file stands under another label: {some(others)}; remove the wrong one"


def joined_groups(near: pd.Series, given: pd.Series) -> pd.Series:
    """Join the groups of near-duplicates that photos of one given group are in.

    Args:
        near: name of the group of near-duplicates of each photo.
        given: of its given group; missing where there is none.

    Returns:
        Names of the joined groups. One with a given group is called by the SHA-256 of that group's name, so more photos
        of a patient do not change where its photos belong.
    """
    near_codes, near_names = pd.factorize(near)
    given_codes, given_names = pd.factorize(given)
    has_group = given_codes >= 0
    links = np.stack([near_codes[has_group], len(near_names) + given_codes[has_group]], axis=1)
    component = _joined(np.arange(len(near_names) + len(given_names)), links)
    hashed = [hashlib.sha256(name.encode()).hexdigest() for name in given_names]
    # Where several given groups are joined, the name is the last one here: the first of all if turned around.
    by_name = sorted(range(len(hashed)), key=lambda place: hashed[place][::-1], reverse=True)
    names = {component[len(near_names) + place]: hashed[place] for place in by_name}
    joined = [names.get(number, name) for number, name in zip(component[near_codes], near, strict=True)]
    return pd.Series(joined, near.index, dtype="str")


def _near_groups(digests: pd.Series, hashes: pd.Series, max_hash_distance: int | None) -> pd.Series:
    """The name of each photo's group: the digest of one of its members."""
    groups, is_first, copies = digests.copy(), np.array(hashes.notna()), _may_be_copies(digests)
    is_first[copies] &= ~digests[copies].duplicated().to_numpy()
    places = np.flatnonzero(is_first)
    if max_hash_distance is None or not len(places):
        return groups
    component = near_components(_bytes_of(texts_of(hashes.iloc[places])), max_hash_distance)
    is_linked = (np.bincount(component) > 1)[component]
    linked = list(zip(digests.iloc[places[is_linked]].tolist(), component[is_linked].tolist(), strict=True))
    # Not the smallest digest: the first digits of a digest choose the split, so most groups would be in test.
    first = {number: digest for digest, number in sorted(linked, key=lambda each: each[0][::-1], reverse=True)}
    names = {digest: first[number] for digest, number in linked}
    if not names:
        return groups
    is_named = groups.isin(list(names))
    groups[is_named] = [names[digest] for digest in groups[is_named].tolist()]
    return groups


def _may_be_copies(digests: pd.Series) -> np.ndarray:
    """Return which digests others have too, bool; one in billions has only the same hash as another."""
    keys = np.fromiter(map(hash, texts_of(digests)), np.int64, len(digests))
    _, key, counts = np.unique(keys, return_inverse=True, return_counts=True)
    return (counts > 1)[key]


def has_near(hashes: list[str], others: list[str], distance: int) -> list[bool]:
    """Return of each perceptual hash whether steps of at most `distance` bits lead from it to one of some others."""
    if not hashes or not others:
        return [False] * len(hashes)
    groups = near_groups([*hashes, *others], distance)
    return np.isin(groups[: len(hashes)], groups[len(hashes) :]).tolist()


def near_groups(hashes: list[str], distance: int) -> list[int]:
    """Return for each perceptual hash the number of its group: steps of at most `distance` bits link its members."""
    return near_components(_bytes_of(hashes), distance).tolist() if hashes else []


def nearest_of(hashes: list[str], others: list[str], distance: int) -> list[list[int]]:
    """Return for each perceptual hash the positions of those of some others that differ from it in the fewest bits.

    Unlike the members of a group, which steps may link, they differ from it in at most `distance` bits. Where there is
    none, the list is empty.
    """
    if not hashes or not others:
        return [[] for _ in hashes]
    rows = _bytes_of([*hashes, *others])
    words, component, count = rows.view(np.uint64), near_components(rows, distance), len(hashes)
    order = np.argsort(component[count:], kind="stable")  # of the others, component by component
    begins, ends = (np.searchsorted(component[count:][order], component[:count], side) for side in ("left", "right"))
    found = []
    for place, (begin, end) in enumerate(zip(begins.tolist(), ends.tolist(), strict=True)):
        linked = order[begin:end]
        bits = np.bitwise_count(words[place] ^ words[count + linked]).sum(axis=1, dtype=int)
        found.append(linked[bits == bits.min(initial=distance)].tolist())
    return found


def _bytes_of(hashes: Iterable[str]) -> np.ndarray:
    rows = list(map(bytes.fromhex, hashes))
    return np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), -1)


def near_components(hashes: np.ndarray, distance: int) -> np.ndarray:
    """Number the groups of hashes that are linked by steps of at most `distance` bits.

    Cut into distance + 1 parts, two hashes so near are equal in at least one of them, and cut into distance + 2 in at
    least two (multi-index hashing, Norouzi et al. 2012). So only those that share one, or two where there are many
    hashes, are compared. Where many do, as in the pictures of a camera that never moves, each is compared with the next
    hundred in their order: of so many near-duplicates enough are linked.

    Args:
        hashes: uint8, shape (n, bytes), bytes a multiple of 8.
        distance: below the number of bits of a hash.

    Returns:
        int, shape (n,): equal for hashes of one group.
    """
    words = np.ascontiguousarray(hashes).view(">u8").astype(np.uint64)
    bits, component = 64 * words.shape[1], np.arange(len(words))
    shared = 1 if len(words) <= _CROWD * 2 ** min(_KEY_BITS, bits // (distance + 1)) else 2
    edges = np.linspace(0, bits, distance + shared + 1).astype(int)
    tables = list(itertools.combinations(itertools.pairwise(edges.tolist()), shared))
    reach = max(1, _WINDOW * (distance + 1) // len(tables))  # so two parts cost a crowd no more than one
    links, waiting = [], 0
    for parts in tables:
        for left, right in _alike(words, parts, component, reach):
            apart = component[left] != component[right]
            left, right = left[apart], right[apart]
            near = np.bitwise_count(words[left] ^ words[right]).sum(axis=1) <= distance
            links.append(component[np.stack([left[near], right[near]], axis=1)])
            waiting += len(links[-1])
            if waiting > len(words) // _LINKS:
                component, links, waiting = _joined(component, np.concatenate(links)), [], 0
    return _joined(component, np.concatenate([np.empty((0, 2), int), *links]))


def _alike(
    words: np.ndarray, parts: Sequence[tuple[int, int]], component: np.ndarray, reach: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield pairs of hashes that are equal in some parts.

    Args:
        words: of the hashes.
        parts: given by their first bit and the one after their last.
        component: where all that are equal there are of one group, they are left out.
        reach: with how many that come next each is compared where more than `_WINDOW` are equal there.
    """
    if not len(words):
        return
    key = np.zeros(len(words), np.uint64)
    for start, end in parts:  # of a long part the beginning will do
        width = min(end - start, _KEY_BITS // len(parts))
        key = key << np.uint64(width) | _turned(words, start)[0] >> np.uint64(64 - width)
    placed = np.sort(key << np.uint64(32) | np.arange(len(words), dtype=np.uint64))
    key, order = placed >> np.uint64(32), (placed & np.uint64(2**32 - 1)).astype(np.intp)
    begins = np.flatnonzero(np.append(True, key[1:] != key[:-1]))
    lengths = np.diff(begins, append=len(key))
    of_order = component[order]
    is_open = np.minimum.reduceat(of_order, begins) < np.maximum.reduceat(of_order, begins)
    is_crowded = np.repeat(is_open & (lengths > _WINDOW), lengths)
    if is_crowded.any():
        # Not all of them are compared: the rest of the hash after the part brings the most similar side by side.
        crowded = np.flatnonzero(is_crowded)
        columns = [column[order[crowded]] for column in _turned(words, parts[0][0])]
        order[crowded] = order[crowded][np.lexsort([*columns[::-1], key[crowded]])]
    first = np.flatnonzero(np.repeat(is_open, lengths))
    for step in range(1, _WINDOW + 1):
        first = first[first + step < len(order)]
        first = first[key[first] == key[first + step]]
        if step > reach:
            first = first[~is_crowded[first]]
        if not len(first):
            return
        yield order[first], order[first + step]


def _turned(words: np.ndarray, start: int) -> list[np.ndarray]:
    """Return the words of hashes that begin with this bit, and after whose last bit the first ones follow."""
    skipped, shift = divmod(start, 64)
    columns = [words[:, (skipped + number) % words.shape[1]] for number in range(words.shape[1] + 1)]
    if not shift:
        return columns[:-1]
    left, right = np.uint64(shift), np.uint64(64 - shift)
    return [this << left | after >> right for this, after in itertools.pairwise(columns)]


def _joined(component: np.ndarray, links: np.ndarray) -> np.ndarray:
    """Number the components anew, now that some of them are linked."""
    if not len(links):
        return component
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    size = len(component)
    graph = coo_array((np.ones(len(links), np.int8), links.T), shape=(size, size))
    return connected_components(graph, directed=False)[1][component]
