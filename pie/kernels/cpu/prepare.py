"""From a batch as it comes to what a step reads: where rows write, tasks, masks, requests.

A batch is two pieces of memory, `words` (int32) and `reals` (float32), in which its arrays follow
each other in the order of WORDS and REALS. Compiled, because the same in NumPy takes a fifth of a
millisecond, which is felt in a step of five. Everything is checked on the way: what follows
trusts it.
"""

from __future__ import annotations

from typing import Any

from .attention import segments
from .jit import compiled, staged
from .layout import PAGE_SIZE
from .plan import bits_at, floats_at, ints_at, longs_at, plan_at, requests_at, tasks_at

TASK_ROWS = 16
"""Most rows of one pass that one item of attention computes."""

SORTED = 256
"""More tasks than these are left in their order: there are enough to go round."""

WORDS = (
    *("tokens", "positions", "row_starts", "table", "page_starts", "lengths"),
    *("embedding_rows", "embedding_slots", "stored_rows", "stored_slots"),
    *("masked_rows", "mask_starts", "mask_runs"),
    *("sampled_rows", "top_k", "ranked_rows", "ranked_k"),
    *("cleared_pages", "cleared_slots", "copy_sources", "copy_targets"),
)
REALS = ("temperature", "top_p", "min_p", "uniform", "ranked_temperature")


@compiled
def _within(address: int, count: int, limit: int) -> bool:
    values = ints_at(address, count)
    for i in range(count):  # noqa: SIM110 # compiled as it stands
        if not 0 <= values[i] < limit:
            return False
    return True


@compiled
def _find(p: Any) -> None:
    """The addresses of a batch's arrays."""
    at = p.words
    p.tokens = at
    p.positions = at + 4 * p.rows
    p.row_starts = p.positions + 4 * p.rows
    p.table = p.row_starts + 4 * (p.passes + 1)
    p.page_starts = p.table + 4 * p.entries
    p.lengths = p.page_starts + 4 * (p.passes + 1)
    p.embedding_rows = p.lengths + 4 * p.passes
    p.embedding_slots = p.embedding_rows + 4 * p.embedded
    p.stored_rows = p.embedding_slots + 4 * p.embedded
    p.stored_slots = p.stored_rows + 4 * p.stored
    p.masked_rows = p.stored_slots + 4 * p.stored
    p.mask_starts = p.masked_rows + 4 * p.masked
    p.mask_runs = p.mask_starts + 4 * (p.masked + 1)
    p.sampled_rows = p.mask_runs + 4 * p.runs
    p.top_k = p.sampled_rows + 4 * p.sampled
    p.ranked_rows = p.top_k + 4 * p.sampled
    p.ranked_k = p.ranked_rows + 4 * p.ranked
    p.cleared_pages = p.ranked_k + 4 * p.ranked
    p.cleared_slots = p.cleared_pages + 4 * p.cleared
    p.copy_sources = p.cleared_slots + 4 * p.emptied
    p.copy_targets = p.copy_sources + 4 * p.copies
    p.temperature = p.reals
    p.top_p = p.temperature + 4 * p.sampled
    p.min_p = p.top_p + 4 * p.sampled
    p.uniform = p.min_p + 4 * p.sampled
    p.ranked_temperature = p.uniform + 4 * p.sampled


@compiled
def _bounds_hold(p: Any) -> bool:
    """Whether every number that is followed stays within its memory, but those of passes."""
    return (
        _within(p.table, p.entries, p.page_count)
        and _within(p.embedding_rows, p.embedded, p.rows)
        and _within(p.embedding_slots, p.embedded, p.slots)
        and _within(p.stored_rows, p.stored, p.rows)
        and _within(p.stored_slots, p.stored, p.slots)
        and _within(p.masked_rows, p.masked, p.rows)
        and _within(p.sampled_rows, p.sampled, p.rows)
        and _within(p.ranked_rows, p.ranked, p.rows)
        and _within(p.cleared_pages, p.cleared, p.page_count)
        and _within(p.cleared_slots, p.emptied, p.slots)
        and _within(p.copy_sources, p.copies, p.page_count)
        and _within(p.copy_targets, p.copies, p.page_count)
    )


@compiled
def _take_inputs(p: Any) -> bool:
    """Where the rows' inputs and kept states are; False if a row has none."""
    tokens, inputs = ints_at(p.tokens, p.rows), longs_at(p.inputs, p.rows)
    inputs[:] = 0
    rows, slots = ints_at(p.embedding_rows, p.embedded), ints_at(p.embedding_slots, p.embedded)
    for i in range(p.embedded):
        inputs[rows[i]] = p.embeddings + slots[i] * p.hidden * 4
    for r in range(p.rows):
        if tokens[r] >= p.vocabulary or (tokens[r] < 0 and inputs[r] == 0):
            return False
    targets, kept = longs_at(p.stored_targets, p.stored), ints_at(p.stored_slots, p.stored)
    for i in range(p.stored):
        targets[i] = p.embeddings + kept[i] * p.hidden * 4
    return True


@compiled
def _cut_passes(p: Any) -> bool:
    """Where rows write, and the tasks; False if a pass does not fit its rows or pages."""
    starts, lengths = ints_at(p.row_starts, p.passes + 1), ints_at(p.lengths, p.passes)
    first_pages, table = ints_at(p.page_starts, p.passes + 1), ints_at(p.table, p.entries)
    row_pages, row_slots = ints_at(p.row_pages, p.rows), ints_at(p.row_slots, p.rows)
    tasks = tasks_at(p.tasks, p.rows)
    count, longest = 0, 0
    if starts[0] != 0 or starts[p.passes] != p.rows or first_pages[0] < 0:
        return False
    for i in range(p.passes):
        first, rows, length = starts[i], starts[i + 1] - starts[i], lengths[i]
        entry, end = first_pages[i], first_pages[i + 1]
        if rows < 1 or length < rows or length > (end - entry) * PAGE_SIZE or end > p.entries:
            return False
        longest = max(longest, length)
        for j in range(rows):
            slot = length - rows + j
            row_pages[first + j] = table[entry + slot // PAGE_SIZE]
            row_slots[first + j] = slot % PAGE_SIZE
        for j in range(0, rows, TASK_ROWS):
            task = tasks[count]
            task.first_row, task.rows = first + j, min(TASK_ROWS, rows - j)
            task.pages, task.limit = p.table + 4 * entry, length - rows + j + 1
            count += 1
    p.task_count = count
    p.longest = longest
    return True


@compiled
def _sort_tasks(p: Any) -> None:
    """The longest first, so that threads end at about the same time; equal ones stay in order."""
    tasks = tasks_at(p.tasks, p.rows)
    for i in range(1, p.task_count if p.task_count <= SORTED else 0):
        a, b, c, d = tasks[i].first_row, tasks[i].rows, tasks[i].pages, tasks[i].limit
        j = i
        while j > 0 and tasks[j - 1].limit * tasks[j - 1].rows < d * b:
            tasks[j].first_row, tasks[j].rows = tasks[j - 1].first_row, tasks[j - 1].rows
            tasks[j].pages, tasks[j].limit = tasks[j - 1].pages, tasks[j - 1].limit
            j -= 1
        tasks[j].first_row, tasks[j].rows, tasks[j].pages, tasks[j].limit = a, b, c, d


@compiled
def _show(bits: Any, start: int, end: int) -> None:
    """Set the bits of slots start .. end - 1, 16 to a page."""
    for page in range(start // PAGE_SIZE, -(-end // PAGE_SIZE)):
        low, high = max(start - page * PAGE_SIZE, 0), min(end - page * PAGE_SIZE, PAGE_SIZE)
        bits[page] |= (1 << high) - (1 << low)


@compiled
def _read_masks(p: Any) -> bool:
    """The masked rows' visible slots; False if runs are not what they should be.

    Runs alternate attend, hide, attend, ... `mask_width` pages are enough for the longest.
    """
    masks, rows = longs_at(p.masks, p.rows), ints_at(p.masked_rows, p.masked)
    starts, runs = ints_at(p.mask_starts, p.masked + 1), ints_at(p.mask_runs, p.runs)
    masks[:] = 0
    for i in range(p.masked):
        masks[rows[i]] = p.mask_bits + i * p.mask_width * 2
        bits = bits_at(masks[rows[i]], p.mask_width)
        bits[:] = 0
        slot = 0
        if not 0 <= starts[i] <= starts[i + 1] <= p.runs:
            return False
        for j in range(starts[i], starts[i + 1]):
            end = slot + runs[j]
            if runs[j] < 0 or end > p.mask_width * PAGE_SIZE:
                return False
            if (j - starts[i]) % 2 == 0:
                _show(bits, slot, end)
            slot = end
    return True


@compiled
def _group_outputs(p: Any) -> None:
    """The wanted rows, ascending, and the requests of each."""
    marks = ints_at(p.marks, p.rows + 1)
    marks[:] = 0
    count = p.sampled + p.ranked
    asked = ints_at(p.sampled_rows, p.sampled), ints_at(p.ranked_rows, p.ranked)
    for i in range(count):
        marks[asked[0][i] if i < p.sampled else asked[1][i - p.sampled]] += 1
    wanted, starts = ints_at(p.wanted_rows, p.rows), ints_at(p.starts, p.rows + 1)
    found, total = 0, 0
    for r in range(p.rows):
        if marks[r]:
            wanted[found], starts[found] = r, total
            total += marks[r]
            marks[r] = found
            found += 1
    starts[found] = total
    p.wanted = found
    requests = requests_at(p.requests, count)
    place = 0
    for i in range(count):
        row = marks[asked[0][i] if i < p.sampled else asked[1][i - p.sampled]]
        request = requests[starts[row]]
        request.output = i
        starts[row] += 1
        if i < p.sampled:
            request.kind, request.place = 0, i
            request.temperature = floats_at(p.temperature, p.sampled)[i]
            request.top_k = ints_at(p.top_k, p.sampled)[i]
            request.top_p = floats_at(p.top_p, p.sampled)[i]
            request.min_p = floats_at(p.min_p, p.sampled)[i]
            request.uniform = floats_at(p.uniform, p.sampled)[i]
        else:
            j = i - p.sampled
            request.kind, request.place = 1, place
            request.temperature = floats_at(p.ranked_temperature, p.ranked)[j]
            request.top_k = min(ints_at(p.ranked_k, p.ranked)[j], p.vocabulary)
            place += request.top_k
    for row in range(found, 0, -1):  # filling has moved each start to the next one's
        starts[row] = starts[row - 1]
    starts[0] = 0


@staged
def prepare(plan: int) -> int:
    """Fill in the rest of the plan; 0 if the batch is not sound, and nothing may be run."""
    p = plan_at(plan, 1)[0]
    _find(p)
    if not (_bounds_hold(p) and _take_inputs(p) and _cut_passes(p) and _read_masks(p)):
        return 0
    _sort_tasks(p)
    few = p.rows == p.passes and p.rows * p.kv_heads < 4 * p.threads and p.threads > 1
    split = segments(p.longest)
    p.split = split if few and split > 1 else 0
    if p.answered:
        _group_outputs(p)
    counters = longs_at(p.counters, p.counter_words)
    counters[:] = 0
    return 1
