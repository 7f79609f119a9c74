/* Rows of JSON Lines in their usual form: read, and their texts fingerprinted.

`certify` says of each line whether it is a row of the form that it is given, and if so what `fingerprints.py` says of
its texts. Of any other line it says nothing: whether something is wrong with it is for Python to find out. So what is
rare may be refused here (keys in odd escapes, deep nesting, very large numbers), but nothing that is wrong may pass.

Works without Python's lock, on several cores at once. `typed.py` does the same in Python where this is not built. */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000 /* one build for every Python from 3.11 on */
#include <Python.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef uint8_t byte;

/* The form of a row. `native.py` has the same numbers. */

enum kind { TURNS, TEXT, TEXT_OR_NULL, ONLY_NULL, ANYTHING };
enum slot { UNREAD, SYSTEM, QUESTION, MORE_QUESTION, ANSWER, PLAIN, SLOTS };
enum { MOST_COLUMNS = 100, MOST_ROLES = 32, MOST_LEVELS = 60, MOST_DIGITS = 100 };

typedef struct {
    const byte *bytes;
    size_t length;
} Span;

typedef struct {
    Span plain, escaped; /* as JSON has it, with its quotes: as it is, and in ASCII */
} Key;

typedef struct {
    Key key;
    enum kind kind;
    enum slot slot;
} Column;

typedef struct {
    Column columns[MOST_COLUMNS];
    int count;
    int required; /* columns that every row has */
    Key role_key, content_key;
    Span roles[MOST_ROLES]; /* names, with their quotes */
    int role_count;
} Form;

typedef struct {
    uint64_t texts, answer, roles; /* hashes */
    int64_t characters;            /* -1: it has to be examined */
} Found;

static const Found UNKNOWN = {0, 0, 0, -1};

/* What a row says. Its three places have room for its line, and for SLACK more. */
typedef struct {
    byte *texts, *joined, *roles;
    byte *end; /* of the texts so far */
    Span said[SLOTS];
    Span turns, last_turn;
    size_t turn_count;
} Row;

enum { SLACK = 16 };

/* XXH64 (Collet, "xxHash fast digest algorithm", format specification 0.1.1) */

#define P1 0x9E3779B185EBCA87u
#define P2 0xC2B2AE3D27D4EB4Fu
#define P3 0x165667B19E3779F9u
#define P4 0x85EBCA77C2B2AE63u
#define P5 0x27D4EB2F165667C5u

static uint64_t rotated(uint64_t value, int bits) { return (value << bits) | (value >> (64 - bits)); }

static uint64_t word_at(const byte *at) {
    uint64_t word;
    memcpy(&word, at, sizeof word);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

static uint64_t half_word_at(const byte *at) {
    return at[0] | (uint64_t)at[1] << 8 | (uint64_t)at[2] << 16 | (uint64_t)at[3] << 24;
}

static uint64_t lane(uint64_t sum, uint64_t word) { return rotated(sum + word * P2, 31) * P1; }

static uint64_t merged(uint64_t hash, uint64_t sum) { return (hash ^ lane(0, sum)) * P1 + P4; }

static uint64_t hashed(Span text) {
    const byte *at = text.bytes, *end = at + text.length;
    uint64_t hash = P5;
    if (text.length >= 32) {
        uint64_t a = P1 + P2, b = P2, c = 0, d = 0 - P1;
        for (; end - at >= 32; at += 32) {
            a = lane(a, word_at(at));
            b = lane(b, word_at(at + 8));
            c = lane(c, word_at(at + 16));
            d = lane(d, word_at(at + 24));
        }
        hash = rotated(a, 1) + rotated(b, 7) + rotated(c, 12) + rotated(d, 18);
        hash = merged(merged(merged(merged(hash, a), b), c), d);
    }
    hash += text.length;
    for (; end - at >= 8; at += 8)
        hash = rotated(hash ^ lane(0, word_at(at)), 27) * P1 + P4;
    if (end - at >= 4) {
        hash = rotated(hash ^ half_word_at(at) * P1, 23) * P2 + P3;
        at += 4;
    }
    for (; at < end; at++)
        hash = rotated(hash ^ *at * P5, 11) * P1;
    hash = (hash ^ hash >> 33) * P2;
    hash = (hash ^ hash >> 29) * P3;
    return hash ^ hash >> 32;
}

/* Texts. All that follows reads from `at`, never at or beyond `end`, and gives where it stopped, or NULL. */

/* How many bytes the UTF-8 sign takes that begins here; 0 where none does (Unicode 15, table 3-7). */
static int sign_length(const byte *at, const byte *end) {
    byte first = at[0];
    int length = first < 0x80 ? 1 : first < 0xC2 ? 0 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : first < 0xF5 ? 4 : 0;
    if (length > end - at)
        return 0;
    for (int i = 1; i < length; i++)
        if ((at[i] & 0xC0) != 0x80)
            return 0;
    if ((first == 0xE0 && at[1] < 0xA0) || (first == 0xED && at[1] > 0x9F)) /* too long; half of a pair */
        return 0;
    if ((first == 0xF0 && at[1] < 0x90) || (first == 0xF4 && at[1] > 0x8F)) /* too long; beyond Unicode */
        return 0;
    return length;
}

static byte *put_sign(byte *to, uint32_t sign) {
    if (sign < 0x80) {
        *to++ = (byte)sign;
        return to;
    }
    if (sign < 0x800) {
        *to++ = (byte)(0xC0 | sign >> 6);
    } else {
        if (sign < 0x10000) {
            *to++ = (byte)(0xE0 | sign >> 12);
        } else {
            *to++ = (byte)(0xF0 | sign >> 18);
            *to++ = (byte)(0x80 | (sign >> 12 & 0x3F));
        }
        *to++ = (byte)(0x80 | (sign >> 6 & 0x3F));
    }
    *to++ = (byte)(0x80 | (sign & 0x3F));
    return to;
}

/* The number of four hexadecimal digits, or -1. */
static int32_t hex_at(const byte *at, const byte *end) {
    int32_t number = 0;
    if (end - at < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        byte digit = at[i], letter = digit | 0x20;
        if (digit >= '0' && digit <= '9')
            number = number << 4 | (digit - '0');
        else if (letter >= 'a' && letter <= 'f')
            number = number << 4 | (letter - 'a' + 10);
        else
            return -1;
    }
    return number;
}

/* An escape, from its backslash on. */
static const byte *read_escape(const byte *at, const byte *end, byte **to) {
    static const char plain[] = "\"\"\\\\//b\bf\fn\nr\rt\t";
    if (end - at < 2)
        return NULL;
    if (at[1] != 'u') {
        for (const char *pair = plain; *pair; pair += 2) {
            if (at[1] == (byte)pair[0]) {
                *(*to)++ = (byte)pair[1];
                return at + 2;
            }
        }
        return NULL;
    }
    int32_t sign = hex_at(at + 2, end);
    at += 6;
    if (sign < 0 || (sign >= 0xDC00 && sign <= 0xDFFF))
        return NULL;
    if (sign >= 0xD800 && sign <= 0xDBFF) {
        if (end - at < 2 || at[0] != '\\' || at[1] != 'u')
            return NULL;
        int32_t second = hex_at(at + 2, end);
        if (second < 0xDC00 || second > 0xDFFF)
            return NULL;
        at += 6;
        sign = 0x10000 + ((sign - 0xD800) << 10) + (second - 0xDC00);
    }
    *to = put_sign(*to, (uint32_t)sign);
    return at;
}

#define EACH(value) (0x0101010101010101u * (value))

/* Marks the lowest byte that is a quote, a backslash, a control sign or beyond ASCII; 0 where there is none.
   Bytes above it may be marked wrongly (Mycroft 1987: the loan of a subtraction goes upwards). */
static uint64_t marks(uint64_t word) {
    uint64_t quotes = word ^ EACH('"'), backslashes = word ^ EACH('\\');
    uint64_t low = (word - EACH(0x20)) & ~word;
    low |= (quotes - EACH(1)) & ~quotes;
    low |= (backslashes - EACH(1)) & ~backslashes;
    return (low | word) & EACH(0x80);
}

/* A text, from its opening quote on, without its escapes; `to` has room for as many bytes, and SLACK. */
static const byte *read_text(const byte *at, const byte *end, byte **to) {
    byte *out = *to;
    if (at == end || *at++ != '"')
        return NULL;
    for (;;) {
        while (end - at >= 8) {
            uint64_t marked = marks(word_at(at));
            memcpy(out, at, 8);
            int plain = marked ? __builtin_ctzll(marked) / 8 : 8;
            at += plain;
            out += plain;
            if (marked)
                break;
        }
        if (at == end)
            return NULL;
        if (*at == '"') {
            *to = out;
            return at + 1;
        }
        if (*at == '\\') {
            if ((at = read_escape(at, end, &out)) == NULL)
                return NULL;
            continue;
        }
        if (*at < 0x20)
            return NULL;
        do {
            int length = sign_length(at, end);
            if (length == 0)
                return NULL;
            for (int i = 0; i < length; i++)
                *out++ = *at++;
        } while (at < end && *at >= 0x80);
    }
}

/* How many bytes the white space takes with which a text goes on, as `str.isspace` knows it; 0 where there is none. */
static int space_length(const byte *at, const byte *end) {
    size_t left = (size_t)(end - at);
    if ((at[0] >= 0x09 && at[0] <= 0x0D) || (at[0] >= 0x1C && at[0] <= 0x20))
        return 1;
    if (left >= 2 && at[0] == 0xC2 && (at[1] == 0x85 || at[1] == 0xA0))
        return 2;
    if (left < 3)
        return 0;
    bool is_space = (at[0] == 0xE1 && at[1] == 0x9A && at[2] == 0x80) || (at[0] == 0xE3 && at[1] == 0x80 && at[2] == 0x80);
    if (at[0] == 0xE2 && at[1] == 0x80)
        is_space = at[2] <= 0x8A || at[2] == 0xA8 || at[2] == 0xA9 || at[2] == 0xAF;
    if (at[0] == 0xE2 && at[1] == 0x81)
        is_space = at[2] == 0x9F;
    return is_space ? 3 : 0;
}

static bool is_blank(Span text) {
    const byte *at = text.bytes, *end = at + text.length;
    while (at < end) {
        int length = space_length(at, end);
        if (length == 0)
            return false;
        at += length;
    }
    return true;
}

static int64_t signs_in(Span text) {
    int64_t count = 0;
    for (size_t i = 0; i < text.length; i++)
        count += (text.bytes[i] & 0xC0) != 0x80;
    return count;
}

/* Values */

static const byte *skip_space(const byte *at, const byte *end) {
    while (at < end && (*at == ' ' || *at == '\t' || *at == '\r'))
        at++;
    return at;
}

static bool begins_with(const byte *at, const byte *end, Span wanted) {
    return (size_t)(end - at) >= wanted.length && memcmp(at, wanted.bytes, wanted.length) == 0;
}

/* How many bytes the key takes that stands here; 0 where another does. */
static size_t key_length(const byte *at, const byte *end, const Key *key) {
    if (begins_with(at, end, key->plain))
        return key->plain.length;
    return begins_with(at, end, key->escaped) ? key->escaped.length : 0;
}

static const byte *read_word(const byte *at, const byte *end, const char *word) {
    Span wanted = {(const byte *)word, strlen(word)};
    return begins_with(at, end, wanted) ? at + wanted.length : NULL;
}

/* A sign that JSON wants, with the white space around it. */
static const byte *read_sign(const byte *at, const byte *end, char sign) {
    at = skip_space(at, end);
    return at < end && *at == (byte)sign ? skip_space(at + 1, end) : NULL;
}

/* At least one digit, and at most so many. */
static const byte *read_digits(const byte *at, const byte *end, ptrdiff_t most) {
    const byte *first = at;
    while (at < end && *at >= '0' && *at <= '9')
        at++;
    return at > first && at - first <= most ? at : NULL;
}

/* A number that is far from being too large for anybody. */
static const byte *read_number(const byte *at, const byte *end) {
    if (at < end && *at == '-')
        at++;
    const byte *first = at;
    if ((at = read_digits(at, end, MOST_DIGITS)) == NULL || (*first == '0' && at - first > 1))
        return NULL;
    if (at < end && *at == '.' && (at = read_digits(at + 1, end, end - at)) == NULL)
        return NULL;
    if (at < end && (*at == 'e' || *at == 'E')) {
        at++;
        if (at < end && (*at == '+' || *at == '-'))
            at++;
        at = read_digits(at, end, 2);
    }
    return at;
}

static const byte *read_scalar(const byte *at, const byte *end, byte *scratch) {
    if (at == end)
        return NULL;
    switch (*at) {
    case '"':
        return read_text(at, end, &scratch);
    case 't':
        return read_word(at, end, "true");
    case 'f':
        return read_word(at, end, "false");
    case 'n':
        return read_word(at, end, "null");
    default:
        return read_number(at, end);
    }
}

/* The key of a member and its colon, up to its value. */
static const byte *skip_key(const byte *at, const byte *end, byte *scratch) {
    at = read_text(at, end, &scratch);
    return at == NULL ? NULL : read_sign(at, end, ':');
}

/* Any value. What it is made of lies in `scratch` then, and is of no use. */
static const byte *skip_value(const byte *at, const byte *end, byte *scratch) {
    uint64_t objects = 0; /* a bit for each level, the innermost lowest: is it an object? */
    int levels = 0;
    for (;;) {
        bool opens = at < end && (*at == '{' || *at == '[');
        if (opens) {
            if (levels++ == MOST_LEVELS)
                return NULL;
            objects = objects << 1 | (*at == '{');
            at = skip_space(at + 1, end);
            if (at < end && *at != (objects & 1 ? '}' : ']')) {
                if (objects & 1 && (at = skip_key(at, end, scratch)) == NULL)
                    return NULL;
                continue;
            }
        } else if ((at = read_scalar(at, end, scratch)) == NULL) {
            return NULL;
        }
        for (;;) { /* what closes, up to the next value */
            if (levels == 0)
                return at;
            at = skip_space(at, end);
            if (at == end)
                return NULL;
            if (*at == ',')
                break;
            if (*at != (objects & 1 ? '}' : ']'))
                return NULL;
            objects >>= 1;
            levels--;
            at++;
        }
        at = skip_space(at + 1, end);
        if (objects & 1 && (at = skip_key(at, end, scratch)) == NULL)
            return NULL;
    }
}

/* Rows */

/* A turn, from its bracket on: its role and its text, in either order, and nothing else. */
static const byte *read_turn(const byte *at, const byte *end, const Form *form, Row *row) {
    bool has_role = false, has_text = false;
    if ((at = read_sign(at, end, '{')) == NULL)
        return NULL;
    for (int member = 0; member < 2; member++) {
        if (member > 0 && (at = read_sign(at, end, ',')) == NULL)
            return NULL;
        size_t length;
        if (!has_role && (length = key_length(at, end, &form->role_key)) > 0) {
            if ((at = read_sign(at + length, end, ':')) == NULL)
                return NULL;
            int role = 0;
            while (role < form->role_count && !begins_with(at, end, form->roles[role]))
                role++;
            if (role == form->role_count)
                return NULL;
            at += form->roles[role].length;
            row->roles[1 + row->turn_count] = (byte)role;
            has_role = true;
        } else if (!has_text && (length = key_length(at, end, &form->content_key)) > 0) {
            if ((at = read_sign(at + length, end, ':')) == NULL)
                return NULL;
            if (row->turn_count > 0)
                *row->end++ = 0;
            row->last_turn.bytes = row->end;
            if ((at = read_text(at, end, &row->end)) == NULL)
                return NULL;
            row->last_turn.length = (size_t)(row->end - row->last_turn.bytes);
            if (is_blank(row->last_turn))
                return NULL;
            has_text = true;
        } else {
            return NULL;
        }
    }
    row->turn_count++;
    return read_sign(at, end, '}');
}

/* The list of turns: their texts with a zero between them. */
static const byte *read_turns(const byte *at, const byte *end, const Form *form, Row *row) {
    row->turns.bytes = row->end;
    if ((at = read_sign(at, end, '[')) == NULL)
        return NULL;
    for (;;) {
        if ((at = read_turn(at, end, form, row)) == NULL || at == end)
            return NULL;
        if (*at == ']')
            break;
        if ((at = read_sign(at, end, ',')) == NULL)
            return NULL;
    }
    row->turns.length = (size_t)(row->end - row->turns.bytes);
    return at + 1;
}

static const byte *read_value(const byte *at, const byte *end, const Form *form, int number, Row *row) {
    if (at == end)
        return NULL;
    enum kind kind = form->columns[number].kind;
    if (kind == TURNS)
        return read_turns(at, end, form, row);
    if (kind == ANYTHING)
        return skip_value(at, end, row->end);
    if (kind == ONLY_NULL || (kind == TEXT_OR_NULL && *at == 'n'))
        return read_word(at, end, "null");
    Span *text = &row->said[form->columns[number].slot];
    text->bytes = row->end;
    if ((at = read_text(at, end, &row->end)) == NULL)
        return NULL;
    text->length = (size_t)(row->end - text->bytes);
    return at;
}

/* Everything that the line holds. */
static bool read_row(const byte *at, const byte *end, const Form *form, Row *row) {
    bool seen[MOST_COLUMNS] = {false};
    int number = -1, missing = form->required;
    row->end = row->texts;
    row->turn_count = 0;
    memset(row->said, 0, sizeof row->said);
    at = read_sign(at, end, '{');
    for (;;) {
        if (at == NULL)
            return false;
        int tried = 0;
        size_t length;
        do { /* columns mostly stand in the same order */
            if (tried++ == form->count)
                return false;
            number = (number + 1) % form->count;
            length = key_length(at, end, &form->columns[number].key);
        } while (length == 0);
        if (seen[number])
            return false;
        seen[number] = true;
        missing -= form->columns[number].kind <= TEXT;
        if ((at = read_sign(at + length, end, ':')) == NULL)
            return false;
        if ((at = read_value(at, end, form, number, row)) == NULL)
            return false;
        at = skip_space(at, end);
        if (at == end)
            return false;
        if (*at == '}')
            return missing == 0 && skip_space(at + 1, end) == end;
        at = read_sign(at, end, ',');
    }
}

static byte *put(byte *to, Span text) {
    if (text.length > 0)
        memcpy(to, text.bytes, text.length);
    return to + text.length;
}

/* What a row says that has no turns, or a system text beside them: with a zero between its parts. */
static Span joined(const Row *row) {
    const Span *said = row->said;
    byte *to = row->joined;
    if (said[SYSTEM].length > 0) {
        to = put(to, said[SYSTEM]);
        *to++ = 0;
    }
    if (row->turn_count > 0) {
        to = put(to, row->turns);
    } else {
        to = put(to, said[QUESTION]);
        if (said[QUESTION].length > 0 && said[MORE_QUESTION].length > 0)
            *to++ = '\n';
        to = put(to, said[MORE_QUESTION]);
        *to++ = 0;
        to = put(to, said[ANSWER]);
    }
    return (Span){row->joined, (size_t)(to - row->joined)};
}

/* What is to be said of a row that was read; see `fingerprints.py`. */
static Found of_row(Row *row) {
    Span plain = row->said[PLAIN], system = row->said[SYSTEM];
    if (plain.bytes != NULL)
        return is_blank(plain) ? UNKNOWN : (Found){hashed(plain), 0, 0, signs_in(plain)};
    bool has_turns = row->turn_count > 0, has_system = system.length > 0;
    Span answer = has_turns ? row->last_turn : row->said[ANSWER];
    if (is_blank(answer) || (has_system && is_blank(system)))
        return UNKNOWN;
    Span whole = has_turns && !has_system ? row->turns : joined(row);
    int64_t parts = has_system + (has_turns ? (int64_t)row->turn_count : 2);
    row->roles[0] = has_system;
    Span roles = {row->roles, 1 + row->turn_count};
    return (Found){hashed(whole), hashed(answer), hashed(roles), signs_in(whole) - (parts - 1)};
}

/* For Python */

static int take_bytes(PyObject *given, Span *span) {
    char *bytes;
    Py_ssize_t length;
    if (PyBytes_AsStringAndSize(given, &bytes, &length) < 0)
        return 0;
    *span = (Span){(const byte *)bytes, (size_t)length};
    return 1;
}

/* (as it is, in ASCII) */
static int take_key(PyObject *given, Key *key) {
    PyObject *plain, *escaped;
    return PyArg_ParseTuple(given, "SS", &plain, &escaped) && take_bytes(plain, &key->plain) &&
           take_bytes(escaped, &key->escaped);
}

/* (key, kind, slot) */
static int take_column(PyObject *given, Column *column) {
    PyObject *key;
    int kind, slot;
    if (!PyArg_ParseTuple(given, "O!ii", &PyTuple_Type, &key, &kind, &slot) || !take_key(key, &column->key))
        return 0;
    if (kind < TURNS || kind > ANYTHING || slot < UNREAD || slot >= SLOTS) {
        PyErr_SetString(PyExc_ValueError, "no such kind of column");
        return 0;
    }
    column->kind = (enum kind)kind;
    column->slot = (enum slot)slot;
    return 1;
}

/* The form points into the objects that it is read from. */
static int take_form(PyObject *columns, PyObject *roles, Form *form) {
    Py_ssize_t count = PyTuple_Size(columns), role_count = PyTuple_Size(roles);
    if (count < 1 || count > MOST_COLUMNS || role_count < 0 || role_count > MOST_ROLES) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ValueError, "too many columns or roles, or no column");
        return 0;
    }
    form->count = (int)count;
    form->role_count = (int)role_count;
    form->required = 0;
    for (int i = 0; i < form->count; i++) {
        if (!take_column(PyTuple_GetItem(columns, i), &form->columns[i]))
            return 0;
        form->required += form->columns[i].kind <= TEXT;
    }
    for (int i = 0; i < form->role_count; i++)
        if (!take_bytes(PyTuple_GetItem(roles, i), &form->roles[i]))
            return 0;
    return 1;
}

/* The length of the longest line; -1 where `ends` are not those of lines of so much data. */
static int64_t longest_line(const int64_t *ends, size_t lines, int64_t size) {
    int64_t longest = 0, begin = 0;
    for (size_t i = 0; i < lines; begin = ends[i++] + 1) {
        if (ends[i] < begin || ends[i] > size)
            return -1;
        if (ends[i] - begin > longest)
            longest = ends[i] - begin;
    }
    return longest;
}

static void certify_lines(const byte *data, const int64_t *ends, size_t lines, const Form *form, Row *row, Found *to) {
    const byte *at = data;
    for (size_t i = 0; i < lines; i++) {
        const byte *end = data + ends[i];
        to[i] = read_row(at, end, form, row) ? of_row(row) : UNKNOWN;
        at = end + 1;
    }
}

PyDoc_STRVAR(doc, "certify(data, ends, columns, role_key, content_key, roles, found, /)\n--\n\n"
                  "Fills `found`, four 64-bit numbers a line, from the lines of `data` that end at `ends` (int64).\n\n"
                  "columns: (key, kind, slot) each; a key: as JSON has it, with its quotes, and the same in ASCII.");

static PyObject *certify(PyObject *module, PyObject *arguments) {
    (void)module;
    Py_buffer data = {0}, ends = {0}, target = {0};
    PyObject *columns, *roles, *role_key, *content_key, *result = NULL;
    byte *memory = NULL;
    Form form;
    Row row;
    if (!PyArg_ParseTuple(arguments, "y*y*O!O!O!O!w*", &data, &ends, &PyTuple_Type, &columns, &PyTuple_Type, &role_key,
                          &PyTuple_Type, &content_key, &PyTuple_Type, &roles, &target))
        return NULL;
    if (!take_form(columns, roles, &form) || !take_key(role_key, &form.role_key) ||
        !take_key(content_key, &form.content_key))
        goto done;
    size_t lines = (size_t)ends.len / sizeof(int64_t);
    int64_t longest = longest_line(ends.buf, lines, data.len);
    if (longest < 0 || (size_t)target.len != lines * sizeof(Found)) {
        PyErr_SetString(PyExc_ValueError, "the lines do not fit the data, or their number the place for what is found");
        goto done;
    }
    size_t room = (size_t)longest + SLACK;
    if ((memory = PyMem_Malloc(3 * room)) == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    row.texts = memory;
    row.joined = memory + room;
    row.roles = memory + 2 * room;
    Py_BEGIN_ALLOW_THREADS
    certify_lines(data.buf, ends.buf, lines, &form, &row, target.buf);
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    PyMem_Free(memory);
    PyBuffer_Release(&data);
    PyBuffer_Release(&ends);
    PyBuffer_Release(&target);
    return result;
}

static PyMethodDef functions[] = {{"certify", certify, METH_VARARGS, doc}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_certify", NULL, 0, functions, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__certify(void) { return PyModule_Create(&definition); }
