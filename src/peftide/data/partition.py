"""Deal groups of proteins out to parts of wanted sizes: for single proteins by stratum, for pairs on their graph.

A group is whatever must stay together: identical sequences, or a cluster of similar ones. Legend of shapes: N
examples, G groups, C strata (classes of the labels), S parts (train, val, test).
"""

import numpy as np
from scipy import sparse

LARGEST_SHARE = 0.1  # of a part that one group may fill, but for the largest part
RESTARTS = 4  # the best of so many searches is taken
SWEEPS = 300  # of one search, cooling, and a tenth of that at zero temperature; 1000 keep 1 % more pairs
COLDEST = 0.1  # last temperature, in pairs
MOVING_FRACTION = 0.2  # of the groups reconsidered per sweep: all at once would swing to and fro
CROWDING = 0.7  # strength of the pull towards even sizes; 1 cancels the attraction of a part for its mere size
CORRECTION = 0.1  # exponent of the per-sweep correction of the sizes aimed at
SHARPNESS = 4.0  # exponent of the soft minimum by which a partition is judged


def deal_groups(count_GC: np.ndarray, *, fractions_S: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Part of each group (G,), such that every stratum is dealt out in the asked fractions.

    Iterative stratification (Sechidis et al. 2011) for groups: those with the rarest strata and the most examples go
    first, each to the part that lacks most of what it has. A group that would fill much of a smaller part goes to the
    largest one, so that a test does not hang on one family, unless a part would be left without the stratum.
    count_GC: examples of each group in each stratum.
    """
    total_C = np.maximum(count_GC.sum(axis=0), 1)
    size_G, rarest_G = count_GC.sum(axis=1), np.where(count_GC > 0, total_C, np.inf).argmin(axis=1)
    order_G = np.lexsort((generator.random(len(count_GC)), -size_G, total_C[rarest_G]))
    num_left_C = np.bincount(rarest_G, minlength=len(total_C))
    most_S = _largest_sizes(size_G, fractions_S)
    wanted_SC = fractions_S[:, None] * total_C
    lack_SC, weight_GC = wanted_SC.copy(), count_GC / total_C
    tie_S = 1e-9 * fractions_S  # an equal lack goes to the larger part
    part_G = np.zeros(len(count_GC), dtype=np.int64)
    for group in order_G:
        rarest = rarest_G[group]
        is_without_S = lack_SC[:, rarest] == wanted_SC[:, rarest]
        is_open_S = size_G[group] <= most_S
        if num_left_C[rarest] <= is_without_S.sum():
            is_open_S |= is_without_S
        lack_S = (lack_SC / wanted_SC) @ weight_GC[group] + tie_S
        part_G[group] = np.argmax(np.where(is_open_S, lack_S, -np.inf))
        lack_SC[part_G[group]] -= count_GC[group]
        num_left_C[rarest] -= 1
    return part_G


def _largest_sizes(size_G: np.ndarray, fractions_S: np.ndarray) -> np.ndarray:
    """Largest group (S,) that each part takes: LARGEST_SHARE of the part; the largest part takes any.

    More where the groups beyond that would fill over half of the largest part.
    """
    total = size_G.sum()
    falling_G = np.sort(size_G)[::-1]
    num_outsize = int(np.searchsorted(np.cumsum(falling_G), 0.5 * fractions_S.max() * total, side="right"))
    largest_S = np.maximum(LARGEST_SHARE * fractions_S * total, falling_G[min(num_outsize, len(size_G) - 1)])
    largest_S[np.argmax(fractions_S)] = np.inf
    return largest_S


def partition_graph(
    groups_N2: np.ndarray, strata_NC: np.ndarray, *, fractions_S: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Part of each group (G,), such that many pairs lie within one part and those are in the asked fractions.

    groups_N2: rows of the two groups of each pair, 0 to G - 1. strata_NC: membership of the pairs as 0/1; each
    stratum is spread over the parts in the asked fractions.
    """
    num_groups = int(groups_N2.max()) + 1
    links, own_GC = _interaction_graph(groups_N2, strata_NC, num_groups)
    tries = [_anneal(links, own_GC, fractions_S=fractions_S, generator=generator) for _ in range(RESTARTS)]
    return max(tries, key=lambda scored: scored[0])[1]


def _anneal(
    links: list[sparse.csr_array], own_GC: np.ndarray, *, fractions_S: np.ndarray, generator: np.random.Generator
) -> tuple[float, np.ndarray]:
    """Score and part of each group of the best partition met while cooling down.

    Label propagation: a group moves to the part with most of its links, less what it would have there if links
    ignored structure (as in modularity: degree times the part's share of all degrees, over the share aimed at), plus
    Gumbel noise that cools down, which makes it Gibbs sampling. The shares aimed at are corrected in each sweep until
    the *kept* pairs of every stratum are in the asked fractions. A sweep costs one sparse product per stratum.
    """
    num_groups, num_strata = own_GC.shape
    degree_GC = np.stack([link.sum(axis=1) for link in links], axis=1) + 2 * own_GC
    total_C = degree_GC.sum(axis=0)
    wanted_SC = fractions_S[:, None] * total_C / total_C.sum()
    share_S = np.sqrt(fractions_S) / np.sqrt(fractions_S).sum()  # without structure, pairs go as the square of groups
    aim_SC = np.repeat(share_S[:, None], num_strata, axis=1)
    part_G = generator.choice(len(fractions_S), size=num_groups, p=share_S)
    best = (-1.0, part_G)
    hottest = max(np.sqrt(degree_GC.sum(axis=1).mean()), COLDEST)
    for temperature in np.append(np.geomspace(hottest, COLDEST, SWEEPS), np.zeros(SWEEPS // 10)):
        member_GS = np.eye(len(fractions_S))[part_G]
        links_GSC = np.stack([link @ member_GS for link in links], axis=2)
        kept_SC = np.einsum("gs,gsc->sc", member_GS, links_GSC / 2 + own_GC[:, None, :])
        score = _soft_minimum(kept_SC, wanted_SC)
        if score > best[0]:
            best = (score, part_G)
        kept_share_SC = kept_SC / np.maximum(kept_SC.sum(axis=0), 1)
        aim_SC = aim_SC * (fractions_S[:, None] / np.maximum(kept_share_SC, 1e-3)) ** CORRECTION
        aim_SC /= aim_SC.sum(axis=0)
        crowd_SC = CROWDING * (member_GS.T @ degree_GC) / total_C / aim_SC
        gain_GS = links_GSC.sum(axis=2) - degree_GC @ crowd_SC.T
        noise_GS = temperature * generator.gumbel(size=gain_GS.shape)
        moving_G = generator.random(num_groups) < MOVING_FRACTION
        part_G = np.where(moving_G, np.argmax(gain_GS + noise_GS, axis=1), part_G)
    return best


def _interaction_graph(
    groups_N2: np.ndarray, strata_NC: np.ndarray, num_groups: int
) -> tuple[list[sparse.csr_array], np.ndarray]:
    """Symmetric counts of pairs between different groups, a matrix per stratum, and the pairs within groups (G, C)."""
    within_N = groups_N2[:, 0] == groups_N2[:, 1]
    own_GC = np.zeros((num_groups, strata_NC.shape[1]))
    np.add.at(own_GC, groups_N2[within_N, 0], strata_NC[within_N])
    links = []
    for stratum_N in strata_NC.T:
        left, right = groups_N2[(stratum_N > 0) & ~within_N].T
        half = sparse.coo_array((np.ones(len(left)), (left, right)), shape=(num_groups, num_groups)).tocsr()
        links.append((half + half.T).tocsr())
    return links, own_GC


def _soft_minimum(kept_SC: np.ndarray, wanted_SC: np.ndarray) -> float:
    """Power mean of kept / wanted over (part, stratum), with exponent -SHARPNESS and weights `wanted_SC` (sum 1).

    It rises with the number of pairs kept and falls when a cell gets less than its share.
    """
    ratio_SC = (kept_SC + 0.1) / wanted_SC
    return float((wanted_SC * ratio_SC**-SHARPNESS).sum() ** (-1 / SHARPNESS))
