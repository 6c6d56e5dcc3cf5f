/* The ledger's hot loops, compiled: `update` of tree.py, `list_root` of merkle.py and `verify_all` of keys.py; what
   agents need besides is in native_agents.c, the walk over the store's pages in native_pages.c.

   The Python functions of the same names define what is computed here, to the byte; tests hold the two against each
   other. Neither SHA-256 nor Ed25519 is ours: compiled.py hands over the functions of the library that Python's hashlib
   uses, and those of PyNaCl's libsodium. Every stored node may have been altered behind the tree's back, so nothing in
   it is believed unchecked. */

#include "native.h"

#include <stdlib.h>

enum { NOTHING, LEAF, INNER };
enum { SLOTS = 16, SPARSE = 4, HEAP = 1024, DEPTH = 64, LONGEST_NODE = 65535 };

/* ---- other people's functions ------------------------------------------------------------------------------------------------- */

/* The context that the library keeps between its calls has 112 bytes. */
typedef union { uint64_t aligned[32]; uint8_t bytes[256]; } Context;

static int (*sha_init)(void *);
static int (*sha_update)(void *, const void *, size_t);
static int (*sha_final)(uint8_t *, void *);
static int (*sha_whole)(uint8_t *, const uint8_t *, unsigned long long);
static int (*sign_open)(uint8_t *, unsigned long long *, const uint8_t *, unsigned long long, const uint8_t *);
static int (*sign_whole)(uint8_t *, unsigned long long *, const uint8_t *, unsigned long long, const uint8_t *);
Blake2b blake2b;

int
ready(void)
{
    if (!sign_open)
        PyErr_SetString(PyExc_RuntimeError, "call use first");
    return sign_open != NULL;
}

int
sha256(uint8_t *out, int tag, const uint8_t *data, size_t size)
{
    uint8_t first = (uint8_t)tag;
    if (sha_init) {
        Context context;
        sha_init(&context);
        if (tag >= 0)
            sha_update(&context, &first, 1);
        sha_update(&context, data, size);
        sha_final(out, &context);
        return 0;
    }
    if (tag < 0) {
        sha_whole(out, data, size);
        return 0;
    }
    uint8_t small[128], *joined = size < sizeof small ? small : PyMem_Malloc(size + 1);
    if (!joined) {
        PyErr_NoMemory();
        return -1;
    }
    joined[0] = first;
    memcpy(joined + 1, data, size);
    sha_whole(out, joined, size + 1);
    if (joined != small)
        PyMem_Free(joined);
    return 0;
}

/* ---- nodes --------------------------------------------------------------------------------------------------- */

typedef struct { const uint8_t *at; Py_ssize_t size; } Key;
typedef struct { int kind; Hash digest; Key key; } Slot;
/* `was` is the leaf that the tree must still hold: HELD says it holds one, VACANT none, UNASKED that nobody wants to know. */
enum { UNASKED, VACANT, HELD };
typedef struct { Hash path, leaf, was; Key key; int live, had; } Change;

/* A node being changed: the heap of its small binary tree (slot n at 16 + n), and the leaves' keys. */
typedef struct { unsigned leaves, inner; Hash heap[32]; Key keys[SLOTS]; } Node;

typedef struct {
    PyObject *read;    /* prefix -> stored node or None */
    PyObject *changed; /* what update returns: prefix -> node or None */
    PyObject *kept;    /* stored nodes whose keys are still pointed at */
    PyObject *altered; /* the key whose leaf is not what it was said to be, once one is found */
    uint8_t prefix[1 + DEPTH];
} Tree;

Hash empty;
static unsigned covered[32]; /* heap index -> mask of the slots below it */

static int
nibble_of(const uint8_t *path, int depth)
{
    return path[depth >> 1] >> (depth & 1 ? 0 : 4) & 15;
}

static int
damaged(const Tree *tree, int depth, const char *what)
{
    char place[DEPTH + 1];
    for (int i = 0; i < depth; i++)
        place[i] = "0123456789abcdef"[tree->prefix[1 + i] & 15];
    place[depth] = 0;
    PyErr_Format(PyExc_ValueError, "the tree %s at %s", what, depth ? place : "its root");
    return -1;
}

/* Unpack a stored node; returns 1 where the hashes above its slots were stored too, 0 where not, -1 on damage. */
static int
decode(Node *node, const uint8_t *data, Py_ssize_t size)
{
    if (size < 4)
        return -1;
    node->leaves = data[0] << 8 | data[1];
    node->inner = data[2] << 8 | data[3];
    if (node->leaves & node->inner)
        return -1;
    unsigned occupied = node->leaves | node->inner;
    int count = __builtin_popcount(occupied), whole = count > SPARSE;
    Py_ssize_t base = whole ? HEAP : 4 + HASH * count;
    Py_ssize_t start = 2 * __builtin_popcount(node->leaves);
    if (size < base + start)
        return -1;
    if (whole)
        memcpy(node->heap, data, HEAP);
    else
        for (int i = 1; i < 32; i++)
            memcpy(node->heap[i], empty, HASH);
    const uint8_t *slot = data + 4, *end_at = data + base;
    for (int n = 0; n < SLOTS; n++) {
        node->keys[n] = (Key){NULL, 0};
        if (!(occupied >> n & 1))
            continue;
        if (!whole) {
            memcpy(node->heap[16 + n], slot, HASH);
            slot += HASH;
        }
        if (node->leaves >> n & 1) {
            Py_ssize_t end = end_at[0] << 8 | end_at[1];
            end_at += 2;
            if (end < start || base + end > size)
                return -1;
            node->keys[n].at = data + base + start;
            node->keys[n].size = end - start;
            start = end;
        }
    }
    return base + start == size ? whole : -1;
}

/* Hash again what lies above the slots in `stale`; a lone leaf stands for its subtree and moves up as it is. */
static int
hash_up(Node *node, unsigned stale)
{
    for (int index = 15; index > 0; index--) {
        unsigned mask = covered[index], below = node->leaves & mask;
        if (!(stale & mask))
            continue;
        if (node->inner & mask || below & (below - 1)) {
            if (sha256(node->heap[index], 1, node->heap[2 * index], 2 * HASH) < 0)
                return -1;
        }
        else
            memcpy(node->heap[index],
                   below ? node->heap[2 * index + !(below & covered[2 * index])] : empty, HASH);
    }
    return 0;
}

static PyObject *
encode(const Node *node)
{
    unsigned occupied = node->leaves | node->inner;
    int count = __builtin_popcount(occupied), whole = count > SPARSE;
    Py_ssize_t base = whole ? HEAP : 4 + HASH * count, end = 2 * __builtin_popcount(node->leaves);
    Py_ssize_t size = end;
    for (int n = 0; n < SLOTS; n++)
        if (node->leaves >> n & 1)
            size += node->keys[n].size;
    if (size > LONGEST_NODE) {
        PyErr_SetString(PyExc_OverflowError, "the keys of a node take more than 65535 bytes");
        return NULL;
    }
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, base + size);
    if (!bytes)
        return NULL;
    uint8_t *data = (uint8_t *)PyBytes_AS_STRING(bytes), *slot = data + 4, *end_at = data + base;
    if (whole) {
        memcpy(data, empty, HASH);
        memcpy(data + HASH, node->heap[1], HEAP - HASH);
    }
    data[0] = node->leaves >> 8;
    data[1] = node->leaves & 255;
    data[2] = node->inner >> 8;
    data[3] = node->inner & 255;
    for (int n = 0; n < SLOTS; n++) {
        if (!(occupied >> n & 1))
            continue;
        if (!whole) {
            memcpy(slot, node->heap[16 + n], HASH);
            slot += HASH;
        }
        if (node->leaves >> n & 1) {
            memcpy(data + base + end, node->keys[n].at, node->keys[n].size);
            end += node->keys[n].size;
            *end_at++ = end >> 8;
            *end_at++ = end & 255;
        }
    }
    return bytes;
}

/* ---- update -------------------------------------------------------------------------------------------------- */

static int
same_key(Key a, Key b)
{
    return a.size == b.size && !memcmp(a.at, b.at, a.size);
}

static int
by_path(const void *a, const void *b)
{
    return memcmp(((const Change *)a)->path, ((const Change *)b)->path, HASH);
}

static int
note(Tree *tree, int depth, PyObject *data)
{
    PyObject *prefix = PyBytes_FromStringAndSize((const char *)tree->prefix, 1 + depth);
    int status = prefix && data ? PyDict_SetItem(tree->changed, prefix, data) : -1;
    Py_XDECREF(prefix);
    return status;
}

static int update_node(Tree *, int depth, int fresh, const Change *, size_t count, Slot *);

/* What a slot holds after sorted changes that all fall under it; `depth` is the depth of the node below the slot. */
static int
change_slot(Tree *tree, int depth, Slot *slot, const Change *work, size_t count)
{
    if (slot->kind == INNER)
        return update_node(tree, depth, 0, work, count, slot);
    for (size_t i = 0; i < count; i++) {
        int held = slot->kind == LEAF && same_key(slot->key, work[i].key);
        if (work[i].had != UNASKED
            && (held != (work[i].had == HELD) || (held && memcmp(slot->digest, work[i].was, HASH)))) {
            tree->altered = PyBytes_FromStringAndSize((const char *)work[i].key.at, work[i].key.size);
            return -1;
        }
    }
    if (count == 1) {
        int own = slot->kind == NOTHING || same_key(slot->key, work->key);
        if (!work->live) {
            if (own)
                slot->kind = NOTHING;
            return 0;
        }
        if (own) {
            slot->kind = LEAF;
            memcpy(slot->digest, work->leaf, HASH);
            slot->key = work->key;
            return 0;
        }
    }
    Change *live = PyMem_Malloc((count + 1) * sizeof *live);
    if (!live) {
        PyErr_NoMemory();
        return -1;
    }
    int told = slot->kind == NOTHING, status = 0;
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        if (!told && same_key(slot->key, work[i].key))
            told = 1;
        if (work[i].live) {
            live[kept] = work[i];
            live[kept++].had = UNASKED; /* it was looked at here; the nodes below are new */
        }
    }
    if (!told) {
        Change *old = &live[kept++];
        memcpy(old->leaf, slot->digest, HASH);
        old->key = slot->key;
        old->live = 1;
        old->had = UNASKED;
        status = sha256(old->path, -1, slot->key.at, slot->key.size);
        qsort(live, kept, sizeof *live, by_path);
    }
    if (status == 0) {
        slot->kind = kept ? LEAF : NOTHING;
        if (kept > 1)
            status = update_node(tree, depth, 1, live, kept, slot);
        else if (kept) {
            memcpy(slot->digest, live->leaf, HASH);
            slot->key = live->key;
        }
    }
    PyMem_Free(live);
    return status;
}

/* Apply sorted changes below the prefix of `depth` nibbles; `out` becomes what the node above must hold. */
static int
update_node(Tree *tree, int depth, int fresh, const Change *work, size_t count, Slot *out)
{
    Node node;
    PyObject *stored = NULL;
    int whole = 0, status = -1;
    if (depth >= DEPTH)
        return damaged(tree, DEPTH, "is deeper than a path is long");
    if (!fresh) {
        PyObject *prefix = PyBytes_FromStringAndSize((const char *)tree->prefix, 1 + depth);
        stored = prefix ? PyObject_CallOneArg(tree->read, prefix) : NULL;
        Py_XDECREF(prefix);
        if (!stored)
            return -1;
        if (stored == Py_None) {
            Py_CLEAR(stored);
            if (depth)
                return damaged(tree, depth, "lacks the node");
        }
    }
    if (stored) {
        if (!PyBytes_Check(stored)
            || (whole = decode(&node, (uint8_t *)PyBytes_AS_STRING(stored), PyBytes_GET_SIZE(stored))) < 0) {
            damaged(tree, depth, "holds a damaged node");
            goto done;
        }
    }
    else {
        node.leaves = node.inner = 0;
        memset(node.keys, 0, sizeof node.keys);
        for (int i = 1; i < 32; i++)
            memcpy(node.heap[i], empty, HASH);
    }
    unsigned stale = whole ? 0 : 0xFFFF;
    for (size_t first = 0, at = 0; first < count; first = at) {
        int n = nibble_of(work[first].path, depth);
        while (at < count && nibble_of(work[at].path, depth) == n)
            at++;
        unsigned bit = 1u << n;
        Slot slot = {node.inner & bit ? INNER : node.leaves & bit ? LEAF : NOTHING, {0}, node.keys[n]};
        memcpy(slot.digest, node.heap[16 + n], HASH);
        tree->prefix[1 + depth] = n;
        if (change_slot(tree, depth + 1, &slot, work + first, at - first) < 0)
            goto done;
        stale |= bit;
        node.leaves = slot.kind == LEAF ? node.leaves | bit : node.leaves & ~bit;
        node.inner = slot.kind == INNER ? node.inner | bit : node.inner & ~bit;
        node.keys[n] = slot.key;
        memcpy(node.heap[16 + n], slot.kind == NOTHING ? empty : slot.digest, HASH);
    }
    unsigned occupied = node.leaves | node.inner;
    if (!node.inner && !(occupied & (occupied - 1)) && (depth || !occupied)) {
        out->kind = occupied ? LEAF : NOTHING;
        if (occupied) {
            int n = __builtin_ctz(occupied);
            memcpy(out->digest, node.heap[16 + n], HASH);
            out->key = node.keys[n];
        }
        else
            memcpy(out->digest, empty, HASH);
        status = 0;
        if (stored && (note(tree, depth, Py_None) < 0 || PyList_Append(tree->kept, stored) < 0))
            status = -1;
        goto done;
    }
    if (hash_up(&node, stale) < 0)
        goto done;
    out->kind = INNER;
    memcpy(out->digest, node.heap[1], HASH);
    PyObject *data = encode(&node);
    status = note(tree, depth, data);
    Py_XDECREF(data);
done:
    Py_XDECREF(stored);
    return status;
}

static int
hash_leaf(uint8_t *out, const uint8_t *path, PyObject *value)
{
    uint8_t both[2 * HASH];
    if (value != Py_None && !PyBytes_Check(value)) {
        PyErr_SetString(PyExc_TypeError, "what keys hold is bytes or None");
        return -1;
    }
    if (value == Py_None)
        return 0;
    memcpy(both, path, HASH);
    return sha256(both + HASH, -1, (uint8_t *)PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value)) < 0
        ? -1 : sha256(out, 0, both, sizeof both);
}

static Change *
sorted_changes(PyObject *changes, PyObject *before)
{
    Change *work = PyMem_Malloc(PyDict_GET_SIZE(changes) * sizeof *work + 1), *next = work;
    if (!work)
        return (Change *)PyErr_NoMemory();
    PyObject *key, *value;
    for (Py_ssize_t at = 0; PyDict_Next(changes, &at, &key, &value); next++) {
        if (!PyBytes_Check(key)) {
            PyErr_SetString(PyExc_TypeError, "keys are bytes");
            goto failed;
        }
        next->key.at = (const uint8_t *)PyBytes_AS_STRING(key);
        next->key.size = PyBytes_GET_SIZE(key);
        next->live = value != Py_None;
        next->had = UNASKED;
        if (sha256(next->path, -1, next->key.at, next->key.size) < 0 || hash_leaf(next->leaf, next->path, value) < 0)
            goto failed;
        if (before == Py_None)
            continue;
        PyObject *old = PyDict_GetItemWithError(before, key);
        if (!old) {
            if (!PyErr_Occurred())
                PyErr_SetObject(PyExc_KeyError, key);
            goto failed;
        }
        next->had = old == Py_None ? VACANT : HELD;
        if (hash_leaf(next->was, next->path, old) < 0)
            goto failed;
    }
    qsort(work, next - work, sizeof *work, by_path);
    return work;
failed:
    PyMem_Free(work);
    return NULL;
}

static PyObject *
native_update(PyObject *self, PyObject *arguments)
{
    PyObject *read, *changes, *before, *result = NULL;
    if (!PyArg_ParseTuple(arguments, "OO!O", &read, &PyDict_Type, &changes, &before))
        return NULL;
    if (before != Py_None && !PyDict_Check(before)) {
        PyErr_SetString(PyExc_TypeError, "what was there before is a dictionary or None");
        return NULL;
    }
    if (!ready())
        return NULL;
    size_t count = PyDict_GET_SIZE(changes);
    if (!count) {
        PyErr_SetString(PyExc_ValueError, "no changes");
        return NULL;
    }
    Tree tree = {read, PyDict_New(), PyList_New(0), NULL, {'/'}};
    /* `read` may be anything, so the dictionary whose keys are pointed at is our own. */
    PyObject *own = PyDict_Copy(changes);
    Change *work = own && tree.changed && tree.kept ? sorted_changes(own, before) : NULL;
    Slot root;
    if (work && update_node(&tree, 0, 0, work, count, &root) == 0)
        result = Py_BuildValue("y#O", root.digest, (Py_ssize_t)HASH, tree.changed);
    else if (tree.altered && !PyErr_Occurred()) {
        result = tree.altered;
        tree.altered = NULL;
    }
    Py_XDECREF(tree.altered);
    PyMem_Free(work);
    Py_XDECREF(own);
    Py_XDECREF(tree.changed);
    Py_XDECREF(tree.kept);
    return result;
}

/* ---- lists --------------------------------------------------------------------------------------------------- */

static PyObject *
native_list_root(PyObject *self, PyObject *items)
{
    if (!ready())
        return NULL;
    PyObject *list = PySequence_Fast(items, "items are a sequence of bytes"), *result = NULL;
    if (!list)
        return NULL;
    Py_ssize_t count = PySequence_Fast_GET_SIZE(list);
    Hash *level = PyMem_Malloc((count + 1) * sizeof *level);
    if (!level) {
        PyErr_NoMemory();
        goto done;
    }
    if (!count && sha256(level[0], -1, level[0], 0) < 0)
        goto done;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *item = PySequence_Fast_GET_ITEM(list, i);
        if (!PyBytes_Check(item)) {
            PyErr_SetString(PyExc_TypeError, "items are a sequence of bytes");
            goto done;
        }
        if (sha256(level[i], 0, (uint8_t *)PyBytes_AS_STRING(item), PyBytes_GET_SIZE(item)) < 0)
            goto done;
    }
    for (; count > 1; count = (count + 1) / 2) {
        for (Py_ssize_t i = 0; i + 1 < count; i += 2)
            if (sha256(level[i / 2], 1, level[i], 2 * HASH) < 0)
                goto done;
        if (count & 1)
            memmove(level[count / 2], level[count - 1], HASH);
    }
    result = PyBytes_FromStringAndSize((const char *)level[0], HASH);
done:
    PyMem_Free(level);
    Py_DECREF(list);
    return result;
}

/* ---- signatures ---------------------------------------------------------------------------------------------- */

enum { PUBLIC = 32, SECRET = 64, SIGNATURE = 64 };

static PyObject *
native_sign(PyObject *self, PyObject *const *given, Py_ssize_t count)
{
    if (!ready())
        return NULL;
    if (count != 2 || !PyBytes_Check(given[0]) || !PyBytes_Check(given[1]) || PyBytes_GET_SIZE(given[1]) != SECRET) {
        PyErr_SetString(PyExc_TypeError, "give a message and a secret key of 64 bytes");
        return NULL;
    }
    size_t size = PyBytes_GET_SIZE(given[0]);
    uint8_t small[1024], *joined = size <= sizeof small - SIGNATURE ? small : PyMem_Malloc(SIGNATURE + size);
    if (!joined)
        return PyErr_NoMemory();
    unsigned long long signed_size;
    int failed;
    Py_BEGIN_ALLOW_THREADS
    failed = sign_whole(joined, &signed_size, (uint8_t *)PyBytes_AS_STRING(given[0]), size,
                        (uint8_t *)PyBytes_AS_STRING(given[1]));
    Py_END_ALLOW_THREADS
    PyObject *signature = failed ? NULL : PyBytes_FromStringAndSize((const char *)joined, SIGNATURE);
    if (failed)
        PyErr_SetString(PyExc_RuntimeError, "the message could not be signed");
    if (joined != small)
        PyMem_Free(joined);
    return signature;
}

static PyObject *
native_verify_all(PyObject *self, PyObject *messages)
{
    if (!ready())
        return NULL;
    PyObject *list = PySequence_Tuple(messages), *answer = NULL; /* ours alone: the loop runs without the interpreter */
    if (!list)
        return NULL;
    Py_ssize_t count = PyTuple_GET_SIZE(list), longest = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *one = PyTuple_GET_ITEM(list, i);
        if (!PyTuple_Check(one) || PyTuple_GET_SIZE(one) != 3 || !PyBytes_Check(PyTuple_GET_ITEM(one, 0))
            || !PyBytes_Check(PyTuple_GET_ITEM(one, 1)) || !PyBytes_Check(PyTuple_GET_ITEM(one, 2))) {
            PyErr_SetString(PyExc_TypeError, "messages are tuples (public key, signature, message) of bytes");
            goto done;
        }
        if (PyBytes_GET_SIZE(PyTuple_GET_ITEM(one, 2)) > longest)
            longest = PyBytes_GET_SIZE(PyTuple_GET_ITEM(one, 2));
    }
    uint8_t *joined = PyMem_RawMalloc(SIGNATURE + longest);
    answer = joined ? PyBytes_FromStringAndSize(NULL, count) : PyErr_NoMemory();
    if (answer) {
        uint8_t *held = (uint8_t *)PyBytes_AS_STRING(answer);
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t i = 0; i < count; i++) {
            PyObject *one = PyTuple_GET_ITEM(list, i), *public = PyTuple_GET_ITEM(one, 0);
            PyObject *signature = PyTuple_GET_ITEM(one, 1), *message = PyTuple_GET_ITEM(one, 2);
            size_t size = PyBytes_GET_SIZE(message);
            held[i] = 0;
            if (PyBytes_GET_SIZE(public) != PUBLIC || PyBytes_GET_SIZE(signature) != SIGNATURE)
                continue;
            memcpy(joined, PyBytes_AS_STRING(signature), SIGNATURE);
            memcpy(joined + SIGNATURE, PyBytes_AS_STRING(message), size);
            unsigned long long opened;
            held[i] = sign_open(NULL, &opened, joined, SIGNATURE + size, (uint8_t *)PyBytes_AS_STRING(public)) == 0;
        }
        Py_END_ALLOW_THREADS
    }
    PyMem_RawFree(joined);
done:
    Py_DECREF(list);
    return answer;
}

/* ---- module -------------------------------------------------------------------------------------------------- */

static PyObject *
native_use(PyObject *self, PyObject *arguments)
{
    unsigned long long init, update, final, whole, open, sign, blake;
    if (!PyArg_ParseTuple(arguments, "KKKKKKK", &init, &update, &final, &whole, &open, &sign, &blake))
        return NULL;
    if (!open || !sign || !blake || (!whole && !(init && update && final))) {
        PyErr_SetString(PyExc_ValueError, "give the addresses of a whole hash or all three of its parts, and the others");
        return NULL;
    }
    sha_init = (int (*)(void *))(uintptr_t)init;
    sha_update = (int (*)(void *, const void *, size_t))(uintptr_t)update;
    sha_final = (int (*)(uint8_t *, void *))(uintptr_t)final;
    sha_whole = (int (*)(uint8_t *, const uint8_t *, unsigned long long))(uintptr_t)whole;
    sign_open = (int (*)(uint8_t *, unsigned long long *, const uint8_t *, unsigned long long, const uint8_t *))(
        uintptr_t)open;
    sign_whole = (int (*)(uint8_t *, unsigned long long *, const uint8_t *, unsigned long long, const uint8_t *))(
        uintptr_t)sign;
    blake2b = (Blake2b)(uintptr_t)blake;
    const uint8_t two = 2;
    if (sha256(empty, -1, &two, 1) < 0)
        return NULL;
    for (int index = 31; index > 0; index--)
        covered[index] = index >= 16 ? 1u << (index - 16) : covered[2 * index] | covered[2 * index + 1];
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"use", native_use, METH_VARARGS,
     "Take the addresses of SHA-256's init, update and final, or of one for a whole message (0: none), of "
     "crypto_sign_open, crypto_sign and crypto_generichash_blake2b_salt_personal."},
    {"update", native_update, METH_VARARGS, "See gridpool.ledger.tree.update; the changes must not be empty."},
    {"list_root", native_list_root, METH_O, "See gridpool.ledger.merkle.list_root."},
    {"walk_table", native_walk_table, METH_VARARGS, "See gridpool.ledger.pages.check_pages; runs beside other threads."},
    {"check_path", (PyCFunction)(void (*)(void))native_check_path, METH_FASTCALL,
     "See gridpool.agents.access_paths.ProvedTree.plain_check; returns the number of the fault, 0 for none."},
    {"merge_rows", native_merge_rows, METH_VARARGS, "See gridpool.agents.telemetry_tree.plain_merge_rows."},
    {"check_codes", native_check_codes, METH_VARARGS, "See gridpool.agents.telemetry_session.plain_check_codes."},
    {"sign", (PyCFunction)(void (*)(void))native_sign, METH_FASTCALL,
     "See gridpool.ledger.keys.KeyPair.sign; runs beside other threads."},
    {"verify_all", native_verify_all, METH_O, "See gridpool.ledger.keys.verify_all; runs beside other threads."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "native",
    .m_doc = "The ledger's hashing over many small nodes, compiled.",
    .m_size = -1,
    .m_methods = methods,
};

PyMODINIT_FUNC
PyInit_native(void)
{
    return PyModule_Create(&module);
}
