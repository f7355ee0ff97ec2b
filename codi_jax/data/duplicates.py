"""Near-duplicates among many images, by 64-bit perceptual hashes."""

import cv2
import numpy as np

from codi_jax.data import images
from codi_jax.typing import UserError

BITS = 64
MAX_DISTANCE = 15


def perceptual_hash(image: np.ndarray) -> int:
    """dHash: is each of 8 x 8 coarse cells darker than its right neighbour? uint8 [H, W, 3].

    Scaling, compression and slight changes of brightness leave nearly all 64 bits as they are;
    a mirrored or cropped image has another hash.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    # Exact means first, then bits: eight-bit cells would have ties that compression breaks.
    cells = images.resize(grey.astype(np.float32), (8, 9), "area")
    return int.from_bytes(np.packbits(cells[:, 1:] > cells[:, :-1]).tobytes(), "big")


def near_duplicates(hashes: np.ndarray, distance: int) -> np.ndarray:
    """Which images have an earlier one whose hash differs in at most `distance` bits.

    The first of such a group stays; of a chain whose neighbours alone are similar too. Memory is
    a few times that of `hashes`. If two hashes differ in d bits, at least one of d + 1 parts
    of them is equal (the pigeonhole principle), so only those pairs are compared.

    Args:
        hashes: uint64 [N].
        distance: 0 .. 15.

    Returns:
        bool [N].
    """
    if not 0 <= distance <= MAX_DISTANCE:
        raise UserError(f"near-duplicate distance {distance} is not in 0..{MAX_DISTANCE}.")
    # Equal hashes first: afterwards no two are equal, so that no group is needlessly large.
    unique, first = np.unique(hashes, return_index=True)
    duplicate = np.ones(len(hashes), bool)
    duplicate[first] = False
    for part in range(distance + 1 if distance else 0):
        # Every (d + 1)-th bit: neighbouring bits belong together in pictures, as in a sky.
        bits = np.uint64(sum(1 << bit for bit in range(part, BITS, distance + 1)))
        order = np.argsort(unique & bits, kind="stable")
        keys, sorted_hashes, index = (unique & bits)[order], unique[order], first[order]
        left = np.arange(len(keys))
        for step in range(1, len(keys)):
            # Pairs at this step in the sorted order, of those with equal parts.
            left = left[left + step < len(keys)]
            left = left[keys[left] == keys[left + step]]
            if len(left) == 0:
                break
            right = left + step
            near = np.bitwise_count(sorted_hashes[left] ^ sorted_hashes[right]) <= distance
            duplicate[np.maximum(index[left], index[right])[near]] = True
    return duplicate
