/* The witness: which test code ran and returned, and what was done to the interpreter.
 *
 * Python code of the same process can neither call what counts here nor undo what was counted:
 * an audit hook of C cannot be removed, and a callback of sys.monitoring counts only while the
 * interpreter itself is at that place of that code. Records are numbered and authenticated with
 * a key that changes with each of them and forgets the one before, so that whoever gets hold of
 * the memory can still not replace what was recorded until then.
 *
 * start(fd, skip, root) -> (begin, end) is all there is; nothing else stays reachable.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <fcntl.h>
#include <limits.h>
#include <opcode.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sha256.h"

#if PY_VERSION_HEX < 0x030c0000
#error "sys.monitoring came with Python 3.12"
#endif
#ifdef Py_GIL_DISABLED
#error "everything here relies on the global lock"
#endif

#define PLACES 8        /* callers that are told of one test */
#define MOST 1000       /* different acts that are told of one process */
#define KNOWN 2048      /* room to know them by */
#if PY_VERSION_HEX < 0x030d0000
#define Py_IsFinalizing _Py_IsFinalizing
#endif

#define FULL (1 << 20)  /* bytes of records that wait to be fetched */

typedef struct {
    PyObject *code, *globals, *ops; /* globals: NULL where any will do */
    char hash[33];
    unsigned starts, returns, foreign;
} slot;

static struct {
    int taken, on, busy, tool;
    PyInterpreterState *interpreter;
    uint8_t key[32];
    uint64_t sequence;
    char *out;
    size_t used, room;
    char **skip; /* folders of the standard library */
    size_t skips;
    char *root; /* the folder with the code under test */
    size_t root_length;
    dev_t proc;
    PyObject *set_local, *mask, *probe;
    unsigned probe_starts, probe_returns;
    long number;
    unsigned begins;
    slot inner, outer;
    char via[PLACES * 512];
    uint64_t known[KNOWN];
    unsigned acts;
} S;

/* A child process that a test forks has nothing to tell. */
static void in_child(void) { S.on = 0; }

static int here(void) { return S.on && PyInterpreterState_Get() == S.interpreter; }

/* ------------------------------------------------ records */

static void wipe(void *data, size_t size)
{
    volatile uint8_t *p = data;
    while (size--)
        *p++ = 0;
}

/* "sequence text tag|", and on to the next key. */
static void record(const char *text)
{
    size_t length = strlen(text);
    size_t need = S.used + length + 64;
    if (need > S.room) {
        char *more = realloc(S.out, need * 2);
        if (more == NULL)
            return; /* a gap in the numbers, which is seen */
        S.out = more;
        S.room = need * 2;
    }
    char *line = S.out + S.used;
    int head = snprintf(line, 24, "%llu ", (unsigned long long)S.sequence);
    memcpy(line + head, text, length);
    length += head;
    uint8_t tag[32];
    hmac_sha256(S.key, line, length, tag);
    line[length++] = ' ';
    for (int i = 0; i < 16; i++)
        length += snprintf(line + length, 3, "%02x", tag[i]);
    line[length++] = '|';
    S.used += length;
    S.sequence++;
    hmac_sha256(S.key, "next", 4, tag);
    memcpy(S.key, tag, 32);
    wipe(tag, 32);
}

/* Append text to a field, as letters that need no quotes anywhere. */
static void put(char *field, size_t size, const char *text)
{
    size_t at = strlen(field);
    for (const uint8_t *p = (const uint8_t *)text; *p && at + 4 < size; p++) {
        if ((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') ||
            strchr("_./-+<>=[]", *p) != NULL)
            field[at++] = (char)*p;
        else
            at += (size_t)snprintf(field + at, 4, "%%%02X", *p);
    }
    field[at] = 0;
}

static void put_place(char *field, size_t size, const char *file, int line)
{
    char number[16];
    put(field, size - 16, file);
    snprintf(number, sizeof number, ":%d", line);
    strcat(field, number);
}

/* ------------------------------------------------ frames */

static const char *utf8(PyObject *text)
{
    if (text == NULL || !PyUnicode_Check(text))
        return "";
    const char *found = PyUnicode_AsUTF8(text);
    if (found == NULL) {
        PyErr_Clear(); /* a lone surrogate */
        return "%";
    }
    return found;
}

static int below(const char *path, const char *folder, size_t length)
{
    return strncmp(path, folder, length) == 0 && path[length] == '/';
}

static int standard(const char *file)
{
    for (size_t i = 0; i < S.skips; i++) {
        size_t length = strlen(S.skip[i]);
        if (below(file, S.skip[i], length)) {
            const char *rest = file + length + 1;
            return strncmp(rest, "site-packages/", 14) != 0 &&
                   strncmp(rest, "dist-packages/", 14) != 0;
        }
    }
    return 0;
}

static int ours(const char *file) { return below(file, S.root, S.root_length); }

enum { ELSEWHERE, UNDER_TEST, NOBODY };

/* Whose act it is: that of the innermost frame outside of the standard library.
 *
 * direct: a frame of the standard library in between makes it somebody else's.
 * imported: set where the body of a module of the standard library lies in between: it is only
 * being imported.
 */
static int whose(char *where, size_t size, int direct, int *imported)
{
    PyFrameObject *frame = PyEval_GetFrame();
    int found = NOBODY;
    Py_XINCREF(frame);
    while (frame != NULL && found == NOBODY) {
        PyCodeObject *code = PyFrame_GetCode(frame);
        const char *file = utf8(code->co_filename);
        if (strncmp(file, "<frozen ", 8) == 0 || standard(file)) {
            if (file[0] != '<' && strcmp(utf8(code->co_name), "<module>") == 0)
                *imported = 1;
            if (direct)
                found = ELSEWHERE;
        } else if (file[0] != '<') { /* else made of a text: whoever called it */
            found = ours(file) ? UNDER_TEST : ELSEWHERE;
            if (found == UNDER_TEST)
                put_place(where, size, file, PyFrame_GetLineNumber(frame));
        }
        Py_DECREF(code);
        PyFrameObject *back = PyFrame_GetBack(frame);
        Py_DECREF(frame);
        frame = back;
    }
    Py_XDECREF(frame);
    return found;
}

/* The files under test, other than the test's own, that are on the stack. */
static void callers(PyObject *own)
{
    PyFrameObject *frame = PyEval_GetFrame();
    PyObject *last = own;
    int places = 0;
    S.via[0] = 0;
    Py_XINCREF(frame);
    while (frame != NULL) {
        PyCodeObject *code = PyFrame_GetCode(frame);
        const char *file = utf8(code->co_filename);
        if (places < PLACES && ours(file) && code->co_filename != last &&
            PyUnicode_Compare(code->co_filename, own) != 0) {
            last = code->co_filename;
            if (places++)
                strcat(S.via, ",");
            char place[480] = "";
            put_place(place, sizeof place, file, PyFrame_GetLineNumber(frame));
            strcat(S.via, place);
        }
        Py_DECREF(code);
        PyFrameObject *back = PyFrame_GetBack(frame);
        Py_DECREF(frame);
        frame = back;
    }
}

/* ------------------------------------------------ what code is */

static int add_object(sha256 *h, PyObject *value);

static void add_sized(sha256 *h, char kind, const void *data, size_t size)
{
    uint64_t length = size;
    sha256_add(h, &kind, 1);
    sha256_add(h, &length, sizeof length);
    sha256_add(h, data, size);
}

static int add_code(sha256 *h, PyCodeObject *code)
{
    int numbers[5] = {code->co_argcount, code->co_posonlyargcount, code->co_kwonlyargcount,
                      code->co_flags, code->co_firstlineno};
    add_sized(h, 'C', numbers, sizeof numbers);
    /* Each makes a new object, or is the code's own: what the interpreter will execute. */
    PyObject *parts[] = {PyCode_GetCode(code), PyCode_GetVarnames(code), PyCode_GetCellvars(code),
                         PyCode_GetFreevars(code), Py_NewRef(code->co_consts),
                         Py_NewRef(code->co_names), Py_NewRef(code->co_exceptiontable),
                         Py_NewRef(code->co_linetable), Py_NewRef(code->co_qualname)};
    int result = 0;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (result == 0)
            result = parts[i] == NULL ? -1 : add_object(h, parts[i]);
        Py_XDECREF(parts[i]);
    }
    return result;
}

/* The same for equal constants in every process: no addresses, no order of sets. */
static int add_object(sha256 *h, PyObject *value)
{
    if (PyBytes_CheckExact(value)) {
        add_sized(h, 'b', PyBytes_AS_STRING(value), (size_t)PyBytes_GET_SIZE(value));
    } else if (PyUnicode_CheckExact(value)) {
        PyObject *text = PyUnicode_AsEncodedString(value, "utf-8", "surrogatepass");
        if (text == NULL)
            return -1;
        add_sized(h, 's', PyBytes_AS_STRING(text), (size_t)PyBytes_GET_SIZE(text));
        Py_DECREF(text);
    } else if (PyLong_CheckExact(value)) {
        PyObject *text = PyNumber_ToBase(value, 16);
        if (text == NULL)
            return -1;
        add_sized(h, 'i', utf8(text), strlen(utf8(text)));
        Py_DECREF(text);
    } else if (PyFloat_CheckExact(value)) {
        double number = PyFloat_AS_DOUBLE(value);
        add_sized(h, 'f', &number, sizeof number);
    } else if (PyComplex_CheckExact(value)) {
        Py_complex number = PyComplex_AsCComplex(value);
        add_sized(h, 'c', &number, sizeof number);
    } else if (PyTuple_CheckExact(value)) {
        Py_ssize_t size = PyTuple_GET_SIZE(value);
        add_sized(h, 't', &size, sizeof size);
        for (Py_ssize_t i = 0; i < size; i++)
            if (add_object(h, PyTuple_GET_ITEM(value, i)) < 0)
                return -1;
    } else if (PyFrozenSet_CheckExact(value)) {
        uint8_t sum[32] = {0}, one[32];
        PyObject *member, *iterator = PyObject_GetIter(value);
        if (iterator == NULL)
            return -1;
        while ((member = PyIter_Next(iterator)) != NULL) {
            sha256 inner;
            sha256_start(&inner);
            int result = add_object(&inner, member);
            Py_DECREF(member);
            if (result < 0) {
                Py_DECREF(iterator);
                return -1;
            }
            sha256_end(&inner, one);
            for (int i = 0; i < 32; i++)
                sum[i] ^= one[i];
        }
        Py_DECREF(iterator);
        add_sized(h, 'z', sum, sizeof sum);
    } else if (PyCode_Check(value)) {
        return add_code(h, (PyCodeObject *)value);
    } else if (PySlice_Check(value)) {
        PySliceObject *slice = (PySliceObject *)value;
        add_sized(h, 'l', NULL, 0);
        if (add_object(h, slice->start) < 0 || add_object(h, slice->stop) < 0)
            return -1;
        return add_object(h, slice->step);
    } else {
        /* None, True, Ellipsis: one of each. */
        const char *name = Py_TYPE(value)->tp_name;
        add_sized(h, value == Py_True ? 'T' : 'o', name, strlen(name));
    }
    return 0;
}

/* Have the slot watch this code. */
static int look_at(slot *s, PyObject *code, PyObject *globals)
{
    s->starts = s->returns = s->foreign = 0;
    Py_XSETREF(s->globals, Py_XNewRef(globals));
    if (s->code == code)
        return 0;
    Py_CLEAR(s->code);
    Py_CLEAR(s->ops);
    strcpy(s->hash, "-");
    if (code == NULL)
        return 0;
    s->ops = PyCode_GetCode((PyCodeObject *)code);
    sha256 h;
    uint8_t digest[32];
    sha256_start(&h);
    if (s->ops == NULL || add_code(&h, (PyCodeObject *)code) < 0)
        return -1;
    sha256_end(&h, digest);
    for (int i = 0; i < 16; i++)
        snprintf(s->hash + 2 * i, 3, "%02x", digest[i]);
    s->code = Py_NewRef(code);
    return 0;
}

static void switch_on(PyObject *code)
{
    PyObject *done =
        PyObject_CallFunction(S.set_local, "iOO", S.tool, code, S.mask);
    if (done == NULL)
        PyErr_Clear(); /* not in use any more: the probe will tell */
    Py_XDECREF(done);
}

/* ------------------------------------------------ callbacks of sys.monitoring */

/* Whether the interpreter is in that code, at an instruction that starts or returns. */
static int genuine(PyObject *code, PyObject *ops, int starting, PyObject **globals)
{
    PyFrameObject *frame = PyEval_GetFrame();
    if (frame == NULL || ops == NULL)
        return 0;
    PyObject *actual = (PyObject *)PyFrame_GetCode(frame);
    Py_DECREF(actual); /* the frame keeps it */
    int at = PyFrame_GetLasti(frame);
    if (actual != code || at < 0 || at >= PyBytes_GET_SIZE(ops))
        return 0;
    int op = (uint8_t)PyBytes_AS_STRING(ops)[at];
    *globals = PyFrame_GetGlobals(frame);
    Py_DECREF(*globals);
    if (starting)
        return op == RESUME;
#ifdef RETURN_CONST
    if (op == RETURN_CONST)
        return 1;
#endif
    return op == RETURN_VALUE;
}

static void count(slot *s, PyObject *code, int starting)
{
    PyObject *globals = NULL;
    if (s->code != code || !genuine(code, s->ops, starting, &globals))
        return;
    if (s->globals != NULL && globals != s->globals) {
        s->foreign++;
    } else if (starting) {
        if (s->starts++ == 0 && s == &S.inner)
            callers(((PyCodeObject *)code)->co_filename);
    } else {
        s->returns++;
    }
}

static PyObject *seen(PyObject *const *args, Py_ssize_t size, int starting)
{
    if (size >= 2 && PyCode_Check(args[0]) && here()) {
        if (S.probe != NULL && args[0] == PyFunction_GET_CODE(S.probe)) {
            if (starting)
                S.probe_starts++;
            else
                S.probe_returns++;
        }
        count(&S.inner, args[0], starting);
        count(&S.outer, args[0], starting);
    }
    Py_RETURN_NONE;
}

static PyObject *on_start(PyObject *self, PyObject *const *args, Py_ssize_t size)
{
    return seen(args, size, 1);
}

static PyObject *on_return(PyObject *self, PyObject *const *args, Py_ssize_t size)
{
    return seen(args, size, 0);
}

/* ------------------------------------------------ the audit hook */

static void act(const char *event, const char *where, const char *detail)
{
    char text[2048];
    uint64_t hash = 14695981039346656037u;
    if (S.acts >= MOST)
        return;
    snprintf(text, sizeof text, "A %s %s %s", event, where[0] ? where : "-",
             detail[0] ? detail : "-");
    for (const char *p = text; *p; p++)
        hash = (hash ^ (uint8_t)*p) * 1099511628211u;
    for (size_t i = hash % KNOWN;; i = (i + 1) % KNOWN) {
        if (S.known[i] == hash)
            return;
        if (S.known[i] == 0) {
            S.known[i] = hash;
            break;
        }
    }
    if (++S.acts == MOST || S.used > FULL) {
        S.acts = MOST;
        record("A overflow - - -1");
        return;
    }
    char number[24];
    snprintf(number, sizeof number, " %ld", S.number);
    strcat(text, number); /* room was left: fields are far shorter */
    record(text);
}

/* Tell an act of code under test, or of nobody. */
static void tell(const char *event, int direct, int imports_too, const char *detail)
{
    char where[700] = "";
    int imported = 0;
    int found = whose(where, sizeof where, direct, &imported);
    if (found != ELSEWHERE && (imports_too || !imported))
        act(event, where, detail);
}

static PyObject *argument(PyObject *args, Py_ssize_t number)
{
    if (args == NULL || !PyTuple_Check(args) || PyTuple_GET_SIZE(args) <= number)
        return NULL;
    return PyTuple_GET_ITEM(args, number);
}

static int ends_with(const char *text, const char *end)
{
    size_t a = strlen(text), b = strlen(end);
    return a >= b && strcmp(text + a - b, end) == 0;
}

static void absolute(const char *path, char *real)
{
    if (realpath(path, real) == NULL)
        snprintf(real, PATH_MAX, "%s", path);
}

static const char *path_of(PyObject *value)
{
    if (value != NULL && PyBytes_Check(value))
        return PyBytes_AS_STRING(value);
    return utf8(value);
}

static void wrote(const char *path)
{
    static const char *const kinds[] = {".py", ".pyc", ".so", ".pth", ".ini", ".toml", ".cfg"};
    char real[PATH_MAX] = "", detail[700] = "";
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (!ends_with(path, kinds[i]))
            continue;
        absolute(path, real);
        put(detail, sizeof detail, real);
        tell("write", 0, 1, detail);
        return;
    }
}

static void opened(PyObject *args)
{
    const char *path = path_of(argument(args, 0));
    PyObject *mode = argument(args, 1), *number = argument(args, 2);
    char real[PATH_MAX] = "", detail[700] = "";
    struct stat found;
    if (path[0] == 0)
        return;
    if (S.proc != 0 && stat(path, &found) == 0 && found.st_dev == S.proc) {
        absolute(path, real);
        /* A folder there can be the start of a path to it. */
        if (ends_with(real, "/mem") || (S_ISDIR(found.st_mode) && mode == Py_None)) {
            put(detail, sizeof detail, real);
            tell("memory", 0, 1, detail);
        }
        return;
    }
    if (number != NULL && PyLong_Check(number)) {
        long flags = PyLong_AsLong(number);
        if (flags == -1 && PyErr_Occurred())
            PyErr_Clear();
        else if ((flags & O_ACCMODE) != O_RDONLY)
            wrote(path);
    }
}

static void imported(PyObject *args)
{
    const char *name = utf8(argument(args, 0));
    const char *file = path_of(argument(args, 1));
    char detail[700] = "";
    if (file[0] == 0) {
        if (strcmp(name, "ctypes") == 0 || strcmp(name, "_ctypes") == 0 ||
            strcmp(name, "cffi") == 0 || strcmp(name, "_cffi_backend") == 0)
            tell("native", 0, 0, name);
    } else if (ours(file) || !(standard(file) || strstr(file, "/site-packages/") != NULL ||
                               strstr(file, "/dist-packages/") != NULL ||
                               strstr(file, "/lib-dynload/") != NULL)) {
        put(detail, sizeof detail, file);
        tell("library", 0, 1, detail);
    }
}

/* Whether the innermost frame is in this module of the standard library. */
static int by(const char *module)
{
    PyFrameObject *frame = PyEval_GetFrame();
    if (frame == NULL)
        return 0;
    PyCodeObject *code = PyFrame_GetCode(frame);
    const char *file = utf8(code->co_filename);
    int result = standard(file) && ends_with(file, module);
    Py_DECREF(code);
    return result;
}

static void assigned(PyObject *args)
{
    const char *name = utf8(argument(args, 1));
    char detail[700] = "";
    if (strcmp(name, "__code__") == 0) {
        PyObject *function = argument(args, 0);
        if (function != NULL && PyFunction_Check(function)) {
            PyCodeObject *code = (PyCodeObject *)PyFunction_GET_CODE(function);
            put(detail, sizeof detail, utf8(code->co_filename));
        }
        tell("code", 0, 0, detail);
    } else if (strcmp(name, "__bases__") == 0 && !by("/typing.py")) { /* a generic NamedTuple */
        PyObject *type = argument(args, 0);
        if (type != NULL && PyType_Check(type))
            put(detail, sizeof detail, ((PyTypeObject *)type)->tp_name);
        tell("bases", 0, 0, detail);
    }
}

/* Code with another file's name, which frames would then be taken for. */
static void named(PyObject *name)
{
    char detail[700] = "";
    const char *file = path_of(name);
    if (file[0] == 0 || (file[0] == '<' && strncmp(file, "<frozen", 7) != 0))
        return;
    put(detail, sizeof detail, file);
    tell("named", 1, 1, detail);
}

static void replayed(PyObject *args)
{
    PyObject *code = argument(args, 0);
    if (code != NULL && (code == S.inner.code || code == S.outer.code))
        tell("replay", 0, 1, "");
}

static void judge(const char *event, PyObject *args)
{
    switch (event[0]) {
    case 's':
        if (strcmp(event, "sys.settrace") == 0 || strcmp(event, "sys.setprofile") == 0 ||
            strcmp(event, "sys.addaudithook") == 0 ||
            strcmp(event, "sys.monitoring.register_callback") == 0)
            tell(event, 0, 1, "");
        break;
    case 'g':
        if (strncmp(event, "gc.get_", 7) == 0)
            tell(event, 0, 1, "");
        break;
    case 'o':
        if (strcmp(event, "open") == 0)
            opened(args);
        else if (strcmp(event, "object.__setattr__") == 0)
            assigned(args);
        else if (strcmp(event, "os.rename") == 0)
            wrote(path_of(argument(args, 1)));
        break;
    case 'i':
        if (strcmp(event, "import") == 0)
            imported(args);
        break;
    case 'e':
        if (strcmp(event, "exec") == 0)
            replayed(args);
        break;
    case 'f':
        if (strcmp(event, "function.__new__") == 0)
            replayed(args);
        break;
    case 'm':
        if (strcmp(event, "marshal.loads") == 0 || strcmp(event, "marshal.load") == 0)
            tell(event, 1, 1, "");
        break;
    case 'c':
        if (strcmp(event, "compile") == 0)
            named(argument(args, 1));
        else if (strcmp(event, "code.__new__") == 0)
            named(argument(args, 1));
        else if (strncmp(event, "ctypes.", 7) == 0)
            tell(event, 0, 0, "");
        else if (strcmp(event, "cpython.PyInterpreterState_New") == 0)
            tell(event, 0, 1, "");
        break;
    }
}

static int hook(const char *event, PyObject *args, void *data)
{
    /* Most events are told apart from those of interest by a letter. */
    if (S.busy || strchr("sgoiefmc", event[0]) == NULL || strcmp(event, "object.__getattr__") == 0)
        return 0;
    if (Py_IsFinalizing() || !here())
        return 0;
    S.busy = 1;
    judge(event, args);
    S.busy = 0;
    return 0;
}

/* ------------------------------------------------ what Python gets */

static PyObject *begin(PyObject *self, PyObject *const *args, Py_ssize_t size)
{
    if (size != 4 || !PyLong_Check(args[0]) || !(args[1] == Py_None || PyCode_Check(args[1])) ||
        !(args[2] == Py_None || PyDict_Check(args[2])) ||
        !(args[3] == Py_None || PyCode_Check(args[3]))) {
        PyErr_SetString(PyExc_TypeError, "begin(number, code, globals, outer code)");
        return NULL;
    }
    if (!here())
        Py_RETURN_NONE;
    long number = PyLong_AsLong(args[0]);
    if (number == -1 && PyErr_Occurred())
        return NULL;
    S.number = number;
    S.begins++;
    S.via[0] = 0;
    if (look_at(&S.inner, args[1] == Py_None ? NULL : args[1],
                args[2] == Py_None ? NULL : args[2]) < 0 ||
        look_at(&S.outer, args[3] == Py_None ? NULL : args[3], NULL) < 0)
        return NULL;
    if (S.inner.code != NULL)
        switch_on(S.inner.code);
    if (S.outer.code != NULL)
        switch_on(S.outer.code);
    Py_RETURN_NONE;
}

static int probe_answers(void)
{
    unsigned starts = S.probe_starts, returns = S.probe_returns;
    PyObject *done = PyObject_CallNoArgs(S.probe);
    if (done == NULL)
        PyErr_Clear();
    Py_XDECREF(done);
    return S.probe_starts == starts + 1 && S.probe_returns == returns + 1;
}

static const char *file_of(slot *s)
{
    return s->code == NULL ? "-" : utf8(((PyCodeObject *)s->code)->co_filename);
}

static PyObject *end(PyObject *self, PyObject *nothing)
{
    char text[PLACES * 512 + 2048], inner[700] = "", outer[700] = "";
    if (!here())
        return PyUnicode_FromString("");
    int alive = probe_answers();
    put(inner, sizeof inner, file_of(&S.inner));
    put(outer, sizeof outer, file_of(&S.outer));
    snprintf(text, sizeof text, "E %ld %u %d %s %s %u %u %u %s %s %u %u %s", S.number, S.begins,
             alive, inner, S.inner.hash, S.inner.starts, S.inner.returns, S.inner.foreign, outer,
             S.outer.hash, S.outer.starts, S.outer.returns, S.via[0] ? S.via : "-");
    record(text);
    S.number = -1;
    S.begins = 0;
    S.inner.starts = S.inner.returns = S.inner.foreign = 0;
    S.outer.starts = S.outer.returns = S.outer.foreign = 0;
    Py_CLEAR(S.inner.globals);
    PyObject *told = PyUnicode_FromStringAndSize(S.out, (Py_ssize_t)S.used);
    S.used = 0;
    return told;
}

static PyMethodDef callbacks[] = {
    {"witness", (PyCFunction)(void (*)(void))on_start, METH_FASTCALL, NULL},
    {"witness", (PyCFunction)(void (*)(void))on_return, METH_FASTCALL, NULL},
    {"begin", (PyCFunction)(void (*)(void))begin, METH_FASTCALL, NULL},
    {"end", (PyCFunction)end, METH_NOARGS, NULL},
};

static int read_key(int fd)
{
    size_t got = 0;
    while (got < sizeof S.key) {
        ssize_t n = read(fd, S.key + got, sizeof S.key - got);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            PyErr_SetString(PyExc_OSError, "the key did not come");
            return -1;
        }
        got += (size_t)n;
    }
    return 0;
}

static char *copy(PyObject *text)
{
    const char *found = PyUnicode_Check(text) ? PyUnicode_AsUTF8(text) : NULL;
    if (found == NULL) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "folders are texts");
        return NULL;
    }
    char *made = strdup(found);
    if (made == NULL)
        PyErr_NoMemory();
    return made;
}

static int take_folders(PyObject *skip, PyObject *root)
{
    if (!PyTuple_Check(skip)) {
        PyErr_SetString(PyExc_TypeError, "skip is a tuple of folders");
        return -1;
    }
    S.skip = calloc((size_t)PyTuple_GET_SIZE(skip) + 1, sizeof *S.skip);
    if (S.skip == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(skip); i++) {
        if ((S.skip[S.skips] = copy(PyTuple_GET_ITEM(skip, i))) == NULL)
            return -1;
        S.skips++;
    }
    if ((S.root = copy(root)) == NULL)
        return -1;
    S.root_length = strlen(S.root);
    return 0;
}

/* Take a tool of sys.monitoring, and have it call us. */
static int monitor(void)
{
    PyObject *monitoring = PySys_GetObject("monitoring"); /* borrowed, as is what follows */
    PyObject *events = PyObject_GetAttrString(monitoring, "events");
    PyObject *started = events ? PyObject_GetAttrString(events, "PY_START") : NULL;
    PyObject *returned = events ? PyObject_GetAttrString(events, "PY_RETURN") : NULL;
    PyObject *on[2] = {PyCFunction_New(&callbacks[0], NULL), PyCFunction_New(&callbacks[1], NULL)};
    PyObject *event[2] = {started, returned};
    int result = -1;
    if (returned == NULL || on[0] == NULL || on[1] == NULL)
        goto done;
    for (S.tool = 4; S.tool >= 3; S.tool--) {
        PyObject *used =
            PyObject_CallMethod(monitoring, "use_tool_id", "is", S.tool, "pytest-sandbox");
        if (used != NULL) {
            Py_DECREF(used);
            break;
        }
        if (S.tool == 3)
            goto done;
        PyErr_Clear();
    }
    for (int i = 0; i < 2; i++) {
        PyObject *before = PyObject_CallMethod(monitoring, "register_callback", "iOO", S.tool,
                                               event[i], on[i]);
        if (before == NULL)
            goto done;
        Py_DECREF(before);
    }
    S.mask = PyNumber_Or(started, returned);
    S.set_local = PyObject_GetAttrString(monitoring, "set_local_events");
    result = S.mask == NULL || S.set_local == NULL ? -1 : 0;
done:
    Py_XDECREF(events);
    Py_XDECREF(started);
    Py_XDECREF(returned);
    Py_XDECREF(on[0]);
    Py_XDECREF(on[1]);
    return result;
}

static int make_probe(void)
{
    PyObject *code = Py_CompileString("lambda: None", "<string>", Py_eval_input);
    PyObject *globals = PyDict_New();
    if (code != NULL && globals != NULL)
        S.probe = PyEval_EvalCode(code, globals, globals);
    Py_XDECREF(code);
    Py_XDECREF(globals);
    if (S.probe == NULL)
        return -1;
    switch_on(PyFunction_GET_CODE(S.probe));
    return 0;
}

static PyObject *start(PyObject *self, PyObject *args)
{
    int fd;
    PyObject *skip, *root;
    struct stat found;
    if (!PyArg_ParseTuple(args, "iOO", &fd, &skip, &root))
        return NULL;
    if (S.taken) {
        PyErr_SetString(PyExc_RuntimeError, "there is one witness already");
        return NULL;
    }
    S.taken = 1;
    S.interpreter = PyInterpreterState_Get();
    S.number = -1;
    strcpy(S.inner.hash, "-");
    strcpy(S.outer.hash, "-");
    if (stat("/proc/self/mem", &found) == 0)
        S.proc = found.st_dev;
    if (read_key(fd) < 0 || take_folders(skip, root) < 0 || monitor() < 0 || make_probe() < 0 ||
        PySys_AddAuditHook(hook, NULL) < 0 || pthread_atfork(NULL, NULL, in_child) != 0)
        return NULL;
    S.on = 1;
    PyObject *first = PyCFunction_New(&callbacks[2], NULL);
    PyObject *second = PyCFunction_New(&callbacks[3], NULL);
    PyObject *both = first && second ? PyTuple_Pack(2, first, second) : NULL;
    Py_XDECREF(first);
    Py_XDECREF(second);
    return both;
}

static PyMethodDef methods[] = {
    {"start", start, METH_VARARGS,
     "start(fd, skip, root) -> (begin, end)\n\n"
     "Read a key of 32 bytes from a descriptor and watch this process from now on.\n"
     "skip: folders of the standard library; root: the folder with the code under test.\n"
     "begin(number, code, globals, outer) opens the window of a test, whose innermost code and\n"
     "outermost decorator these are, or None. end() closes it and returns all new records."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
    {0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_witness", "What ran, as C saw it.", 0, methods, slots,
    NULL,                  NULL,       NULL,
};

PyMODINIT_FUNC PyInit__witness(void) { return PyModuleDef_Init(&module); }
