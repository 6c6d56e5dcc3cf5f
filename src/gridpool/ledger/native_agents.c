/* Loops of the members' own software, compiled: the check of a path in agents/access_paths.py, the tree of
   agents/telemetry_tree.py and the codes of agents/telemetry_session.py. The plain Python functions of the same names
   define what is computed here; every length and number from outside is bounded before it is used. */

#include "native.h"

/* ---- paths --------------------------------------------------------------------------------------------------- */

enum { HOLDS, BAD_SIBLINGS, NO_TABLE, NO_OTHER, OTHER_ELSEWHERE, OTHER_ROOT };
enum { LONGEST_PATH = 256, MOST_KEPT = 24 };

typedef struct { uint32_t place; Hash digest; const uint8_t *sibling; } Passed;

static uint32_t
place_of(const uint8_t *path, int depth)
{
    uint32_t first = (uint32_t)path[0] << 24 | path[1] << 16 | path[2] << 8 | path[3];
    return (uint32_t)1 << depth | first >> (32 - depth);
}

/* Keep a hash under a node's place; returns -1 with an error set. */
static int
keep(PyObject *nodes, uint32_t place, const uint8_t *digest)
{
    PyObject *number = PyLong_FromUnsignedLong(place);
    PyObject *data = PyBytes_FromStringAndSize((const char *)digest, HASH);
    int status = number && data ? PyDict_SetItem(nodes, number, data) : -1;
    Py_XDECREF(number);
    Py_XDECREF(data);
    return status;
}

/* Hash from a leaf up to the root or to a node that is kept, then keep what was passed; -1 with an error set. */
static int
lead(PyObject *nodes, int kept, const uint8_t *root, const uint8_t *path, int depth, const uint8_t *siblings,
     const uint8_t *leaf)
{
    Passed passed[MOST_KEPT];
    int count = 0;
    Hash both[2], digest;
    memcpy(digest, leaf, HASH);
    for (; depth > 0; depth--) {
        const uint8_t *sibling = siblings + HASH * (depth - 1);
        int right = path[(depth - 1) >> 3] >> (7 - ((depth - 1) & 7)) & 1;
        if (depth <= kept) {
            Passed *here = &passed[count++];
            here->place = place_of(path, depth);
            PyObject *number = PyLong_FromUnsignedLong(here->place);
            PyObject *known = number ? PyDict_GetItemWithError(nodes, number) : NULL;
            Py_XDECREF(number);
            if (known) {
                if (!PyBytes_Check(known) || PyBytes_GET_SIZE(known) != HASH
                    || memcmp(PyBytes_AS_STRING(known), digest, HASH))
                    return OTHER_ROOT;
                count--;
                break;
            }
            if (PyErr_Occurred())
                return -1;
            memcpy(here->digest, digest, HASH);
            here->sibling = sibling;
        }
        memcpy(both[right], digest, HASH);
        memcpy(both[!right], sibling, HASH);
        if (sha256(digest, 1, both[0], sizeof both) < 0)
            return -1;
    }
    if (!depth && memcmp(digest, root, HASH))
        return OTHER_ROOT;
    for (int i = 0; i < count; i++)
        if (keep(nodes, passed[i].place, passed[i].digest) < 0
            || keep(nodes, passed[i].place ^ 1, passed[i].sibling) < 0)
            return -1;
    return HOLDS;
}

PyObject *
native_check_path(PyObject *self, PyObject *const *given, Py_ssize_t count)
{
    if (!ready())
        return NULL;
    if (count != 8 || !PyDict_Check(given[0]) || !PyLong_Check(given[1]) || !PyBytes_Check(given[2])
        || PyBytes_GET_SIZE(given[2]) != HASH || !PyBytes_Check(given[3]) || !PyBytes_Check(given[4])) {
        PyErr_SetString(PyExc_TypeError, "give nodes, how deep they are kept, root (32 bytes), key, siblings, ...");
        return NULL;
    }
    for (int i = 5; i < 8; i++)
        if (given[i] != Py_None && !PyBytes_Check(given[i])) {
            PyErr_SetString(PyExc_TypeError, "value, other path and other value's hash are bytes or None");
            return NULL;
        }
    long kept = PyLong_AsLong(given[1]);
    if (kept == -1 && PyErr_Occurred())
        return NULL;
    if (kept < 0 || kept > MOST_KEPT) {
        PyErr_SetString(PyExc_ValueError, "nodes are kept down to a depth of 0 to 24");
        return NULL;
    }
    const uint8_t *key = (uint8_t *)PyBytes_AS_STRING(given[3]), *siblings = (uint8_t *)PyBytes_AS_STRING(given[4]);
    size_t size = PyBytes_GET_SIZE(given[3]), length = PyBytes_GET_SIZE(given[4]);
    PyObject *value = given[5], *other_path = given[6], *other_hash = given[7];
    Hash path, leaf, both[2];
    if (length % HASH || length / HASH > LONGEST_PATH)
        return PyLong_FromLong(BAD_SIBLINGS);
    int depth = (int)(length / HASH);
    if (!memchr(key, 0, size))
        return PyLong_FromLong(NO_TABLE);
    if (sha256(path, -1, key, size) < 0)
        return NULL;
    if (value != Py_None) {
        memcpy(both[0], path, HASH);
        if (sha256(both[1], -1, (uint8_t *)PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value)) < 0)
            return NULL;
    }
    else if (other_path != Py_None) {
        const uint8_t *there = (uint8_t *)PyBytes_AS_STRING(other_path);
        if (other_hash == Py_None || PyBytes_GET_SIZE(other_path) != HASH || PyBytes_GET_SIZE(other_hash) != HASH
            || !memcmp(there, path, HASH))
            return PyLong_FromLong(NO_OTHER);
        int whole = depth >> 3, rest = depth & 7;
        if (memcmp(there, path, whole) || (rest && (there[whole] ^ path[whole]) >> (8 - rest)))
            return PyLong_FromLong(OTHER_ELSEWHERE);
        memcpy(both[0], there, HASH);
        memcpy(both[1], PyBytes_AS_STRING(other_hash), HASH);
    }
    if (value == Py_None && other_path == Py_None)
        memcpy(leaf, empty, HASH);
    else if (sha256(leaf, 0, both[0], sizeof both) < 0)
        return NULL;
    int verdict = lead(given[0], (int)kept, (uint8_t *)PyBytes_AS_STRING(given[2]), path, depth, siblings, leaf);
    return verdict < 0 ? NULL : PyLong_FromLong(verdict);
}

/* ---- the tree over readings ---------------------------------------------------------------------------------- */

enum { ROW = 48, KEY_BITS = 320, DEEPEST = KEY_BITS + 1 };

PyObject *
native_merge_rows(PyObject *self, PyObject *arguments)
{
    const uint8_t *rows, *levels;
    Py_ssize_t size, levels_size;
    if (!ready() || !PyArg_ParseTuple(arguments, "y#y#", &rows, &size, &levels, &levels_size))
        return NULL;
    Py_ssize_t count = size / ROW;
    if (!count || size % ROW || levels_size != 2 * count) {
        PyErr_SetString(PyExc_ValueError, "give rows of 48 bytes, at least one, and two bytes of depth for each");
        return NULL;
    }
    Py_ssize_t inner = count - 1, closed = 0;
    PyObject *hashes = PyBytes_FromStringAndSize(NULL, HASH * inner);
    PyObject *depths = PyBytes_FromStringAndSize(NULL, 2 * inner);
    PyObject *lefts = PyBytes_FromStringAndSize(NULL, 8 * inner), *rights = PyBytes_FromStringAndSize(NULL, 8 * inner);
    PyObject *result = NULL;
    if (!hashes || !depths || !lefts || !rights)
        goto done;
    uint8_t *hash_out = (uint8_t *)PyBytes_AS_STRING(hashes), *depth_out = (uint8_t *)PyBytes_AS_STRING(depths);
    uint8_t *left_out = (uint8_t *)PyBytes_AS_STRING(lefts), *right_out = (uint8_t *)PyBytes_AS_STRING(rights);
    Hash stack[DEEPEST];
    int64_t nodes[DEEPEST];
    uint16_t open[DEEPEST];
    int held = 0, opened = 0;
    for (Py_ssize_t position = 0; position <= count; position++) {
        int level = -1;
        if (position < count) {
            uint16_t given;
            memcpy(&given, levels + 2 * position, 2);
            level = position ? given : 0;
        }
        while (opened && open[opened - 1] > level) {
            uint16_t depth = open[--opened];
            uint8_t both[2 + 2 * HASH] = {(uint8_t)(depth >> 8), (uint8_t)depth};
            held--;
            memcpy(both + 2, stack[held - 1], HASH);
            memcpy(both + 2 + HASH, stack[held], HASH);
            if (sha256(stack[held - 1], 1, both, sizeof both) < 0)
                goto done;
            memcpy(hash_out + HASH * closed, stack[held - 1], HASH);
            memcpy(depth_out + 2 * closed, &depth, 2);
            memcpy(left_out + 8 * closed, &nodes[held - 1], 8);
            memcpy(right_out + 8 * closed, &nodes[held], 8);
            nodes[held - 1] = closed++;
        }
        if (level < 0)
            break;
        if (position) {
            /* Depths grow down a way, which also bounds how many can be open. */
            if (level >= KEY_BITS || (opened && open[opened - 1] == level)) {
                PyErr_SetString(PyExc_ValueError, "rows of distinct keys in order have no such depths");
                goto done;
            }
            open[opened++] = (uint16_t)level;
        }
        if (sha256(stack[held], 0, rows + ROW * position, ROW) < 0)
            goto done;
        nodes[held++] = ~(int64_t)position;
    }
    result = Py_BuildValue("LOOOO", (long long)nodes[0], hashes, depths, lefts, rights);
done:
    Py_XDECREF(hashes);
    Py_XDECREF(depths);
    Py_XDECREF(lefts);
    Py_XDECREF(rights);
    return result;
}

/* ---- codes of readings --------------------------------------------------------------------------------------- */

enum { MAC = 16, CHAIN = 40 };
enum { CODE_HOLDS = 1, CODE_LATE, CODE_TOO_MANY_LOST, CODE_WRONG, CODE_NOT_OPENED };

static void
next_key(uint8_t *key)
{
    Hash next;
    blake2b(next, HASH, NULL, 0, key, HASH, NULL, (const uint8_t *)"gridpool-next\0\0");
    memcpy(key, next, HASH);
}

/* Take a reading of a session whose chain lies at `chain`: its key, then the number of the next reading (the largest
   number where the session was not opened). */
static int
take_code(uint8_t *chain, const uint8_t *row, uint64_t sequence, const uint8_t *mac, uint64_t most_lost)
{
    uint64_t next;
    uint8_t code[MAC], apart = 0;
    Hash key;
    memcpy(&next, chain + HASH, 8);
    if (next == UINT64_MAX)
        return CODE_NOT_OPENED;
    if (sequence < next)
        return CODE_LATE;
    if (sequence - next > most_lost)
        return CODE_TOO_MANY_LOST;
    memcpy(key, chain, HASH);
    for (; next < sequence; next++)
        next_key(key);
    blake2b(code, MAC, row, ROW, key, HASH, NULL, (const uint8_t *)"gridpool-mac\0\0\0");
    for (int i = 0; i < MAC; i++)
        apart |= code[i] ^ mac[i];
    if (apart)
        return CODE_WRONG;
    next_key(key);
    next++;
    memcpy(chain, key, HASH);
    memcpy(chain + HASH, &next, 8);
    return CODE_HOLDS;
}

PyObject *
native_check_codes(PyObject *self, PyObject *arguments)
{
    Py_buffer chains;
    const uint8_t *rows, *sessions, *sequences, *macs;
    Py_ssize_t rows_size, sessions_size, sequences_size, macs_size, most_lost;
    if (!ready()
        || !PyArg_ParseTuple(arguments, "w*y#y#y#y#n", &chains, &rows, &rows_size, &sessions, &sessions_size,
                             &sequences, &sequences_size, &macs, &macs_size, &most_lost))
        return NULL;
    PyObject *answer = NULL;
    Py_ssize_t count = rows_size / ROW;
    if (rows_size % ROW || chains.len % CHAIN || sessions_size != 4 * count || sequences_size != 8 * count
        || macs_size != MAC * count || most_lost < 0) {
        PyErr_SetString(PyExc_ValueError, "give chains of 40 bytes, and for each row a session, sequence and code");
        goto done;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        uint32_t session;
        memcpy(&session, sessions + 4 * i, 4);
        if (session >= chains.len / CHAIN) {
            PyErr_SetString(PyExc_ValueError, "there is no such session");
            goto done;
        }
    }
    answer = PyBytes_FromStringAndSize(NULL, count);
    if (!answer)
        goto done;
    for (Py_ssize_t i = 0; i < count; i++) {
        uint32_t session;
        uint64_t sequence;
        memcpy(&session, sessions + 4 * i, 4);
        memcpy(&sequence, sequences + 8 * i, 8);
        PyBytes_AS_STRING(answer)[i] = (char)take_code((uint8_t *)chains.buf + (size_t)CHAIN * session, rows + ROW * i,
                                                       sequence, macs + MAC * i, most_lost);
    }
done:
    PyBuffer_Release(&chains);
    return answer;
}
