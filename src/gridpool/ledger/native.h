/* What the parts of the compiled module share. */

#ifndef GRIDPOOL_NATIVE_H
#define GRIDPOOL_NATIVE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#pragma GCC visibility push(hidden)

enum { HASH = 32 };

typedef uint8_t Hash[HASH];

/* libsodium's BLAKE2b: out, its size, message, its size, key, its size, salt, person. */
typedef int (*Blake2b)(uint8_t *, size_t, const uint8_t *, unsigned long long, const uint8_t *, size_t, const uint8_t *,
                       const uint8_t *);

extern Blake2b blake2b;
extern Hash empty; /* the hash of a place that holds nothing */

/* Tell whether `use` was called; sets an error where not. */
int ready(void);

/* Hash `size` bytes, behind the byte `tag` unless it is negative; up to 127 bytes it cannot fail. */
int sha256(uint8_t *out, int tag, const uint8_t *data, size_t size);

PyObject *native_walk_table(PyObject *self, PyObject *arguments);
PyObject *native_check_path(PyObject *self, PyObject *const *given, Py_ssize_t count);
PyObject *native_merge_rows(PyObject *self, PyObject *arguments);
PyObject *native_check_codes(PyObject *self, PyObject *arguments);

#pragma GCC visibility pop

#endif
