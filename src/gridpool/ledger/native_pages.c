/* The walk over a table's pages, compiled: `_Walk._plain_table` of pages.py defines what a sound table is. Here it is only
   told whether all is sound, and what was counted; where anything is doubtful, the plain walk is asked what it is. Every
   page is hostile: it is read once into a buffer of its own, and no number in it is used before it is bounded. */

#include "native.h"

#include <unistd.h>

enum { BRANCH_PAGE = 1, LEAF_PAGE = 2, LARGE_PAGE = 4, BIG = 1, FLAGS = 2 };
enum { HEAD = 16, NODE_HEAD = 8, LONGEST_KEY = 511, DEEPEST = 32, LARGEST_PAGE = 1 << 15 };

typedef struct { const uint8_t *at; size_t size; } Key;

typedef struct {
    int file;
    size_t page;           /* bytes of a page */
    uint64_t last;         /* the file's last page */
    uint8_t *used;         /* a byte a page */
    unsigned levels;
    uint64_t counted[4];   /* branches, leaves, overflow pages, entries */
    uint8_t *data;         /* a page for each level */
    uint8_t *seen;         /* what begins at each byte of the page under way: 1 a node, 2 one that another one ends at */
} Walk;

static unsigned
two(const uint8_t *at)
{
    return at[0] | (unsigned)at[1] << 8;
}

static uint64_t
eight(const uint8_t *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof value); /* the machine is little-endian, as the store is */
    return value;
}

static int
take(Walk *walk, uint64_t number, uint64_t count)
{
    if (number < 2 || number > walk->last || count > walk->last - number + 1)
        return 0;
    for (uint64_t i = number; i < number + count; i++) {
        if (walk->used[i])
            return 0;
        walk->used[i] = 1;
    }
    return 1;
}

static Key
key_at(const uint8_t *data, unsigned index)
{
    const uint8_t *node = data + two(data + HEAD + 2 * index);
    return (Key){node + NODE_HEAD, two(node + 6)};
}

static int
below(Key one, Key other)
{
    int order = memcmp(one.at, other.at, one.size < other.size ? one.size : other.size);
    return order ? order < 0 : one.size < other.size;
}

/* Whether a page's nodes tile it, and their keys grow. */
static int
sound(Walk *walk, const uint8_t *data, int branch)
{
    unsigned lower = two(data + 12), upper = two(data + 14), count = (lower - HEAD) >> 1;
    if (lower & 1 || lower <= HEAD || lower > upper || upper > walk->page || (branch && count < 2))
        return 0;
    memset(walk->seen, 0, walk->page);
    for (unsigned i = 0; i < count; i++) {
        unsigned place = two(data + HEAD + 2 * i);
        if (place < upper || place > walk->page - NODE_HEAD || walk->seen[place]++)
            return 0;
    }
    int whole = 0;
    for (unsigned i = 0; i < count; i++) {
        unsigned place = two(data + HEAD + 2 * i), flags = two(data + place + 4), length = two(data + place + 6);
        size_t end = (size_t)place + NODE_HEAD + length;
        if (length > LONGEST_KEY || end > walk->page || (!branch && flags > FLAGS))
            return 0;
        if (!branch)
            end += flags == BIG ? 8 : (size_t)two(data + place) | (size_t)two(data + place + 2) << 16;
        end += end & 1;
        /* Each node but the last ends where another begins, and no two at the same place: so they tile the page. */
        if (end == walk->page ? whole++ : end > walk->page || walk->seen[end]++ != 1)
            return 0;
    }
    if (!whole || walk->seen[upper] != 1)
        return 0;
    Key before = key_at(data, 0);
    if (branch)
        before.size = 0; /* never looked at */
    for (unsigned i = 1; i < count; i++) {
        Key here = key_at(data, i);
        if (!below(before, here))
            return 0;
        before = here;
    }
    return 1;
}

static int
large_value(Walk *walk, const uint8_t *node)
{
    size_t size = two(node) | (size_t)two(node + 2) << 16;
    uint64_t number = eight(node + NODE_HEAD + two(node + 6)), needed = (HEAD - 1 + size) / walk->page + 1;
    uint8_t head[HEAD];
    if (number < 2 || number > walk->last || pread(walk->file, head, HEAD, (off_t)(number * walk->page)) != HEAD)
        return 0;
    uint64_t pages = two(head + 12) | (uint64_t)two(head + 14) << 16;
    if (eight(head) != number || two(head + 10) != LARGE_PAGE || pages < needed || !take(walk, number, pages))
        return 0;
    walk->counted[2] += pages;
    return 1;
}

/* Walk a page and all below it; `low` and `high` (`at` is NULL: none) are the range that its parents give it. */
static int
descend(Walk *walk, uint64_t number, unsigned depth, Key low, Key high)
{
    uint8_t *data = walk->data + walk->page * (depth - 1);
    if (!take(walk, number, 1) || pread(walk->file, data, walk->page, (off_t)(number * walk->page)) != (ssize_t)walk->page)
        return 0;
    int branch = depth < walk->levels;
    if (eight(data) != number || two(data + 10) != (branch ? BRANCH_PAGE : LEAF_PAGE) || !sound(walk, data, branch))
        return 0;
    unsigned count = (two(data + 12) - HEAD) >> 1;
    if (below(key_at(data, branch), low) || (high.at && !below(key_at(data, count - 1), high)))
        return 0;
    walk->counted[branch ? 0 : 1]++;
    if (!branch)
        walk->counted[3] += count;
    for (unsigned i = 0; i < count; i++) {
        const uint8_t *node = data + two(data + HEAD + 2 * i);
        if (branch) {
            uint64_t child = two(node) | (uint64_t)two(node + 2) << 16 | (uint64_t)two(node + 4) << 32;
            if (!descend(walk, child, depth + 1, i ? key_at(data, i) : low, i + 1 < count ? key_at(data, i + 1) : high))
                return 0;
        }
        else if (two(node + 4) == BIG && !large_value(walk, node))
            return 0;
    }
    return 1;
}

PyObject *
native_walk_table(PyObject *self, PyObject *arguments)
{
    Walk walk = {0};
    Py_buffer used;
    Py_ssize_t page;
    unsigned long long root;
    if (!PyArg_ParseTuple(arguments, "inw*KI", &walk.file, &page, &used, &root, &walk.levels))
        return NULL;
    PyObject *answer = NULL;
    if (page < 512 || page > LARGEST_PAGE || page & (page - 1) || used.len < 1 || walk.levels > DEEPEST) {
        PyErr_SetString(PyExc_ValueError, "give pages of 512 to 32768 bytes, a byte for each, and up to 32 levels");
        goto done;
    }
    walk.page = (size_t)page;
    walk.last = (uint64_t)used.len - 1;
    walk.used = used.buf;
    walk.data = PyMem_Malloc(walk.page * (walk.levels + 1));
    if (!walk.data) {
        PyErr_NoMemory();
        goto done;
    }
    walk.seen = walk.data + walk.page * walk.levels;
    int held = 1;
    Py_BEGIN_ALLOW_THREADS
    if (walk.levels)
        held = descend(&walk, root, 1, (Key){walk.data, 0}, (Key){NULL, 0});
    Py_END_ALLOW_THREADS
    const uint64_t *found = walk.counted;
    answer = held ? Py_BuildValue("KKKK", found[0], found[1], found[2], found[3]) : Py_NewRef(Py_None);
    PyMem_Free(walk.data);
done:
    PyBuffer_Release(&used);
    return answer;
}
