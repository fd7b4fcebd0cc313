/* Something that takes a compiler. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

static PyObject *length(PyObject *self, PyObject *text) { return PyLong_FromSsize_t(PyUnicode_GetLength(text)); }

static PyMethodDef methods[] = {{"length", length, METH_O, "Length of a text."}, {NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_length", NULL, -1, methods};

PyMODINIT_FUNC PyInit__length(void) { return PyModule_Create(&module); }
